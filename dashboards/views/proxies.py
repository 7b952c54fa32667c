"""How well each cheap figure ranks the candidates that were trained."""

from __future__ import annotations

import sqlite3
from math import atanh, sqrt, tanh
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from dashboards.columns import Floats, StudyColumns
from dashboards.views.pack import metric_json, pack
from studies.metrics import quality_of

FEWEST = 10
"""Candidates below which no correlation is stated: its interval would span nearly everything."""
_Z = 1.959964
_DRAWN = 1500


class Correlation(NamedTuple):
    """A rank correlation and its 95 % interval."""

    value: float
    low: float
    high: float


def rank_correlation(a: Floats, b: Floats) -> Correlation | None:
    """Return Spearman's rank correlation; None of fewer than :data:`FEWEST` or of a constant.

    The interval is Fisher's, with the variance ``(1 + r^2 / 2) / (n - 3)`` of Bonett and Wright
    (2000).
    """
    if len(a) < FEWEST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    value = float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
    if abs(value) > 1 - 1e-12:
        return Correlation(round(value), round(value), round(value))
    half = _Z * sqrt((1 + value**2 / 2) / (len(a) - 3))
    return Correlation(value, tanh(atanh(value) - half), tanh(atanh(value) + half))


def proxies_view(columns: StudyColumns, connection: sqlite3.Connection) -> dict[str, Any]:
    """Return the rank correlation of every metric with accuracy over the trained candidates.

    Of language models it is that with the loss; where nothing is trained, with the first objective.
    """
    config = columns.study.config
    known = columns.metrics(connection)
    columns.load(connection, known)
    target = quality_of(known) or config.names[0]
    kept = columns.complete() & np.isfinite(columns.values(target))
    truth = columns.values(target)
    rows: list[dict[str, Any]] = []
    for name in known:
        if name in (target, f"test_{target}"):
            continue
        figures = columns.values(name)
        both = kept & np.isfinite(figures)
        found = rank_correlation(figures[both], truth[both])
        shown = np.flatnonzero(both)[-_DRAWN:]
        rows.append(
            {
                "metric": metric_json(name, config),
                "count": int(both.sum()),
                "correlation": found._asdict() if found else None,
                "numbers": pack(np.array(columns.number, dtype=np.int64)[shown]),
                "x": pack(figures[shown]),
                "y": pack(truth[shown]),
            }
        )
    rows.sort(key=_strength, reverse=True)
    return {
        "study": columns.study.name,
        "target": metric_json(target, config),
        "fewest": FEWEST,
        "rows": rows,
    }


def _strength(row: dict[str, Any]) -> float:
    return abs(row["correlation"]["value"]) if row["correlation"] else -1.0
