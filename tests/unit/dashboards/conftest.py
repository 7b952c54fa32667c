"""A made-up study of handwritten digits: 36 trained candidates, three objectives."""

from __future__ import annotations

import random
from datetime import date
from hashlib import blake2b
from math import sqrt

import pytest

from dashboards import FrontData, Metric, Point

ACCURACY = Metric("accuracy", "Validation accuracy", "max", "%", "95 % interval")
LATENCY = Metric("latency_ms", "Latency", "min", "ms", "p10 to p90")
PARAMS = Metric("params", "Parameters", "min")
MACS = Metric("macs", "MACs", "min")
CHECKED = 359  # images that the accuracy is counted on


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    half /= 1 + z * z / count
    return centre - half, centre + half


@pytest.fixture(name="study")
def study_maker():
    return study


def study(objectives: tuple[Metric, ...] = (ACCURACY, LATENCY, PARAMS), count: int = 36, **changes):
    rng = random.Random(3)
    names = [metric.name for metric in objectives]
    points = mark([candidate(rng, number) for number in range(count)], objectives)
    fields = {
        "study": "digits-small",
        "device": "cpu: AMD EPYC 9654, 2 threads, batch 1",
        "objectives": objectives,
        "points": tuple(points),
        "counts": {"trained": count, "failed": 2, "repeated": 4},
        "created": date(2026, 11, 23),
        "others": tuple(m for m in (LATENCY, PARAMS, MACS) if m.name not in names),
    }
    return FrontData(**(fields | changes))


def candidate(rng: random.Random, number: int) -> Point:
    size = rng.random()
    params = round(3000 * (200_000 / 3000) ** size)
    latency = 0.2 + 1.05 * (0.45 * size + 0.55 * rng.random()) + 0.1 * rng.random()
    skill = 0.945 + 0.03 * size + 0.02 * (latency - 0.2) + rng.gauss(0, 0.007)
    right = min(356, round(CHECKED * min(skill, 0.992)))
    low, high = wilson(right / CHECKED, CHECKED)
    width, depth = 4 + round(28 * size), rng.randint(1, 4)
    blocks = "; ".join(
        f"conv {width * (1 + i // 2)} k{rng.choice((3, 5))} {'s2 ' if i == 1 else ''}bn relu"
        for i in range(depth)
    )
    return Point(
        key=blake2b(str(number).encode(), digest_size=16).hexdigest(),
        number=number,
        text=f"input 1x8x8; {blocks}; gap; flatten; linear {width * 3} relu; linear 10",
        values={
            "accuracy": right / CHECKED,
            "latency_ms": latency,
            "params": params,
            "macs": params * rng.randint(9, 30),
        },
        low={"accuracy": low, "latency_ms": latency * (1 - rng.uniform(0.01, 0.04))},
        high={"accuracy": high, "latency_ms": latency * (1 + rng.uniform(0.02, 0.12))},
        test_accuracy=round(360 * (right / CHECKED - rng.uniform(0, 0.012))) / 360,
    )


def mark(points: list[Point], objectives: tuple[Metric, ...]) -> list[Point]:
    def cost(point: Point) -> list[float]:
        return [point.values[m.name] * (-1 if m.direction == "max" else 1) for m in objectives]

    def beaten(point: Point) -> bool:
        mine = cost(point)
        return any(
            all(a <= b for a, b in zip(cost(other), mine, strict=True)) and cost(other) != mine
            for other in points
        )

    return [
        Point(p.key, p.number, p.text, p.values, p.low, p.high, not beaten(p), p.test_accuracy)
        for p in points
    ]
