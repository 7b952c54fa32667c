"""The front page's data: candidates by column, what their axes are called, baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dashboards.columns import StudyColumns
from dashboards.elsewhere import metrics_elsewhere
from dashboards.record import Reading
from dashboards.views.networks import variants_of
from dashboards.views.pack import pack
from dashboards.words import study_metric

WHOLE_ROWS = 5000
"""Up to here all metrics and spreads are sent at once; beyond, others when they are asked for."""


def front_view(
    columns: StudyColumns,
    connection: Reading,
    asked: Sequence[str] = (),
    *,
    whole: bool = False,
) -> dict[str, Any]:
    """Return what the front of a study is drawn from.

    All complete candidates are in it, also those that break the study's constraints: the page's
    sliders begin at these. Beyond :data:`WHOLE_ROWS` candidates, spreads are given for the
    study's front only; so is which variants their networks have.

    Args:
        columns: the study's trials, fresh.
        connection: to read further columns by.
        asked: metrics wanted beside objectives and bounds.
        whole: whether to give all metrics however many candidates there are.
    """
    config = columns.study.config
    known = columns.metrics(connection)
    elsewhere = metrics_elsewhere(connection, columns.study)
    rows = np.flatnonzero(columns.complete())
    small = len(rows) <= WHOLE_ROWS
    wanted = [name for name in asked if name in known or name in elsewhere]
    first = known if small or whole else columns.load_own(connection)
    given = list(dict.fromkeys([*first, *wanted]))
    columns.load(connection, given)
    front = columns.front()
    places = {int(row): place for place, row in enumerate(rows)}
    spread_rows = rows if small else np.array(front, dtype=np.intp)
    return {
        "study": columns.study.name,
        "device": columns.study.conditions.get("device", ""),
        "space": config.space,
        "objectives": list(config.names),
        "metrics": [
            *(study_metric(name, config).to_json() for name in known),
            *(metric.to_json() for metric in elsewhere.values()),
        ],
        "bounds": [
            {"metric": str(b.metric), "relation": b.relation, "bound": b.bound}
            for b in config.bounds
        ],
        "states": columns.states(),
        "count": len(rows),
        "last": int(columns.number.max(initial=-1)),
        "numbers": pack(columns.number[rows]),
        "columns": {name: pack(columns.values(name)[rows]) for name in given},
        "spreads": {
            "rows": pack(np.array([places[int(row)] for row in spread_rows], dtype=np.int64)),
            "columns": _spreads(columns, given, spread_rows),
        },
        "front": [places[row] for row in front],
        "variants": {
            places[row]: words for row, words in variants_of(columns, connection, spread_rows)
        },
        "baselines": _baselines(columns, given),
    }


def _spreads(
    columns: StudyColumns, metrics: Sequence[str], rows: npt.NDArray[np.intp]
) -> dict[str, Any]:
    found = {}
    for name in metrics:
        low, high = columns.values(name, "low")[rows], columns.values(name, "high")[rows]
        if np.isfinite(low).any() or np.isfinite(high).any():
            found[name] = {"low": pack(low), "high": pack(high)}
    return found


def _baselines(columns: StudyColumns, metrics: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for row in columns.baselines():
        figures = {name: float(columns.values(name)[row]) for name in metrics}
        values = {name: value for name, value in figures.items() if np.isfinite(value)}
        found.append({"number": int(columns.number[row]), "values": values})
    return found
