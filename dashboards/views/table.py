"""The front as rows of a plain table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dashboards.columns import StudyColumns
from dashboards.record import Reading, marks
from dashboards.words import Metric, study_metric
from studies.metrics import QUALITIES

SHOWN = (
    *(name for of in QUALITIES for name in (of, f"test_{of}")),
    *("latency_ms", "params", "macs"),
)
"""Metrics that are shown though they are no objectives."""
_AT_ONCE = 500


class FrontRow(NamedTuple):
    """A candidate on the front; figures are value, low and high by metric, None where not known."""

    number: int
    key: str
    text: str
    figures: dict[str, tuple[float, float | None, float | None]]


class FrontTable(NamedTuple):
    """The front, the best by the first objective first, and what its columns are."""

    metrics: list[Metric]
    rows: list[FrontRow]
    states: dict[str, int]
    device: str


def front_table(columns: StudyColumns, connection: Reading) -> FrontTable:
    """Return a study's front as a table."""
    config = columns.study.config
    known = columns.metrics(connection)
    names = [name for name in dict.fromkeys([*config.names, *SHOWN]) if name in known]
    columns.load(connection, names)
    target = config.targets[0]
    first = columns.values(config.names[0]) * (1 if target.direction == "min" else -1)
    front = sorted(columns.front(), key=lambda row: (first[row], row))
    texts = _texts(columns, connection, front)
    rows = []
    for row in front:
        key, text = texts[int(columns.ids[row])]
        figures = {name: _figure(columns, name, row) for name in names}
        known_figures = {name: item for name, item in figures.items() if item is not None}
        rows.append(FrontRow(int(columns.number[row]), key, text, known_figures))
    kept = [name for name in names if name in config.names or any(name in r.figures for r in rows)]
    metrics = [study_metric(name, config) for name in kept]
    device = columns.study.conditions.get("device", "")
    return FrontTable(metrics, rows, columns.states(), device)


def _texts(
    columns: StudyColumns, connection: Reading, rows: list[int]
) -> dict[int, tuple[str, str]]:
    found = {}
    for start in range(0, len(rows), _AT_ONCE):
        ids = columns.ids[rows[start : start + _AT_ONCE]].tolist()
        query = (
            "SELECT t.id, a.key, a.text FROM trial t JOIN architecture a "
            f"ON a.key = t.architecture_key WHERE t.id IN ({marks(ids)})"
        )
        found.update({r[0]: (r[1], r[2]) for r in connection.execute(query, ids)})
    return found


def _figure(
    columns: StudyColumns, name: str, row: int
) -> tuple[float, float | None, float | None] | None:
    value, low, high = (float(columns.values(name, part)[row]) for part in ("value", "low", "high"))
    if not np.isfinite(value):
        return None
    return value, low if np.isfinite(low) else None, high if np.isfinite(high) else None
