"""All objectives at once, one line per candidate.

Drawn with plain lines and not Plotly's parallel coordinates: those need WebGL and code compiled
in the page, have no hover and cannot be clicked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from dashboards.figure_parts import (
    DENSE,
    RING,
    axis_title,
    base_layout,
    hover_text,
    plain,
    tick_label,
)
from dashboards.front_data import FrontData, Metric, Point, Scale, scale_of
from dashboards.theme import LIGHT, Palette

MARGIN = 0.04


def parallel_figure(data: FrontData, palette: Palette = LIGHT) -> go.Figure:
    """Draw one line per candidate across all objectives, better always up, the front on top.

    Each corner of a line has the candidate's key as `customdata`. Axes are logarithmic where
    the values span more than a decade; spreads are not drawn.
    """
    scales = [_scale(data, metric) for metric in data.objectives]
    figure = go.Figure(layout=_layout(data, palette))
    dense = len(data.dominated) >= DENSE
    dim = {"color": palette.dim, "width": 0.5 if dense else 1}
    front = {"color": palette.accent, "width": 2}
    rest = {"name": "Dominated", "line": dim, "opacity": 0.35 if dense else 1.0}
    figure.add_trace(_lines(data, data.dominated, scales, rest))
    best = {"name": "On the front", "line": front, "legendrank": 1}
    figure.add_trace(_lines(data, data.front, scales, best))
    ring = {"name": "Picked", "line": {"color": palette.ring, "width": 4}, "meta": RING}
    figure.add_trace(_lines(data, (), scales, ring).update(showlegend=False, hoverinfo="skip"))
    for place, (metric, scale) in enumerate(zip(data.objectives, scales, strict=True)):
        figure.add_shape(
            type="line", x0=place, x1=place, y0=0, y1=1, line={"color": palette.muted, "width": 1}
        )
        _label_axis(figure, place, metric, scale, palette)
    return figure


def height(metric: Metric, scale: Scale, value: float) -> float:
    """Return where a value sits on its axis: 0 at the foot, 1 at the top, better higher."""
    share = (scale.place(value) - scale.low) / (scale.high - scale.low)
    return share if metric.direction == "max" else 1.0 - share


def _scale(data: FrontData, metric: Metric) -> Scale:
    bare = [Point(p.key, p.number, p.text, p.values) for p in data.points]
    return scale_of(bare, metric, margin=MARGIN)


def _lines(
    data: FrontData, points: Sequence[Point], scales: Sequence[Scale], look: dict[str, Any]
) -> go.Scatter:
    """Join all lines into one trace; a None between two lifts the pen."""
    across: list[float | None] = []
    up: list[float | None] = []
    keys: list[str | None] = []
    texts: list[str | None] = []
    for point in points:
        text = hover_text(point, data)
        for place, (metric, scale) in enumerate(zip(data.objectives, scales, strict=True)):
            across.append(place)
            up.append(height(metric, scale, point.values[metric.name]))
        across.append(None)
        up.append(None)
        keys += [point.key] * len(scales) + [None]
        texts += [text] * len(scales) + [None]
    return go.Scatter(
        x=across,
        y=up,
        customdata=keys,
        hovertext=texts,
        hoverinfo="text",
        mode="lines+markers",
        marker={"size": 6 if len(points) < DENSE else 3},
        xaxis="x",
        yaxis="y",
        **look,
    )


def _label_axis(
    figure: go.Figure, place: int, metric: Metric, scale: Scale, palette: Palette
) -> None:
    for tick in scale.ticks:
        figure.add_annotation(
            x=place,
            y=height(metric, scale, tick),
            text=tick_label(metric, tick),
            showarrow=False,
            xanchor="right",
            xshift=-9,
            font={"size": 12, "color": palette.muted},
            bgcolor=palette.surface,
            borderpad=1,
        )


def _layout(data: FrontData, palette: Palette) -> dict[str, Any]:
    last = len(data.objectives) - 1
    note = f"{plain(data.study)}, measured on {plain(data.device, 64)}; better is up on every axis"
    return base_layout("All objectives at once", note, palette) | {
        "height": 430,
        "margin": {"l": 8, "r": 8, "t": 100, "b": 62},
        "xaxis": {
            "range": [-0.3, last + 0.3],
            "tickvals": list(range(last + 1)),
            "ticktext": [axis_title(metric) for metric in data.objectives],
            "tickfont": {"size": 14},
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        "yaxis": {"range": [-0.02, 1.02], "visible": False, "fixedrange": True},
    }
