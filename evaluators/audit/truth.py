"""What an audit holds an export against: the study's own network, data and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from evaluators.accuracy.data import Split, TextSplit
from evaluators.accuracy.data.tokens import Tokeniser
from search_spaces.architecture import Architecture
from search_spaces.export.values import Figure
from search_spaces.export.write import Order

OUTPUT_TOLERANCE = {"plain": 1e-5, "packed": 1e-4}
"""By form: largest difference of an output, in units of the largest output."""
ROUNDINGS = 3
"""Where float32 itself is coarser: how often the study's own rounding onnxruntime may be off."""
LARGEST_ROUNDING = 1e-3
"""And the most that is granted so, in units of the largest output."""
FLIPS = 10
"""Where variants round to few bits: how often their own rounding outputs may be off. A value at the
edge of a step falls to the other side by the last bit of a sum, and moves all that follows."""
LARGEST_FLIP = 0.1
"""And the most that is granted so; what it hides, accuracy and loss show."""
INPUT_TOLERANCE = 1e-5
"""Largest difference of a normalised pixel, in standard deviations of the training images."""
ACCURACY_TOLERANCE = 0.002
"""Share of the test images whose class may change, as rounding differs between devices."""
LOSS_TOLERANCE = 0.001
"""Nats a token by which the loss may change, as rounding differs between devices."""
LATENCY_TOLERANCE = 0.15
"""How much slower a packed export may be than the slow end of the study's spread."""


@dataclass(frozen=True, slots=True)
class Latency:
    """A latency of the study, and how it is measured again.

    Attributes:
        metric: its name.
        figure: in milliseconds a batch.
        qualifiers: arguments of the latency evaluator that measured it, such as ``batch``.
    """

    metric: str
    figure: Figure
    qualifiers: Mapping[str, int | str]


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The model as the study has it; nothing of this is read from the export.

    Attributes:
        architecture: the network.
        module: of that network, with the trained weights, on the CPU.
        order: what the export is to be, with facts and preprocessing.
        test: the test split; None where the data is not known.
        tokeniser: of a text.
        test_accuracy: share of the test images that the study's model gets right.
        test_loss: of a text, nats a token.
        latencies: those that the study measured.
        device: a torch device name: where to measure again.
        device_note: what differs from the study's device; empty if nothing does.
    """

    architecture: Architecture
    module: nn.Module
    order: Order
    test: Split | TextSplit | None = None
    tokeniser: Tokeniser | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    latencies: tuple[Latency, ...] = ()
    device: str = "cpu"
    device_note: str = ""
