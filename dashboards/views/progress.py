"""How a study went: hypervolume, what each stage dropped, failures, where the time went."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np

from dashboards.columns import Floats, StudyColumns
from dashboards.record import loads, moment
from dashboards.views.pack import finite
from studies.pareto import hypervolume, non_dominated

CHECKPOINTS = 150
_FEWER = 40
"""Points of the curve, and with more than four objectives, where a volume takes long."""
_MARGIN = 0.1
"""How far beyond the worst front point the reference lies, as a share of the front's range."""
_EVENTS = 60
_LATE = {"cost": 0, "latency_ms": 1, "peak_memory_mb": 2, "energy_mj": 4, "accuracy": 5}
"""Order of the funnel's stages by the metric that names them; others stand between."""


def progress_view(columns: StudyColumns, connection: sqlite3.Connection) -> dict[str, Any]:
    """Return the progress of a study whose objectives and bounds are loaded here."""
    config = columns.study.config
    columns.load(connection, [*config.names, *(str(bound.metric) for bound in config.bounds)])
    return {
        "study": columns.study.name,
        "asked": config.trials,
        "states": _states(columns),
        "volume": _volume(columns, _spent(columns, connection)),
        "stages": _stages(columns, connection),
        "gates": [f"{gate.by}: the better {100 * gate.keep:g} % go on" for gate in config.funnel],
        "bounds": [str(bound) for bound in config.bounds],
        "failures": _reasons(columns, connection, "failed"),
        "seconds": _seconds(columns, connection),
        "workers": _workers(columns, connection),
        "events": _events(columns, connection),
    }


def _states(columns: StudyColumns) -> dict[str, int]:
    found: dict[str, int] = {}
    for state in columns.state:
        found[state] = found.get(state, 0) + 1
    return found


def _spent(columns: StudyColumns, connection: sqlite3.Connection) -> Floats:
    """Return the minutes of evaluation paid for each trial, by row."""
    query = (
        "SELECT e.trial_id, sum(e.seconds) FROM trial t JOIN evaluation e ON e.trial_id = t.id "
        "WHERE t.study_id = ? GROUP BY e.trial_id"
    )
    paid = dict(connection.execute(query, (columns.study.id,)).fetchall())
    return np.array([paid.get(trial_id, 0.0) / 60 for trial_id in columns.ids], dtype=np.float64)


def _volume(columns: StudyColumns, spent: Floats) -> dict[str, Any]:
    """Return the share of the box from the best values to the reference that is dominated.

    The reference lies a tenth of the final front's range beyond its worst value of each objective;
    so the curve ends where `nas studies compare` would put it against itself.
    """
    config = columns.study.config
    rows = np.flatnonzero(columns.feasible())
    curve: dict[str, Any] = {"trials": [], "share": [], "minutes": [], "spent": [], "front": []}
    if not len(rows):
        return curve
    signs = np.array([1.0 if target.direction == "min" else -1.0 for target in config.targets])
    costs = signs * np.stack([columns.values(name)[rows] for name in config.names], axis=1)
    ways = ["min"] * len(signs)
    final = costs[non_dominated(costs, ways)]  # type: ignore[arg-type]
    ideal, worst = final.min(axis=0), final.max(axis=0)
    span = np.where(worst > ideal, worst - ideal, 1.0) * (1 + _MARGIN)
    scaled = (costs - ideal) / span
    paid = np.cumsum(spent)
    count = CHECKPOINTS if len(signs) <= 4 else _FEWER
    stops = np.unique(np.linspace(1, len(rows), min(count, len(rows))).round().astype(int))
    front = np.empty((0, len(signs)))
    begin = 0
    for stop in stops.tolist():
        pool = np.concatenate([front, scaled[begin:stop]])
        front, begin = pool[non_dominated(pool, ways)], stop  # type: ignore[arg-type]
        row = int(rows[stop - 1])
        volume = hypervolume(front, [1.0] * len(signs), ways)  # type: ignore[arg-type]
        curve["trials"].append(columns.number[row] + 1)
        curve["share"].append(volume)
        curve["minutes"].append(finite(columns.ended[row]))
        curve["spent"].append(float(paid[row]))
        curve["front"].append(len(front))
    return curve


def _stages(columns: StudyColumns, connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the funnel: how many reached each stage that dropped any, and how many it dropped."""
    query = (
        "SELECT stage, count(*) FROM trial WHERE study_id = ? AND state = 'dropped' GROUP BY stage"
    )
    dropped = dict(connection.execute(query, (columns.study.id,)).fetchall())
    states = _states(columns)
    left = states.get("complete", 0) + sum(dropped.values())
    found = []
    for stage in sorted(dropped, key=_stage_order):
        found.append({"stage": stage, "reached": left, "dropped": dropped[stage]})
        left -= dropped[stage]
    for item in found:
        item["reasons"] = _reasons(columns, connection, "dropped", stage=item["stage"])
    return found


def _stage_order(stage: str | None) -> tuple[float, str]:
    name = (stage or "").partition("[")[0]
    place = float(_LATE.get(name, 3))
    return (place - 0.5 if stage != name else place), stage or ""


def _reasons(
    columns: StudyColumns, connection: sqlite3.Connection, state: str, *, stage: str | None = None
) -> list[dict[str, Any]]:
    """Return reasons with how often each came, and the newest trials of each."""
    query = (
        "SELECT coalesce(reason, 'no reason was recorded') AS why, count(*), max(number) "
        "FROM trial WHERE study_id = ? AND state = ? AND (? IS NULL OR stage = ?) "
        "GROUP BY why ORDER BY count(*) DESC, max(number) DESC LIMIT 20"
    )
    rows = connection.execute(query, (columns.study.id, state, stage, stage))
    return [{"reason": row[0], "count": row[1], "newest": row[2]} for row in rows]


def _seconds(columns: StudyColumns, connection: sqlite3.Connection) -> list[dict[str, Any]]:
    query = (
        "SELECT e.evaluator, count(*), sum(e.seconds) FROM trial t "
        "JOIN evaluation e ON e.trial_id = t.id WHERE t.study_id = ? "
        "GROUP BY e.evaluator ORDER BY 3 DESC"
    )
    rows = connection.execute(query, (columns.study.id,))
    return [{"evaluator": row[0], "count": row[1], "seconds": row[2]} for row in rows]


def _workers(columns: StudyColumns, connection: sqlite3.Connection) -> list[dict[str, Any]]:
    query = (
        "SELECT e.worker, count(*), sum(e.seconds), max(e.ended) FROM trial t "
        "JOIN evaluation e ON e.trial_id = t.id WHERE t.study_id = ? AND e.worker != '' "
        "GROUP BY e.worker ORDER BY 4 DESC LIMIT 50"
    )
    rows = connection.execute(query, (columns.study.id,))
    return [
        {"worker": row[0], "count": row[1], "seconds": row[2], "last": moment(row[3])}
        for row in rows
    ]


def _events(columns: StudyColumns, connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the newest events but the many that only say that something was evaluated."""
    query = (
        "SELECT time, kind, data FROM event WHERE study_id = ? AND kind NOT IN "
        f"('evaluated', 'reused') ORDER BY id DESC LIMIT {_EVENTS}"
    )
    rows = connection.execute(query, (columns.study.id,))
    return [{"time": moment(r["time"]), "kind": r["kind"], "data": loads(r["data"])} for r in rows]
