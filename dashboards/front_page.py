"""One self-contained page of a study's front: figures, and a table that needs no script."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from dashboards.front_data import FrontData, Metric, Point
from dashboards.theme import DARK, FONT, LIGHT

CONFIG = {
    "displaylogo": False,
    "responsive": True,
    # NOTE: Plotly 7 offers to upload the chart to its cloud unless it is told not to, thrice here.
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
    "toImageButtonOptions": {"format": "png", "scale": 2, "filename": "front"},
}
"""Settings of plotly.js in the page."""


def write_front_page(data: FrontData, path: str | os.PathLike[str]) -> Path:
    """Write the page and return where it is.

    The file holds all it needs, plotly.js included (about 5 MB), and opens without a network.
    A reader sees the old page or the new one, never half: it is written beside and moved.

    Args:
        data: what to show; no points give an empty frame and table.
        path: the file; its folder exists.

    Raises:
        OSError: the file cannot be written; what was there stays.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        draft.write_text(front_html(data), encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def front_html(data: FrontData) -> str:
    """Return the page as text; see :func:`write_front_page`."""
    from plotly.offline import get_plotlyjs

    figures = _figures(data)
    hover = _hover(data)
    return Template(_static("front.html")).substitute(
        title=escape(f"{data.study}: Pareto front"),
        heading=f"{escape(data.study)}: Pareto front",
        summary=_summary(data),
        hint="Click a point to find its row; click a key in the table to ring its point.",
        figures="\n".join(_card(name, data) for name in figures),
        table=_table(data),
        footer=f"Drawn on {data.created.isoformat()}. This page asks nothing of any other machine.",
        font=FONT,
        light=LIGHT.css(),
        dark=DARK.css(),
        css=_static("front.css"),
        json=_json_in_html(_payload(figures, hover)),
        plotly=_script_in_html(get_plotlyjs()),
        script=_script_in_html(_static("front.js")),
    )


def _figures(data: FrontData) -> dict[str, str]:
    # Here and not above: `import dashboards` must not load plotly.
    from dashboards.front_figure import front_figure
    from dashboards.parallel_figure import parallel_figure

    drawn = {"front": front_figure(data)}
    if len(data.objectives) > 2 and len(data.points) > 1:
        drawn["parallel"] = parallel_figure(data)
    return {name: json.dumps(_bare(figure), allow_nan=False) for name, figure in drawn.items()}


def _bare(figure: Any) -> dict[str, Any]:
    """Return a figure without hover texts: the page has each of them once, by key."""
    content: dict[str, Any] = figure.to_plotly_json()
    for trace in content["data"]:
        if trace.get("customdata") is not None:
            trace.pop("hovertext", None)
    return content


def _hover(data: FrontData) -> dict[str, str]:
    from dashboards.figure_parts import hover_text

    return {point.key: hover_text(point, data) for point in data.points}


def _payload(figures: dict[str, str], hover: dict[str, str]) -> str:
    from dashboards.figure_parts import KEY_DIGITS, RING

    return json.dumps(
        {
            "figures": figures,
            "hover": hover,
            "dark": LIGHT.swaps(DARK),
            "config": CONFIG,
            "ring": RING,
            "digits": KEY_DIGITS,
        }
    )


def _static(name: str) -> str:
    return (files("dashboards") / "static" / name).read_text(encoding="utf-8")


def _json_in_html(text: str) -> str:
    """Keep study text from ending the script element: JSON may spell ``<`` as an escape."""
    return text.replace("<", "\\u003c")


def _script_in_html(text: str) -> str:
    return text.replace("</script", "<\\/script")


def _summary(data: FrontData) -> str:
    counts = [f"<b>{count}</b> {escape(state)}" for state, count in data.counts.items()]
    front = f"<b>{len(data.front)}</b> on the front"
    return ", ".join([*counts, front]) + f". Measured on <b>{escape(data.device)}</b>."


def _card(name: str, data: FrontData) -> str:
    objectives = ", ".join(metric.label for metric in data.objectives)
    label = escape(f"Figure of {objectives}; the table below gives the same front in numbers.")
    return (
        f'<section class="card scripted"><div class="figure" data-figure="{name}" '
        f'role="group" aria-label="{label}"></div></section>'
    )


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    note: str
    metric: Metric | None = None
    kind: str = "number"


def _columns(data: FrontData) -> list[_Column]:
    measured = [
        _Column(m.title, m.spread, metric=m)
        for m in data.metrics
        if m in data.objectives or any(m.name in p.values for p in data.front)
    ]
    if any(point.test_accuracy is not None for point in data.front):
        measured.insert(1, _Column("Test accuracy", "not used in search", kind="test"))
    return [
        _Column("Key", "", kind="key"),
        _Column("Trial", ""),
        *measured,
        _Column("Architecture", "", kind="text"),
    ]


def _table(data: FrontData) -> str:
    columns = _columns(data)
    heads = "".join(_head(column) for column in columns)
    rows = "\n".join(_row(point, columns) for point in data.front)
    note = "A heading sorts by its column." if data.front else "No candidate is trained yet."
    return f"""<section class="card table">
<h2 id="front-title">Candidates on the front</h2>
<p class="note scripted">{note}</p>
<div role="region" aria-labelledby="front-title" tabindex="0" style="overflow-x: auto">
<table aria-labelledby="front-title">
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
</section>"""


def _head(column: _Column) -> str:
    note = f"<small>{escape(column.note)}</small>" if column.note else ""
    number = "" if column.kind in ("key", "text") else " data-number"
    return (
        f'<th scope="col" class="{column.kind}"{number}>'
        f'<button type="button">{escape(column.title)}</button>{note}</th>'
    )


def _row(point: Point, columns: Iterable[_Column]) -> str:
    cells = "".join(_cell(point, column) for column in columns)
    return f'<tr data-key="{escape(point.key)}">{cells}</tr>'


def _cell(point: Point, column: _Column) -> str:
    shown, value = "", ""
    if column.kind == "key":
        value = escape(point.key)
        shown = (
            f'<button type="button" title="{value}"><code>{escape(point.key[:8])}</code></button>'
        )
    elif column.kind == "text":
        value = escape(point.text)
        shown = f"<code>{value}</code>"
    elif column.kind == "test":
        if point.test_accuracy is not None:
            value, shown = repr(point.test_accuracy), f"{100 * point.test_accuracy:.1f} %"
    elif column.metric is None:
        value = shown = str(point.number)
    elif column.metric.name in point.values:
        figure = point.values[column.metric.name]
        ends = escape(column.metric.ends(point))
        value, shown = repr(figure), escape(column.metric.number(figure))
        shown += f"<small>{ends}</small>" if ends else ""
    return f'<td class="{column.kind}" data-sort="{value}">{shown}</td>'
