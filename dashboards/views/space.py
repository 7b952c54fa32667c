"""What the decisions of a space did to a figure, over the candidates that were evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dashboards.columns import StudyColumns
from dashboards.record import Floats, Reading, loads
from dashboards.words import study_metric
from search_spaces.architecture import Architecture

NEWEST = 5000
"""Evaluated candidates that are looked at, the newest."""
FEWEST = 5
"""Candidates an option needs to count in its decision's share and to have a standard error."""

_RULES = 20

Describe = Callable[[str, tuple[int, ...], int], Mapping[str, Any]]


def explained_share(groups: list[Floats]) -> float | None:
    """Return the share of variance that lies between groups, corrected for their number.

    This is epsilon squared, (between - (groups - 1) * within mean square) / total, at least 0: on
    average 0 for groups drawn at random. None where there is nothing to tell: fewer than two
    groups, no more candidates than groups, or all figures equal.
    """
    count, kinds = sum(map(len, groups)), len(groups)
    if kinds < 2 or count <= kinds:
        return None
    values = np.concatenate(groups)
    total = float(((values - values.mean()) ** 2).sum())
    if total <= 1e-15 * max(1.0, float(np.abs(values).max())) ** 2:
        return None
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    spread = within / (count - kinds)
    return max(0.0, (total - within - (kinds - 1) * spread) / total)


def space_view(
    columns: StudyColumns,
    connection: Reading,
    metric: str | None = None,
    described: Describe = lambda *_: {},
) -> dict[str, Any]:
    """Return the space's size, and each decision's options with how a metric came out under them.

    Args:
        columns: the study's trials.
        connection: to read decisions by.
        metric: an objective; the first by default.
        described: gives what is known of a space by its name, for inputs of a shape and so many
            classes; see :func:`dashboards.spaces.describe_space`.
    """
    config = columns.study.config
    name = metric if metric in config.names else config.names[0]
    columns.load_own(connection)
    rows = np.flatnonzero(columns.complete())[-NEWEST:]
    known = _described(columns, connection, described)
    chosen: dict[str, dict[str, list[float]]] = {
        question: {str(option): [] for option in options}
        for question, options in known.pop("options", {}).items()
    }
    for trial, value in _decisions(columns, connection, rows, columns.values(name)):
        for question, option in trial.items():
            chosen.setdefault(question, {}).setdefault(str(option), []).append(value)
    decisions = [_decision(question, options) for question, options in chosen.items()]
    decisions.sort(key=lambda item: -1.0 if item["share"] is None else item["share"], reverse=True)
    return {
        "study": columns.study.name,
        "space": config.space,
        "recorded": columns.study.conditions.get("space", ""),
        "described": known,
        "metric": study_metric(name, config).to_json(),
        "objectives": [study_metric(item, config).to_json() for item in config.names],
        "count": len(rows),
        "fewest": FEWEST,
        "decisions": decisions,
        "rejections": _rejections(columns, connection),
    }


def _described(columns: StudyColumns, connection: Reading, described: Describe) -> dict[str, Any]:
    """Return what is known of the space for inputs and classes as the first trial has them."""
    query = (
        "SELECT a.document FROM trial t JOIN architecture a ON a.key = t.architecture_key "
        "WHERE t.study_id = ? AND NOT t.baseline ORDER BY t.id LIMIT 1"
    )
    row = connection.execute(query, (columns.study.id,)).fetchone()
    if row is None:
        return {}
    network = Architecture.from_json(loads(row[0]))
    shape = network.inputs[0].shape
    return dict(described(columns.study.config.space, shape, network.nodes[-1].shape[0]))


def _rejections(columns: StudyColumns, connection: Reading) -> list[dict[str, Any]]:
    """Return how often each rule of the space rejected a draw, over the newest trials."""
    query = "SELECT rejections FROM trial WHERE study_id = ? AND number > ?"
    since = int(columns.number.max(initial=0)) - NEWEST
    counts: dict[str, int] = {}
    for row in connection.execute(query, (columns.study.id, since)):
        for rule, count in (loads(row[0]) or {}).items():
            counts[rule] = counts.get(rule, 0) + count
    often = sorted(counts.items(), key=lambda item: -item[1])[:_RULES]
    return [{"rule": rule, "count": count} for rule, count in often]


def _decisions(
    columns: StudyColumns, connection: Reading, rows: Any, figures: Floats
) -> list[tuple[dict[str, Any], float]]:
    if not len(rows):
        return []
    wanted = {int(columns.ids[row]): float(figures[row]) for row in rows}
    query = "SELECT id, decisions FROM trial WHERE study_id = ? AND id >= ? AND state = 'complete'"
    found = connection.execute(query, (columns.study.id, min(wanted)))
    return [(loads(row[1]) or {}, wanted[row[0]]) for row in found if row[0] in wanted]


def _decision(question: str, options: dict[str, list[float]]) -> dict[str, Any]:
    groups = {option: np.array(values) for option, values in options.items()}
    return {
        "decision": question,
        "share": explained_share([group for group in groups.values() if len(group) >= FEWEST]),
        "options": [
            {
                "option": option,
                "count": len(values),
                "mean": float(values.mean()) if len(values) else None,
                "error": float(values.std(ddof=1) / np.sqrt(len(values)))
                if len(values) >= FEWEST
                else None,
            }
            for option, values in sorted(groups.items(), key=lambda item: _natural(item[0]))
        ],
    }


def _natural(option: str) -> tuple[int, float, str]:
    try:
        return 0, float(option), option
    except ValueError:
        return 1, 0.0, option
