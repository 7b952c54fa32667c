from __future__ import annotations

import subprocess
import sys
from datetime import date

import pytest

from dashboards.front_data import (
    FrontData,
    FrontDataError,
    Metric,
    Point,
    best_first,
    linear_ticks,
    log_ticks,
    pick_axes,
    scale_of,
    staircase,
)

TOP = Metric("accuracy", "Accuracy", "max", "%")
TIME = Metric("latency_ms", "Latency", "min", "ms", "p10 to p90")
SIZE = Metric("params", "Parameters", "min")


def point(number: int, accuracy: float, latency: float = 1.0, **more) -> Point:
    return Point(f"key{number}", number, "x", {"accuracy": accuracy, "latency_ms": latency}, **more)


def front(points, objectives=(TOP, TIME), **changes) -> FrontData:
    fields = {"study": "s", "device": "cpu: x", "counts": {}, "created": date(2026, 1, 2)}
    return FrontData(objectives=objectives, points=tuple(points), **(fields | changes))


def numbers(points) -> list[int]:
    return [p.number for p in points]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.97772, "%", "97.8 %"),
        (0.59, "ms", "0.590 ms"),
        (1.0, "ms", "1 ms"),
        (123.4, "ms", "123 ms"),
        (189305, "", "189,305"),
        (0, "", "0"),
        (1234.5, "mJ", "1,234 mJ"),
    ],
)
def test_a_value_is_shown_with_its_unit(value, unit, shown):
    assert Metric("m", "M", "min", unit).shown(value) == shown


def test_ends_name_both_sides_and_are_empty_where_exact():
    sided = point(1, 0.9, 2.0, low={"accuracy": 0.85, "latency_ms": None}, high={"accuracy": 0.95})
    assert TOP.ends(sided) == "85.0 to 95.0 %"
    assert TIME.ends(sided) == ""
    assert TIME.ends(point(1, 0.9, high={"latency_ms": 2.5})) == "? to 2.50"


def test_spread_is_the_distance_to_each_end_and_never_negative():
    p = point(1, 1.0, 2.0, low={"accuracy": 0.98, "latency_ms": 1.5}, high={"accuracy": 1 - 1e-12})
    assert p.spread("accuracy") == (pytest.approx(0.02), 0.0)
    assert p.spread("latency_ms") == (0.5, 0.0)
    assert point(1, 1.0).spread("accuracy") is None


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        ((TOP, TIME), (TIME, TOP, None)),
        ((TIME, TOP), (TIME, TOP, None)),
        ((TOP, TIME, SIZE), (TIME, TOP, SIZE)),
        ((SIZE, TIME), (SIZE, TIME, None)),
        ((SIZE, TIME, TOP), (SIZE, TOP, TIME)),
        ((TOP, Metric("auc", "AUC", "max")), (TOP, Metric("auc", "AUC", "max"), None)),
    ],
)
def test_costs_go_on_x_and_gains_on_y(objectives, expected):
    assert pick_axes(objectives) == expected


def test_best_first_follows_the_direction_and_breaks_ties_by_trial():
    points = [point(3, 0.9, 2), point(1, 0.9, 3), point(2, 0.95, 1)]
    assert numbers(best_first(points, TOP)) == [2, 1, 3]
    assert numbers(best_first(points, TIME)) == [2, 3, 1]


def test_front_and_dominated_split_by_the_given_flag():
    data = front([point(1, 0.8), point(2, 0.9, on_front=True), point(3, 0.85)])
    assert (numbers(data.front), numbers(data.dominated)) == ([2], [3, 1])


def test_staircase_keeps_what_no_other_beats_in_two_metrics():
    points = [point(1, 0.90, 1), point(2, 0.95, 2), point(3, 0.93, 3), point(4, 0.99, 4)]
    twin = point(5, 0.95, 2)
    assert numbers(staircase([*points, twin], TIME, TOP)) == [1, 2, 4]
    assert numbers(staircase(points, TOP, TIME)) == [1, 2, 4]
    assert staircase([], TIME, TOP) == ()
    gain = Metric("latency_ms", "Speed", "max")
    assert numbers(staircase(points, gain, TOP)) == [4]
    assert numbers(staircase([point(1, 0.9, 1), point(2, 0.8, 2)], gain, TOP)) == [1, 2]
    cost = Metric("accuracy", "Error", "min")
    assert numbers(staircase(points, TIME, cost)) == [1]


def test_scale_is_logarithmic_only_beyond_a_decade_of_positive_values():
    assert not scale_of([point(1, 0, 1.0), point(2, 0, 10.0)], TIME).log
    assert scale_of([point(1, 0, 1.0), point(2, 0, 10.1)], TIME).log
    assert not scale_of([point(1, 0, 0.0), point(2, 0, 10.0)], TIME).log
    below_zero = point(1, 0, 1.0, low={"latency_ms": 0.0})
    assert not scale_of([below_zero, point(2, 0, 50.0)], TIME).log


def test_scale_has_room_for_spreads():
    ends = [point(1, 0, 2.0, low={"latency_ms": 1.0}), point(2, 0, 3.0, high={"latency_ms": 5.0})]
    scale = scale_of(ends, TIME, margin=0.25)
    assert (scale.low, scale.high) == (0.0, 6.0)
    wide = scale_of([point(1, 0, 1.0), point(2, 0, 100.0)], TIME, margin=0.5)
    assert (wide.low, wide.high, wide.place(10.0)) == (-1.0, 3.0, 1.0)


def test_scale_of_one_value_and_of_none():
    one = scale_of([point(1, 0, 50.0)], TIME)
    assert (one.low, one.high) == (45.0, 55.0)
    nought = scale_of([point(1, 0, 0.0)], TIME)
    assert (nought.low, nought.high) == (-1.0, 1.0)
    empty = scale_of([], TIME)
    assert (empty.log, empty.low, empty.high) == (False, 0.0, 1.0)


def test_ticks_are_round_and_within():
    assert log_ticks(0.2, 5) == [0.2, 0.5, 1.0, 2.0, 5.0]
    assert log_ticks(1, 1e6) == [10.0**n for n in range(7)]
    assert linear_ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert linear_ticks(-3, 4) == [-2, 0, 2, 4]
    assert linear_ticks(7300, 8900) == [7500, 8000, 8500]


@pytest.mark.parametrize("high", [1.0001, 1.5, 2.0, 7.0, 9.99, 3000.0])
def test_linear_ticks_are_three_to_eight(high):
    ticks = linear_ticks(1.0, high)
    assert 3 <= len(ticks) <= 8
    assert all(1.0 <= tick <= high for tick in ticks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": (TOP,)}, "at least two objectives"),
        ({"device": " "}, "device"),
        ({"objectives": (TOP, TOP)}, "metric may appear once"),
        ({"others": (TIME,)}, "metric may appear once"),
        ({"points": [point(1, 0.9), point(1, 0.8)]}, "point key may appear once"),
        ({"points": [point(1, float("nan"))]}, "accuracy = nan"),
        ({"points": [point(1, 0.9, float("inf"))]}, "latency_ms = inf"),
        ({"points": [point(1, 0.9, low={"accuracy": float("-inf")})]}, "not finite"),
        ({"points": [point(1, 0.9, test_accuracy=float("nan"))]}, "test_accuracy"),
        ({"objectives": (TOP, SIZE), "points": [point(7, 0.9)]}, r"Trial 7 .*\['params'\]"),
    ],
)
def test_unfit_values_are_refused(changes, message):
    with pytest.raises(FrontDataError, match=message):
        front(**({"points": []} | changes))


def test_importing_the_package_loads_no_plotly():
    code = "import sys, dashboards; print(sorted(m for m in sys.modules if m == 'plotly'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
