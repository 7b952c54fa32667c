"""A study's Pareto front as Plotly figures; draws what `front_data` says and decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from dashboards.figure_parts import (
    DENSE,
    RING,
    axis_title,
    base_layout,
    hover_text,
    lower_first,
    own_ticks,
    plain,
)
from dashboards.front_data import (
    FrontData,
    Metric,
    Point,
    Scale,
    pick_axes,
    scale_of,
    staircase,
)
from dashboards.theme import LIGHT, Palette

FRONT = "On the front"


class Panel(NamedTuple):
    """One pair of objectives and where in the figure it is drawn."""

    x: Metric
    y: Metric
    suffix: str
    across: tuple[float, float]
    up: tuple[float, float]

    @property
    def main(self) -> bool:
        """Whether it is the large one."""
        return not self.suffix


def front_figure(data: FrontData, palette: Palette = LIGHT) -> go.Figure:
    """Draw the front as a scatter with error bars; two small panels more for a third objective.

    Points of the front are large, in the accent colour or coloured by the third objective, and a
    staircase joins those that no other beats in the panel's two metrics. Dominated points are
    small and grey, and without bars where they are very many. A point's `customdata` is its key.
    Draws an empty frame for no points.
    """
    figure = go.Figure(layout=_layout(data, palette))
    for panel in _panels(data):
        _draw_panel(figure, data, panel, palette)
    if pick_axes(data.objectives).colour is not None and data.front:
        figure.add_trace(_legend_dot(palette))
    if not data.points:
        _say_empty(figure, palette)
    return figure


def _panels(data: FrontData) -> list[Panel]:
    x, y, third = pick_axes(data.objectives)
    if third is None or not data.points:
        return [Panel(x, y, "", (0.0, 1.0), (0.0, 1.0))]
    return [
        Panel(x, y, "", (0.0, 0.575), (0.0, 1.0)),
        Panel(third, y, "2", (0.745, 1.0), (0.58, 1.0)),
        Panel(third, x, "3", (0.745, 1.0), (0.0, 0.42)),
    ]


def _draw_panel(figure: go.Figure, data: FrontData, panel: Panel, palette: Palette) -> None:
    figure.add_trace(
        _points(data, data.dominated, panel, _dim_look(len(data.dominated), panel, palette))
    )
    figure.add_trace(_stairs(data, panel, palette))
    figure.add_trace(_points(data, data.front, panel, _front_look(data, panel, palette)))
    figure.add_trace(_ring(panel, palette))
    for side, metric in (("x", panel.x), ("y", panel.y)):
        scale = scale_of(data.points, metric)
        span = panel.across if side == "x" else panel.up
        axis = _axis(metric, scale, palette) | {"domain": span}
        axis["anchor"] = ("y" if side == "x" else "x") + panel.suffix
        if not panel.main:
            axis["title"]["font"]["size"] = 12
            axis["nticks"] = 5
        figure.update_layout({f"{side}axis{panel.suffix}": axis})


def _points(
    data: FrontData, points: Sequence[Point], panel: Panel, look: dict[str, Any]
) -> go.Scatter:
    bars = {
        f"error_{side}": _error_bars(points, metric, look["bar"])
        for side, metric in (("x", panel.x), ("y", panel.y))
    }
    return go.Scatter(
        x=[point.values[panel.x.name] for point in points],
        y=[point.values[panel.y.name] for point in points],
        customdata=[point.key for point in points],
        hovertext=[hover_text(point, data) for point in points],
        hoverinfo="text",
        mode="markers",
        name=look["name"],
        legendgroup=look["name"],
        showlegend=panel.main and look.get("legend", True),
        marker=look["marker"],
        **bars,
        **_refs(panel),
    )


def _error_bars(points: Sequence[Point], metric: Metric, color: str | None) -> dict[str, Any]:
    spreads = [point.spread(metric.name) for point in points]
    if color is None or not any(spreads):
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "arrayminus": [spread[0] if spread else 0.0 for spread in spreads],
        "array": [spread[1] if spread else 0.0 for spread in spreads],
        "color": color,
        "thickness": 1.1,
        "width": 0,
    }


def _dim_look(count: int, panel: Panel, palette: Palette) -> dict[str, Any]:
    marker: dict[str, Any] = {"size": 7 if panel.main else 5, "color": palette.dim}
    if count < DENSE:
        return {"name": "Dominated", "bar": palette.dim_bar, "marker": marker}
    marker |= {"size": 4 if panel.main else 3, "opacity": 0.6}
    return {"name": "Dominated", "bar": None, "marker": marker}


def _front_look(data: FrontData, panel: Panel, palette: Palette) -> dict[str, Any]:
    third = pick_axes(data.objectives).colour
    marker: dict[str, Any] = {
        "size": 13 if panel.main else 9,
        "color": palette.accent,
        "line": {"width": 1.2, "color": palette.surface},
    }
    if third is not None:
        scale = scale_of(data.front, third, margin=0.0)
        values = [scale.place(point.values[third.name]) for point in data.front]
        marker |= {"color": values, "coloraxis": "coloraxis"}
    return {"name": FRONT, "bar": palette.bar, "marker": marker, "legend": third is None}


def _legend_dot(palette: Palette) -> go.Scatter:
    """Stand for the front in the legend: plotly.js draws coloured points black there, and warns."""
    marker = {"size": 11, "color": palette.scale[len(palette.scale) // 2]}
    look = {"mode": "markers", "marker": marker, "hoverinfo": "skip"}
    return go.Scatter(x=[None], y=[None], name=FRONT, legendgroup=FRONT, legendrank=1, **look)


def _stairs(data: FrontData, panel: Panel, palette: Palette) -> go.Scatter:
    steps = staircase(data.front, panel.x, panel.y)
    return go.Scatter(
        x=[point.values[panel.x.name] for point in steps],
        y=[point.values[panel.y.name] for point in steps],
        mode="lines",
        line={
            "shape": "hv" if panel.x.direction == "min" else "vh",
            "width": 2.5 if panel.main else 1.8,
            "color": palette.stairs,
        },
        hoverinfo="skip",
        name="Best of these two alone",
        legendgroup="stairs",
        showlegend=panel.main and len(data.objectives) > 2 and len(steps) > 1,
        **_refs(panel),
    )


def _ring(panel: Panel, palette: Palette) -> go.Scatter:
    size = 22 if panel.main else 16
    return go.Scatter(
        x=[],
        y=[],
        mode="markers",
        marker={"symbol": "circle-open", "size": size, "color": palette.ring, "line": {"width": 3}},
        hoverinfo="skip",
        showlegend=False,
        meta=RING,
        **_refs(panel),
    )


def _refs(panel: Panel) -> dict[str, str]:
    return {"xaxis": f"x{panel.suffix}", "yaxis": f"y{panel.suffix}"}


def _axis(metric: Metric, scale: Scale, palette: Palette) -> dict[str, Any]:
    return {
        "title": {
            "text": axis_title(metric),
            "font": {"size": 14},
            "standoff": 8,
        },
        "type": "log" if scale.log else "linear",
        "range": [scale.low, scale.high],
        "tickformat": _tick_format(metric, scale),
        "tickfont": {"size": 12, "color": palette.muted},
        "gridcolor": palette.grid,
        "linecolor": palette.muted,
        "showline": True,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": palette.muted,
    }


def _tick_format(metric: Metric, scale: Scale) -> str:
    if metric.unit == "%":
        return "~%"
    top = 10**scale.high if scale.log else scale.high
    return "~s" if top >= 10_000 else "~g"


def _layout(data: FrontData, palette: Palette) -> dict[str, Any]:
    x, y, third = pick_axes(data.objectives)
    title = f"{plain(y.label)} against {plain(lower_first(x.label))}"
    layout = base_layout(title, _note(data), palette)
    if third is not None:
        layout["coloraxis"] = _colour_axis(data, third, palette)
    return layout | {"height": 610, "margin": {"l": 76, "r": 12, "t": 112, "b": 66}}


def _note(data: FrontData) -> str:
    counted = f"{len(data.front)} of {len(data.points)} trained candidates on the front"
    spreads = [plain(f"{lower_first(m.label)} {m.spread}") for m in data.objectives if m.spread]
    whose = "bars" if len(data.dominated) < DENSE else "bars, of the front only"
    bars = f"; {whose}: {', '.join(spreads)}" if spreads else ""
    return f"{plain(data.study)}: {counted}; measured on {plain(data.device, 64)}{bars}"


def _colour_axis(data: FrontData, metric: Metric, palette: Palette) -> dict[str, Any]:
    scale = scale_of(data.front, metric, margin=0.0)
    last = len(palette.scale) - 1
    return {
        "colorscale": [[i / last, color] for i, color in enumerate(palette.scale)],
        "cmin": scale.low,
        "cmax": scale.high,
        "colorbar": {
            "title": {"text": f"{plain(metric.title)}, {metric.wish}", "side": "right"},
            "x": 0.583,
            "xanchor": "left",
            "thickness": 10,
            "len": 1.03,
            "outlinewidth": 0,
            "tickfont": {"size": 11, "color": palette.muted},
            **own_ticks(metric, scale),
        },
    }


def _say_empty(figure: go.Figure, palette: Palette) -> None:
    figure.add_annotation(
        text="No candidate has been trained yet.",
        x=0.5,
        y=0.5,
        xref="x domain",
        yref="y domain",
        showarrow=False,
        font={"size": 16, "color": palette.muted},
    )
