"""What a picture of a study's Pareto front is drawn from; plain values, no drawing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from math import ceil, floor, isfinite, log10
from typing import Literal, NamedTuple

from kernels.errors import NasError

Direction = Literal["min", "max"]

DECADE = 10.0
"""A metric whose largest value is more than this times its smallest is drawn on a log axis."""

MARGIN = 0.06
"""Share of an axis that stays free on either side of the data."""


class FrontDataError(NasError):
    """The values cannot be a picture of a front: not finite, missing, or named twice."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure about a candidate, and how people read it.

    Attributes:
        name: its name in the metric grammar, such as ``latency_ms``.
        label: in words without the unit, such as ``Latency``.
        direction: whether less or more of it is better.
        unit: such as ``ms``. A value in ``%`` is kept as a fraction and shown times a hundred.
        spread: what the low and high ends of its values are, such as ``p10 to p90``.

    Example:
        >>> latency = Metric("latency_ms", "Latency", "min", unit="ms")
        >>> latency.title, latency.wish, latency.shown(0.5213)
        ('Latency (ms)', 'lower is better', '0.521 ms')
    """

    name: str
    label: str
    direction: Direction
    unit: str = ""
    spread: str = ""

    @property
    def title(self) -> str:
        """The label with the unit in brackets, unless each number carries it, as with ``%``."""
        return self.label if self.unit in ("", "%") else f"{self.label} ({self.unit})"

    @property
    def wish(self) -> str:
        """The direction in words."""
        return "higher is better" if self.direction == "max" else "lower is better"

    def number(self, value: float) -> str:
        """Return a value as it stands under the title: three figures, all of a large one."""
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        if abs(value) >= 1000 or value == int(value):
            return f"{value:,.0f}"
        return f"{value:#.3g}".rstrip(".")

    def shown(self, value: float) -> str:
        """Return a value with its unit."""
        return self.number(value) + (f" {self.unit}" if self.unit not in ("", "%") else "")

    def ends(self, point: Point) -> str:
        """Return a point's spread as ``low to high`` without the unit; empty where it is exact."""
        low, high = point.low.get(self.name), point.high.get(self.name)
        if low is None and high is None:
            return ""
        words = ["?" if end is None else self.number(end) for end in (low, high)]
        return f"{words[0].removesuffix(' %')} to {words[1]}"


@dataclass(frozen=True, slots=True)
class Point:
    """One trained candidate.

    Attributes:
        key: names the architecture; unique in a picture.
        number: the trial that proposed it.
        text: the architecture's compact one-line form.
        values: by metric name; finite.
        low: lower ends of their spreads; absent or None where a value is exact.
        high: upper ends.
        on_front: whether no other candidate dominates it.
        test_accuracy: a fraction, where it was tested on data that the search never saw.
    """

    key: str
    number: int
    text: str
    values: Mapping[str, float]
    low: Mapping[str, float | None] = field(default_factory=dict)
    high: Mapping[str, float | None] = field(default_factory=dict)
    on_front: bool = False
    test_accuracy: float | None = None

    def spread(self, metric: str) -> tuple[float, float] | None:
        """Return how far a metric's spread reaches below and above its value.

        None where it is exact. Never negative: a bound that rounding put on the wrong side of
        the value, as of an interval that ends at 1, counts as no distance.
        """
        low, high, value = self.low.get(metric), self.high.get(metric), self.values[metric]
        if low is None and high is None:
            return None
        below = 0.0 if low is None else max(0.0, value - low)
        above = 0.0 if high is None else max(0.0, high - value)
        return below, above


@dataclass(frozen=True, slots=True)
class FrontData:
    """A study's trained candidates, as a picture of its front needs them.

    Attributes:
        study: its name.
        device: where the costs were measured, such as ``cpu: AMD EPYC 9654``; never empty.
        objectives: at least two, in the study's order.
        points: every trained candidate, each with a value of each objective.
        counts: numbers of trials by state, in the order to show them.
        created: the day of the picture.
        others: further metrics to list; a point may lack them.

    Raises:
        FrontDataError: on construction, where the above does not hold.
    """

    study: str
    device: str
    objectives: tuple[Metric, ...]
    points: tuple[Point, ...]
    counts: Mapping[str, int]
    created: date
    others: tuple[Metric, ...] = ()

    def __post_init__(self) -> None:
        if len(self.objectives) < 2:
            raise FrontDataError(
                f"A front needs at least two objectives. Got {[m.name for m in self.objectives]}."
            )
        if not self.device.strip():
            raise FrontDataError("Say where the costs were measured: `device` is empty.")
        _refuse_twice("metric", [metric.name for metric in self.metrics])
        _refuse_twice("point key", [point.key for point in self.points])
        for point in self.points:
            _check(point, self.objectives)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics, objectives first."""
        return self.objectives + self.others

    @property
    def front(self) -> tuple[Point, ...]:
        """The points on the front, best of the first objective first; ties by trial."""
        return best_first([p for p in self.points if p.on_front], self.objectives[0])

    @property
    def dominated(self) -> tuple[Point, ...]:
        """The points off the front, best of the first objective first; ties by trial."""
        return best_first([p for p in self.points if not p.on_front], self.objectives[0])


class Axes(NamedTuple):
    """Which objective is drawn where; ``colour`` is None when there are two."""

    x: Metric
    y: Metric
    colour: Metric | None


def pick_axes(objectives: Sequence[Metric]) -> Axes:
    """Put the first cost on x and the first gain on y, as people read a front.

    Where all are costs or all are gains, the first is x. The first that is left becomes colour;
    a fourth and further ones are seen in parallel coordinates only.

    Example:
        >>> top = Metric("accuracy", "Accuracy", "max")
        >>> [m.name for m in pick_axes([top, Metric("params", "Parameters", "min")])[:2]]
        ['params', 'accuracy']
    """
    x = next((m for m in objectives if m.direction == "min"), objectives[0])
    y = next((m for m in objectives if m.direction == "max" and m is not x), None)
    y = y or next(m for m in objectives if m is not x)
    rest = [m for m in objectives if m is not x and m is not y]
    return Axes(x, y, rest[0] if rest else None)


def best_first(points: Sequence[Point], metric: Metric) -> tuple[Point, ...]:
    """Sort by a metric that all points have, the best first; ties by trial number."""
    return tuple(sorted(points, key=lambda p: (_cost(p, metric), p.number)))


def staircase(points: Sequence[Point], x: Metric, y: Metric) -> tuple[Point, ...]:
    """Return the points that no other beats in two metrics alone, by rising x.

    With more than two objectives these are fewer than the front, for the others are not looked
    at. Of points equal in both, the earliest trial stays.
    """
    kept: list[Point] = []
    ordered = sorted(points, key=lambda p: (_cost(p, x), _cost(p, y), p.number))
    for point in ordered:
        if not kept or _cost(point, y) < _cost(kept[-1], y):
            kept.append(point)
    return tuple(kept if x.direction == "min" else reversed(kept))


@dataclass(frozen=True, slots=True)
class Scale:
    """How a metric's values lie along an axis.

    Attributes:
        log: whether the axis is logarithmic.
        low: where it begins; log10 of that on a logarithmic axis.
        high: where it ends, likewise.
    """

    log: bool
    low: float
    high: float

    def place(self, value: float) -> float:
        """Return a value in the axis's own coordinate."""
        return log10(value) if self.log else value

    @property
    def ticks(self) -> list[float]:
        """Round values on the axis to label, about five, as they are and not as logarithms."""
        if self.log:
            return log_ticks(10**self.low, 10**self.high)
        return linear_ticks(self.low, self.high)


def scale_of(points: Sequence[Point], metric: Metric, *, margin: float = MARGIN) -> Scale:
    """Choose an axis for a metric: logarithmic beyond a decade, with room for the spreads.

    No point gives 0 to 1; a single value without spread sits in the middle.
    """
    values = [p.values[metric.name] for p in points]
    if not values:
        return Scale(log=False, low=0.0, high=1.0)
    ends = list(values)
    for point in points:
        below, above = point.spread(metric.name) or (0.0, 0.0)
        value = point.values[metric.name]
        ends += [value - below, value + above]
    log = min(ends) > 0 and max(values) > DECADE * min(values)
    low, high = (log10(min(ends)), log10(max(ends))) if log else (min(ends), max(ends))
    if low == high:
        room = abs(low) / 10 or 1.0
        return Scale(log=log, low=low - room, high=high + room)
    room = margin * (high - low)
    return Scale(log=log, low=low - room, high=high + room)


def linear_ticks(low: float, high: float) -> list[float]:
    """Return three to eight multiples of 1, 2 or 5 times a power of ten from low to high.

    Example:
        >>> linear_ticks(0.93, 0.99)
        [0.94, 0.96, 0.98]
    """
    third = (high - low) / 3 * (1 + 1e-9)
    power = floor(log10(third))
    step = next((d * 10.0**power for d in (5, 2) if d * 10.0**power <= third), 10.0**power)
    first, last = ceil(low / step), floor(high / step)
    return [round(count * step, max(0, -power)) for count in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return the numbers 1, 2 and 5 times a power of ten from low to high, both above zero.

    Beyond three decades only the powers of ten.

    Example:
        >>> log_ticks(3000, 60000)
        [5000.0, 10000.0, 20000.0, 50000.0]
    """
    digits = (1, 2, 5) if log10(high) - log10(low) <= 3 else (1,)
    decades = range(int(log10(low)) - 1, int(log10(high)) + 2)
    ticks = [digit * 10.0**power for power in decades for digit in digits]
    return [tick for tick in ticks if low <= tick <= high]


def _cost(point: Point, metric: Metric) -> float:
    value = point.values[metric.name]
    return -value if metric.direction == "max" else value


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise FrontDataError(f"Each {what} may appear once. More than once: {twice}.")


def _check(point: Point, objectives: Sequence[Metric]) -> None:
    missing = [m.name for m in objectives if m.name not in point.values]
    if missing:
        raise FrontDataError(f"Trial {point.number} has no value of {missing}.")
    for mapping in (point.values, point.low, point.high):
        for name, value in mapping.items():
            if value is not None and not isfinite(value):
                raise FrontDataError(f"Trial {point.number} has {name} = {value}, not finite.")
    if point.test_accuracy is not None and not isfinite(point.test_accuracy):
        raise FrontDataError(f"Trial {point.number} has {point.test_accuracy=}, not finite.")
