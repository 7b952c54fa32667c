"""The front page's data: candidates by column, what their axes are called, baselines."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dashboards.columns import StudyColumns
from dashboards.views.pack import metric_json, pack

WHOLE_ROWS = 5000
"""Up to here all metrics and spreads are sent at once; beyond, others when they are asked for."""


def front_view(
    columns: StudyColumns,
    connection: sqlite3.Connection,
    asked: Sequence[str] = (),
    *,
    whole: bool = False,
) -> dict[str, Any]:
    """Return what the front of a study is drawn from.

    All complete candidates are in it, also those that break the study's constraints: the page's
    sliders begin at these. Beyond :data:`WHOLE_ROWS` candidates, spreads are given for the
    study's front only.

    Args:
        columns: the study's trials, fresh.
        connection: to read further columns by.
        asked: metrics wanted beside objectives and bounds.
        whole: whether to give all metrics however many candidates there are.
    """
    config = columns.study.config
    known = columns.metrics(connection)
    first = list(dict.fromkeys([*config.names, *(str(bound.metric) for bound in config.bounds)]))
    columns.load(connection, first)
    rows = np.flatnonzero(columns.complete())
    small = whole or len(rows) <= WHOLE_ROWS
    given = known if small else [*first, *(name for name in asked if name in known)]
    columns.load(connection, given)
    front = columns.front()
    spread_rows = rows if len(rows) <= WHOLE_ROWS else np.array(front, dtype=np.intp)
    places = {int(row): place for place, row in enumerate(rows)}
    return {
        "study": columns.study.name,
        "device": columns.study.conditions.get("device", ""),
        "space": config.space,
        "objectives": list(config.names),
        "metrics": [metric_json(name, config) for name in known],
        "bounds": [
            {"metric": str(b.metric), "relation": b.relation, "bound": b.bound}
            for b in config.bounds
        ],
        "states": _states(columns),
        "count": len(rows),
        "last": max(columns.number, default=-1),
        "numbers": pack(np.array(columns.number, dtype=np.int64)[rows]),
        "columns": {name: pack(columns.values(name)[rows]) for name in dict.fromkeys(given)},
        "spreads": {
            "rows": pack(np.array([places[int(row)] for row in spread_rows], dtype=np.int64)),
            "columns": _spreads(columns, given, spread_rows),
        },
        "front": [places[row] for row in front],
        "baselines": _baselines(columns, given),
    }


def _states(columns: StudyColumns) -> dict[str, int]:
    names, counts = np.unique(np.array(columns.state, dtype=np.str_), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _spreads(
    columns: StudyColumns, metrics: Sequence[str], rows: npt.NDArray[np.intp]
) -> dict[str, Any]:
    found = {}
    for name in dict.fromkeys(metrics):
        low, high = columns.values(name, "low")[rows], columns.values(name, "high")[rows]
        if np.isfinite(low).any() or np.isfinite(high).any():
            found[name] = {"low": pack(low), "high": pack(high)}
    return found


def _baselines(columns: StudyColumns, metrics: Sequence[str]) -> list[dict[str, Any]]:
    rows = [r for r, b in enumerate(columns.baseline) if b and columns.state[r] == "complete"]
    found = []
    for row in rows:
        figures = {name: float(columns.values(name)[row]) for name in metrics}
        values = {name: value for name, value in figures.items() if np.isfinite(value)}
        found.append({"number": columns.number[row], "values": values})
    return found
