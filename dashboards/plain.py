"""The front as HTML that needs no script: what a report shows where there is none."""

from __future__ import annotations

from html import escape

from dashboards.views.table import FrontRow, FrontTable
from dashboards.words import Metric


def front_html(study: str, table: FrontTable) -> str:
    """Return a heading, a summary and the table of a front."""
    counts = ", ".join(f"{count:,} {escape(state)}" for state, count in table.states.items())
    among = f"<b>{len(table.rows)}</b> on the front of {counts or 'no trial'}"
    where = f" Measured on {escape(table.device)}." if table.device else ""
    heads = [_head("Trial", "number"), _head("Key"), *map(_metric_head, table.metrics)]
    rows = "\n".join(_row(row, table.metrics) for row in table.rows)
    return f"""<h1>Pareto front <small>{escape(study)}</small></h1>
<p class="count"><span>{among}.{where}</span></p>
<section class="card"><div class="scroll" role="region" tabindex="0" aria-label="Front">
<table><thead><tr>{"".join(heads)}{_head("Architecture")}</tr></thead><tbody>
{rows}
</tbody></table></div></section>"""


def _head(title: str, kind: str = "", note: str = "") -> str:
    small = f"<small>{escape(note)}</small>" if note else ""
    return f'<th scope="col" class="{kind}">{escape(title)}{small}</th>'


def _metric_head(metric: Metric) -> str:
    return _head(metric.title, "number", metric.spread)


def _row(row: FrontRow, metrics: list[Metric]) -> str:
    cells = "".join(_cell(row, metric) for metric in metrics)
    key = f'<code title="{escape(row.key)}">{escape(row.key[:8])}</code>'
    text = f'<td class="wide"><code>{escape(row.text)}</code></td>'
    return f'<tr><td class="number">{row.number}</td><td>{key}</td>{cells}{text}</tr>'


def _cell(row: FrontRow, metric: Metric) -> str:
    if metric.name not in row.figures:
        return '<td class="number"></td>'
    value, low, high = row.figures[metric.name]
    ends = metric.ends(low, high)
    small = f"<small>{escape(ends)}</small>" if ends else ""
    return f'<td class="number">{escape(metric.number(value))}{small}</td>'
