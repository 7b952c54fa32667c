"""How figures are written for people: few digits, percents, durations."""

from __future__ import annotations

import math
from collections.abc import Mapping

Figure = Mapping[str, float | None]
"""Value, low and high end of its spread, as a dictionary."""


_CLOSE = ("loss", "bits_per_byte")
"""Metrics whose candidates lie close together."""


def number(metric: str, value: float) -> str:
    """Write a figure of a metric in about three digits; an accuracy in percent, a loss in four.

    Example:
        >>> number("accuracy", 0.98765), number("params", 61234.0), number("latency_ms", 0.12345)
        ('98.8%', '61,234', '0.123')
    """
    if "accuracy" in metric:
        return f"{100 * value:.1f}%"
    if not math.isfinite(value):
        return str(value)
    if metric.removeprefix("test_").startswith(_CLOSE):
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def figure(metric: str, item: Figure | None) -> str:
    """Write a figure with its spread; nothing where there is none."""
    if item is None or item["value"] is None:
        return ""
    text = number(metric, item["value"])
    low, high = item["low"], item["high"]
    if low is None or high is None:
        return text
    return f"{text} ({number(metric, low)} to {number(metric, high)})"


def duration(seconds: float) -> str:
    """Write a duration in its two largest units.

    Example:
        >>> duration(3.2), duration(75), duration(7260), duration(200000)
        ('3 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for size, word, smaller, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {word} {whole % size // smaller} {small}"
    raise AssertionError("a minute or more")
