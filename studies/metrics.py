"""Names of metrics: one grammar, ``name`` or ``name[key=value,...]``, read in this one place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from kernels.errors import NasError, UnknownNameError

Direction = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class MetricKind:
    """What is known of all metrics of one name.

    Attributes:
        unit: of the value; empty for a plain number.
        direction: which way is better.
        searchable: whether a search may aim at it; a test split must not be.
        defaults: qualifiers it accepts and what they are when left out; positive integers.
    """

    unit: str
    direction: Direction
    searchable: bool = True
    defaults: tuple[tuple[str, int], ...] = ()


METRICS: dict[str, MetricKind] = {
    "accuracy": MetricKind("share of the validation split", "max"),
    "test_accuracy": MetricKind("share of the test split", "max", searchable=False),
    "latency_ms": MetricKind("ms a batch", "min", defaults=(("batch", 1),)),
    "params": MetricKind("", "min"),
    "macs": MetricKind("multiply-accumulates a sample", "min"),
    "bytes_moved": MetricKind("bytes a sample", "min"),
    "peak_activation_bytes": MetricKind("bytes a sample", "min"),
    "layers": MetricKind("", "min"),
    "depth": MetricKind("", "min"),
    "rf_gain": MetricKind("nats", "max"),
    "rf_volume": MetricKind("nats", "max"),
    "rf_local": MetricKind("nats", "max"),
}
"""Every metric by name."""

_METRIC = re.compile(r"([a-z_0-9]+)(?:\[([^\[\]]*)\])?")


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with the conditions it is taken under; ``str`` gives its one canonical name.

    Attributes:
        name: a key of :data:`METRICS`.
        qualifiers: what differs from the defaults, sorted by name.
    """

    name: str
    qualifiers: tuple[tuple[str, int], ...] = ()

    @property
    def kind(self) -> MetricKind:
        """What is known of it."""
        return METRICS[self.name]

    def qualifier(self, name: str) -> int:
        """Return a condition, given or by default.

        Raises:
            KeyError: the metric has no such condition.
        """
        return {**dict(self.kind.defaults), **dict(self.qualifiers)}[name]

    def __str__(self) -> str:
        inner = ",".join(f"{name}={value}" for name, value in self.qualifiers)
        return f"{self.name}[{inner}]" if inner else self.name


@dataclass(frozen=True, slots=True)
class Objective:
    """What a search makes as large or as small as it can."""

    metric: Metric
    direction: Direction

    def __str__(self) -> str:
        return f"{self.metric} ({self.direction})"


def parse_metric(text: str) -> Metric:
    """Read a metric.

    Example:
        >>> str(parse_metric("latency_ms[batch=256]")), str(parse_metric("latency_ms[batch=1]"))
        ('latency_ms[batch=256]', 'latency_ms')

    Raises:
        UnknownNameError: no metric or qualifier has that name.
        NasError: the text does not follow the grammar, or a value is no positive integer.
    """
    match = _METRIC.fullmatch(text.strip())
    if match is None:
        raise NasError(f"Cannot read the metric {text!r}; write it as name or name[key=value,...].")
    name, inner = match.groups()
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    defaults = dict(METRICS[name].defaults)
    found: dict[str, int] = {}
    for item in [] if inner is None else inner.split(","):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in defaults:
            raise UnknownNameError(f"qualifier of {name}", key, defaults)
        if not re.fullmatch(r"[1-9][0-9]*", value) or key in found:
            raise NasError(f"{text!r}: expected {key}=N once, N a positive integer.")
        found[key] = int(value)
    kept = sorted(item for item in found.items() if item[1] != defaults[item[0]])
    return Metric(name, tuple(kept))


def parse_objective(text: str) -> Objective:
    """Read a metric to search for, in the direction that is better.

    Raises:
        NasError: the metric cannot be read, or must not be searched for.
    """
    metric = parse_metric(text)
    if not metric.kind.searchable:
        raise NasError(
            f"{text!r} cannot be an objective: selecting on it would spoil it as a check. "
            "Use 'accuracy', which is measured on the validation split."
        )
    return Objective(metric, metric.kind.direction)
