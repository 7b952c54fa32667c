"""The operators a network is made of; importing this package enrols them all."""

from __future__ import annotations

from search_spaces.ops.activation import ACTIVATIONS, Activation
from search_spaces.ops.attention import Attention
from search_spaces.ops.base import OPS, Facts, Op, Reach, Shape, make_op, parse_op
from search_spaces.ops.conv import Conv
from search_spaces.ops.linear import Linear
from search_spaces.ops.merge import Add, Concat, Multiply
from search_spaces.ops.norm import Norm
from search_spaces.ops.pool import AdaptivePool, AvgPool, MaxPool
from search_spaces.ops.rearrange import ChannelShuffle, Dropout, Flatten
from search_spaces.ops.sliding_channel import SlidingChannel
from search_spaces.ops.source import Input, Zero
from search_spaces.ops.tokens import (
    ClassToken,
    Embedding,
    Positions,
    Rotary,
    TokenPool,
    Tokens,
    Unembedding,
)

__all__ = [
    "ACTIVATIONS",
    "OPS",
    "Activation",
    "AdaptivePool",
    "Add",
    "Attention",
    "AvgPool",
    "ChannelShuffle",
    "ClassToken",
    "Concat",
    "Conv",
    "Dropout",
    "Embedding",
    "Facts",
    "Flatten",
    "Input",
    "Linear",
    "MaxPool",
    "Multiply",
    "Norm",
    "Op",
    "Positions",
    "Reach",
    "Rotary",
    "Shape",
    "SlidingChannel",
    "TokenPool",
    "Tokens",
    "Unembedding",
    "Zero",
    "make_op",
    "parse_op",
]
