"""NAS-Bench-201 as a space and an evaluator: the table's figures, keyed by its own index."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evaluators.protocol import Measured, Slot
from search_spaces.architecture import Architecture
from search_spaces.builder import NetworkBuilder
from search_spaces.space import space

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "nas"
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EPOCHS, EARLY = 200, 12


@space("nb201-table", version=1)
def table_space(choose: Any, data: Any) -> Any:
    """Stands for the table's cells: a chain of layers whose widths say the six operations.

    So each row of the table is a network of its own, which the cells themselves are not.
    """
    net = NetworkBuilder(data.input_shape)
    x = net.flatten(net.input)
    for edge in range(6):
        x = net.linear(x, OPERATIONS.index(choose(f"edge{edge}", list(OPERATIONS))) + 2)
    return net.linear(x, data.classes)


@cache
def table() -> dict[str, dict[str, float]]:
    """Return the rows by architecture string, with the latencies."""
    rows: dict[str, dict[str, float]] = {}
    names = []
    with gzip.open(FOLDER / "nb201.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            name = row.pop("arch_str")
            names.append(name)
            rows[name] = {column: float(value) for column, value in row.items()}
    with gzip.open(FOLDER / "nb201_latency_ms.csv.gz", "rt") as file:
        for name, row in zip(names, csv.DictReader(file), strict=True):
            rows[name] |= {column: float(value) for column, value in row.items()}
    return rows


def row_of(architecture: Architecture) -> dict[str, float]:
    widths = [node.shape[0] for node in architecture.nodes if node.op.kind == "linear"][:6]
    a, b, c, d, e, f = (OPERATIONS[width - 2] for width in widths)
    return table()[f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"]


@dataclass(frozen=True)
class TableAccuracy:
    """The 200-epoch test accuracy on CIFAR-10; after 12 epochs, the validation accuracy.

    Attributes:
        metrics: the one.
        epoch: after which it is looked at; None for the end.
    """

    metrics: tuple[str, ...] = ("accuracy",)
    epoch: int | None = None
    slot: Slot = "training"
    steps: int = EPOCHS

    def until(self, step: int, metrics: tuple[str, ...]) -> TableAccuracy:
        return TableAccuracy(metrics, step)

    def state_files(self, architecture: Architecture) -> tuple[Path, ...]:
        return ()

    def cache_key(self, architecture: Architecture) -> str:
        return f"nb201-{self.metrics[0]}-{architecture.key}"

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        assert self.epoch in (None, EARLY), "the table knows no other epoch"
        column = "cifar10_test_200" if self.epoch is None else "cifar10_valid_12"
        return [Measured(self.metrics[0], row_of(architecture)[column] / 100)]


@dataclass(frozen=True)
class TableCost:
    """A column of costs."""

    column: str
    slot: Slot = "inline"

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.column,)

    def cache_key(self, architecture: Architecture) -> str:
        return ""

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        return [Measured(self.column, row_of(architecture)[self.column])]
