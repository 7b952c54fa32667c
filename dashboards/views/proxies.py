"""How well each cheap figure ranks the candidates that were trained."""

from __future__ import annotations

from collections.abc import Mapping
from math import atanh, sqrt, tanh
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dashboards.columns import StudyColumns
from dashboards.record import Floats, Reading, loads
from dashboards.views.pack import pack
from dashboards.words import study_metric
from evaluators.proxies.agreement import kendall
from evaluators.proxies.fusion import (
    DESCRIPTION,
    FUSED,
    FUSED_PROBED,
    PROBED,
    Scores,
    fuse,
    ranks,
)
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
    value = float(np.corrcoef(ranks(a), ranks(b))[0, 1])
    if abs(value) > 1 - 1e-12:
        return Correlation(round(value), round(value), round(value))
    half = _Z * sqrt((1 + value**2 / 2) / (len(a) - 3))
    return Correlation(value, tanh(atanh(value) - half), tanh(atanh(value) + half))


def proxies_view(columns: StudyColumns, connection: Reading) -> dict[str, Any]:
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
    ranked = {name: columns.values(name) for name in known}
    for name, scores in ((FUSED, DESCRIPTION), (FUSED_PROBED, PROBED)):
        if name not in ranked and ranked.keys() >= scores.keys():
            ranked[name] = _joint(ranked, kept, scores)
    for name, figures in ranked.items():
        if name in (target, f"test_{target}"):
            continue
        both = kept & np.isfinite(figures)
        found = rank_correlation(figures[both], truth[both])
        tau = kendall(figures[both], truth[both]) if found else None
        shown = np.flatnonzero(both)[-_DRAWN:]
        rows.append(
            {
                "metric": study_metric(name, config).to_json(),
                "count": int(both.sum()),
                "correlation": found._asdict() if found else None,
                "tau": tau,
                "numbers": pack(columns.number[shown]),
                "x": pack(figures[shown]),
                "y": pack(truth[shown]),
            }
        )
    rows.sort(key=_strength, reverse=True)
    return {
        "study": columns.study.name,
        "target": study_metric(target, config).to_json(),
        "fewest": FEWEST,
        "off": _switched_off(columns, connection),
        "rows": rows,
    }


def _joint(ranked: Mapping[str, Floats], kept: npt.NDArray[np.bool_], scores: Scores) -> Floats:
    """Return the joint rank of the candidates that were evaluated in full; nan of the others."""
    for name in scores:
        kept = kept & np.isfinite(ranked[name])
    joint = np.full(len(kept), np.nan)
    joint[kept] = fuse({name: ranked[name][kept] for name in scores}, scores)
    return joint


def _switched_off(columns: StudyColumns, connection: Reading) -> list[str]:
    """Return which proxies the study stopped listening to, and why."""
    query = "SELECT data FROM event WHERE study_id = ? AND kind = 'proxy off' ORDER BY id"
    rows = connection.execute(query, (columns.study.id,))
    events = (loads(row[0]) for row in rows)
    return [f"{event['metric']} was switched off: {event['reason']}" for event in events]


def _strength(row: dict[str, Any]) -> float:
    return abs(row["correlation"]["value"]) if row["correlation"] else -1.0
