"""The frozen description of a network: how it is normalised, numbered, written and named."""

from __future__ import annotations

from search_spaces.architecture.frozen import SCHEMA, Architecture
from search_spaces.architecture.node import Node, Region, Variant

__all__ = ["SCHEMA", "Architecture", "Node", "Region", "Variant"]
