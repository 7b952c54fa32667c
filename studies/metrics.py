"""Names of metrics: one grammar, ``name`` or ``name[key=value,...]``, read in this one place.

An objective is a metric, with ``:min`` or ``:max`` behind it where the metric is a user's own. A
constraint is a metric, ``<=`` or ``>=`` and a number: ``latency_ms<=2.5``, ``params<=500k``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kernels.errors import NasError, UnknownNameError

Direction = Literal["min", "max"]
Qualifiers = tuple[tuple[str, int | str], ...]


@dataclass(frozen=True, slots=True)
class MetricKind:
    """What is known of all metrics of one name.

    Attributes:
        unit: of the value; empty for a plain number.
        direction: which way is better.
        searchable: whether a search may aim at it; a test split must not be.
        defaults: qualifiers it accepts and what they are when left out: positive integers or
            words; an empty word means what the study's settings say.
    """

    unit: str
    direction: Direction
    searchable: bool = True
    defaults: Qualifiers = ()


_SIZE: Qualifiers = (("batch", 1), ("dtype", "float32"))
_EPOCH: Qualifiers = (("epoch", 0),)
"""After which epoch of the training; without it after the last one."""
_TRAINED: Qualifiers = (*_EPOCH, ("recipe", ""), ("seeds", 1))
_RUN: Qualifiers = (*_SIZE, ("cache", "warm"), ("mode", ""), ("phase", ""), ("tokens", 0))

SCREEN = "layers_ms"
"""What a funnel may judge latency by before it is measured: the sum of a network's layers."""

UNTRAINED = (
    "jacob_cov",
    "naswot",
    "synflow",
    "zico",
    "expressivity",
    "narrowest",
    "progressivity",
    "trainability",
    "vkdnw",
    "dss",
    "attention_confidence",
    "head_importance",
)
"""Scores of fresh networks; :mod:`evaluators.proxies.untrained` says what they are."""

METRICS: dict[str, MetricKind] = {
    "accuracy": MetricKind("share of the validation split", "max", defaults=_TRAINED),
    "test_accuracy": MetricKind("share of the test split", "max", False, _TRAINED),
    "loss": MetricKind("nats a token of the validation split", "min", defaults=_TRAINED),
    "test_loss": MetricKind("nats a token of the test split", "min", False, _TRAINED),
    "bits_per_byte": MetricKind("bits a byte of the validation split", "min", defaults=_TRAINED),
    "test_bits_per_byte": MetricKind("bits a byte of the test split", "min", False, _TRAINED),
    "latency_ms": MetricKind("ms a batch", "min", defaults=_RUN),
    "trained_latency_ms": MetricKind("ms a batch, with the trained weights", "min", False, _RUN),
    SCREEN: MetricKind("ms a batch, the sum of its layers", "min", False, _SIZE),
    "energy_mj": MetricKind("mJ a batch", "min", defaults=_SIZE),
    "peak_memory_mb": MetricKind("MB a batch", "min", defaults=_SIZE),
    "params": MetricKind("", "min"),
    "macs": MetricKind("multiply-accumulates a sample", "min"),
    "bytes_moved": MetricKind("bytes a sample", "min"),
    "peak_activation_bytes": MetricKind("bytes a sample", "min"),
    "layers": MetricKind("", "min"),
    "depth": MetricKind("", "min"),
    "kv_cache_bytes": MetricKind("bytes a sample", "min"),
    "body_params": MetricKind("", "min"),
    "rf_gain": MetricKind("nats", "max"),
    "rf_volume": MetricKind("nats", "max"),
    "rf_local": MetricKind("nats", "max"),
    "path_local": MetricKind("nats", "max"),
    "path_spatial": MetricKind("nats", "max"),
    "shortest_path": MetricKind("layers", "min"),
    "path_pools": MetricKind("layers", "min"),
    "bottlenecks": MetricKind("", "min"),
    "joint_rank": MetricKind("ln of shares", "max"),
    "joint_probe": MetricKind("ln of shares", "max"),
    **{name: MetricKind("", "max") for name in UNTRAINED},
}
"""Every metric of the tool by name; a user's evaluator may give others."""

QUALITIES = ("accuracy", "loss", "bits_per_byte")
"""What a training gives; the test split gives the same with ``test_`` before the name."""

_NAME = r"[A-Za-z_][A-Za-z_0-9]*"
_METRIC = re.compile(rf"({_NAME})(?:\[([^\[\]]*)\])?")
_CONSTRAINT = re.compile(r"(.+?)\s*(<=|>=)\s*([0-9.eE+-]+)\s*([kMG]?)")
_SUFFIX = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with the conditions it is taken under; ``str`` gives its one canonical name.

    Attributes:
        name: a key of :data:`METRICS`, or a user's own.
        qualifiers: what differs from the defaults, sorted by name.
    """

    name: str
    qualifiers: Qualifiers = ()

    @property
    def kind(self) -> MetricKind | None:
        """What is known of it; None of a user's own."""
        return METRICS.get(self.name)

    def qualifier(self, name: str) -> int | str:
        """Return a condition, given or by default.

        Raises:
            KeyError: the metric has no such condition.
        """
        defaults = self.kind.defaults if self.kind else _EPOCH
        return {**dict(defaults), **dict(self.qualifiers)}[name]

    def after(self, epoch: int) -> Metric:
        """Return the same metric after an epoch of the training; 0 for after the last one."""
        others = [item for item in self.qualifiers if item[0] != "epoch"]
        return Metric(self.name, tuple(sorted([*others, ("epoch", epoch)] if epoch else others)))

    def __str__(self) -> str:
        inner = ",".join(f"{name}={value}" for name, value in self.qualifiers)
        return f"{self.name}[{inner}]" if inner else self.name


@dataclass(frozen=True, slots=True)
class Objective:
    """What a search makes as large or as small as it can; ``str`` reads back."""

    metric: Metric
    direction: Direction

    def __str__(self) -> str:
        return str(self.metric) if self.metric.kind else f"{self.metric}:{self.direction}"


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound that candidates must keep; ``str`` reads back."""

    metric: Metric
    relation: Literal["<=", ">="]
    bound: float

    def violation(self, value: float) -> float:
        """Return how far beyond the bound a value is, relative to the bound; <= 0 keeps it.

        Example:
            >>> parse_constraint("params<=200").violation(300.0)
            0.5
        """
        beyond = value - self.bound if self.relation == "<=" else self.bound - value
        return beyond / (abs(self.bound) or 1.0)

    def __str__(self) -> str:
        return f"{self.metric}{self.relation}{self.bound:.12g}"


def parse_metric(text: str, *, own: bool = False) -> Metric:
    """Read a metric.

    Args:
        text: as :mod:`studies.metrics` says.
        own: whether a name the tool does not know is taken for a user's own metric.

    Example:
        >>> str(parse_metric("latency_ms[batch=256]")), str(parse_metric("latency_ms[batch=1]"))
        ('latency_ms[batch=256]', 'latency_ms')

    Raises:
        UnknownNameError: no metric or qualifier has that name.
        NasError: the text does not follow the grammar, or a value is of the wrong kind.
    """
    match = _METRIC.fullmatch(text.strip())
    if match is None:
        raise NasError(f"Cannot read the metric {text!r}; write it as name or name[key=value,...].")
    name, inner = match.groups()
    if name not in METRICS and not own:
        raise UnknownNameError("metric", name, METRICS)
    defaults = dict(METRICS[name].defaults if name in METRICS else _EPOCH)
    found: dict[str, int | str] = {}
    for item in [] if inner is None else inner.split(","):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in defaults:
            raise UnknownNameError(f"qualifier of {name}", key, defaults)
        if key in found:
            raise NasError(f"{text!r} gives {key} twice.")
        found[key] = _qualifier(text, key, value, defaults[key])
    kept = sorted(item for item in found.items() if item[1] != defaults[item[0]])
    return Metric(name, tuple(kept))


def _qualifier(text: str, key: str, value: str, default: int | str) -> int | str:
    if isinstance(default, int):
        if not re.fullmatch(r"[1-9][0-9]*", value):
            raise NasError(f"{text!r}: expected {key}=N, N a positive integer.")
        return int(value)
    if not _WORD.fullmatch(value):
        raise NasError(f"{text!r}: expected {key}=WORD, got {value!r}.")
    return value


def parse_objective(text: str) -> Objective:
    """Read a metric to search for; a user's own needs ``:min`` or ``:max`` behind it.

    Raises:
        NasError: the metric cannot be read, or must not be searched for.
    """
    name, colon, word = text.strip().rpartition(":")
    if not colon:
        metric = parse_metric(text)
    elif word not in ("min", "max"):
        raise NasError(f"{text!r}: expected :min or :max behind the metric, got {word!r}.")
    else:
        metric = parse_metric(name, own=True)
    kind = metric.kind
    if kind is None:
        return Objective(metric, "min" if word == "min" else "max")
    if metric.name == SCREEN:
        raise NasError(
            f"{text!r} cannot be an objective: it only screens, as in --funnel {SCREEN}:0.5. "
            "Use 'latency_ms', which is measured on the whole network."
        )
    if not kind.searchable:
        raise NasError(
            f"{text!r} cannot be an objective: selecting on it would spoil it as a check. "
            "Use 'accuracy', which is measured on the validation split."
        )
    if colon and word != kind.direction:
        raise NasError(f"{text!r}: {metric} is better when it is {_BETTER[kind.direction]}.")
    return Objective(metric, kind.direction)


_BETTER = {"min": "small", "max": "large"}


def quality_of(names: Iterable[str]) -> str | None:
    """Return the first of some metrics that a training gives; None where nothing is trained.

    Example:
        >>> quality_of(["params", "loss"]), quality_of(["params"])
        ('loss', None)
    """
    return next((name for name in names if name in QUALITIES), None)


def best_first(name: str, value: float) -> float:
    """Return a key by which the better values of a metric of the tool come first."""
    return value if METRICS[parse_metric(name).name].direction == "min" else -value


def parse_constraint(text: str, *, own: bool = False) -> Constraint:
    """Read a bound.

    Example:
        >>> str(parse_constraint("params <= 500k"))
        'params<=500000'

    Raises:
        NasError: the text does not follow the grammar, or the metric cannot be bounded.
    """
    match = _CONSTRAINT.fullmatch(text.strip())
    bound = math.nan
    if match is not None:
        try:
            bound = float(match[3]) * _SUFFIX[match[4]]
        except ValueError:
            match = None
    if match is None or not math.isfinite(bound):
        raise NasError(
            f"Cannot read the constraint {text!r}; write it as metric<=number or metric>=number."
        )
    metric = parse_metric(match[1], own=own)
    if metric.kind is not None and not metric.kind.searchable:
        why = "it only screens" if metric.name == SCREEN else f"it would spoil {metric} as a check"
        raise NasError(f"{text!r} cannot be a constraint: {why}.")
    return Constraint(metric, "<=" if match[2] == "<=" else ">=", bound)
