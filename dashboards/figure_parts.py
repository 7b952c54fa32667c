"""What all figures share: frame, type, hover text and tick labels."""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from dashboards.front_data import FrontData, Metric, Point, Scale
from dashboards.theme import FONT, Palette

KEY_DIGITS = 8
HOVER_COLUMNS = 64
HOVER_LINES = 6

RING = "ring"
"""The ``meta`` of an empty trace, to be filled with what the reader picked."""


DENSE = 120
"""From this many dominated points on, their spreads would only cover the front: left out."""


def plain(text: str, limit: int = 48) -> str:
    """Return study text as Plotly shows it literally, cut to a length.

    Plotly reads a few tags and entities, but not ``&quot;``, so quotes stay as they are.
    """
    return escape(text if len(text) <= limit else text[: limit - 1] + "\u2026", quote=False)


def base_layout(title: str, note: str, palette: Palette) -> dict[str, Any]:
    """Return title, subtitle, type and colours of a figure; both texts are ready for Plotly."""
    return {
        "template": go.layout.Template(),
        "title": {
            "text": f"<b>{title}</b>",
            "font": {"size": 19},
            "subtitle": {"text": note, "font": {"size": 13, "color": palette.muted}},
            "x": 0.0,
            "xref": "container",
            "xanchor": "left",
            "y": 1.0,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 14},
        },
        "font": {"family": FONT, "size": 13, "color": palette.ink},
        "paper_bgcolor": palette.surface,
        "plot_bgcolor": palette.surface,
        "hovermode": "closest",
        "hoverlabel": {
            "align": "left",
            "bgcolor": palette.surface,
            "bordercolor": palette.muted,
            "font": {"family": FONT, "size": 13, "color": palette.ink},
        },
        "legend": {
            "orientation": "h",
            "x": 0.0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12},
        },
    }


def hover_text(point: Point, data: FrontData) -> str:
    """Return what is shown at a point: all it knows, escaped, in Plotly's few HTML tags."""
    standing = "on the front" if point.on_front else "dominated"
    lines = [f"<b>{plain(point.key[:KEY_DIGITS])}</b>  trial {point.number}, {standing}"]
    lines += [_hover_line(m, point) for m in data.metrics if m.name in point.values]
    if point.test_accuracy is not None:
        lines.append(f"Test accuracy: <b>{100 * point.test_accuracy:.1f} %</b>")
    words = wrap(point.text, HOVER_COLUMNS, max_lines=HOVER_LINES, placeholder=" ...")
    return "<br>".join([*lines, *(f"<i>{plain(line, 2 * HOVER_COLUMNS)}</i>" for line in words)])


def lower_first(words: str) -> str:
    """Return a label for the middle of a sentence; one that begins with capitals stays."""
    return words if words[:2].isupper() else words[:1].lower() + words[1:]


def tick_label(metric: Metric, value: float) -> str:
    """Return a short label: ``97.5%``, ``20k``, ``0.2``."""
    if metric.unit == "%":
        return f"{100 * value:.6g}%"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def axis_title(metric: Metric) -> str:
    """Return the label with unit and, below it, the direction in words; escaped."""
    return f"{plain(metric.title)}<br><i>{metric.wish}</i>"


def own_ticks(metric: Metric, scale: Scale) -> dict[str, Any]:
    """Return ticks for what Plotly takes to be linear, a colour bar, where the scale may be log."""
    return {
        "tickvals": [scale.place(tick) for tick in scale.ticks],
        "ticktext": [tick_label(metric, tick) for tick in scale.ticks],
    }


def _hover_line(metric: Metric, point: Point) -> str:
    value, ends = metric.shown(point.values[metric.name]), metric.ends(point)
    tail = f"  ({ends}{', ' + metric.spread if metric.spread else ''})" if ends else ""
    return f"{plain(metric.label)}: <b>{plain(value)}</b>{plain(tail)}"
