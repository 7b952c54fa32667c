"""How a study went: hypervolume, what each stage dropped, failures, where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from dashboards.columns import StudyColumns
from dashboards.record import Floats, Reading, loads, marks, moment
from dashboards.views.stopping import stopping_words
from studies.metrics import QUALITIES
from studies.pareto import hypervolume, non_dominated

CHECKPOINTS = 150
_FEWER = 40
"""Points of the curve, and with more than four objectives, where a volume takes long."""
_MARGIN = 0.1
"""How far beyond the worst front point the reference lies, as a share of the front's range."""
RECENT = 2000
"""Newest trials whose evaluations tell which workers there are: their rows are wide."""
_EVENTS = 60
_SEARCHED_EVENTS = 100_000
_LATE = {"cost": 0, "latency_ms": 1, "peak_memory_mb": 2, "energy_mj": 4}
_LATE |= dict.fromkeys(QUALITIES, 5)
"""Order of the funnel's stages by the metric that names them; others stand between."""


def progress_view(columns: StudyColumns, connection: Reading) -> dict[str, Any]:
    """Return the progress of a study whose objectives and bounds are loaded here."""
    config = columns.study.config
    columns.load_own(connection)
    device = columns.study.conditions.get("device", "")
    return {
        "study": columns.study.name,
        "gpu": device.startswith("cuda"),
        "asked": config.trials,
        "states": columns.states(),
        "volume": _volume(columns, connection),
        "stages": _stages(columns, connection),
        "gates": [f"{gate.by}: the better {100 * gate.keep:g} % go on" for gate in config.funnel],
        "bounds": [str(bound) for bound in config.bounds],
        "stopping": stopping_words(columns, connection),
        "failures": _reasons(columns, connection, "failed"),
        "seconds": _seconds(columns, connection),
        "driver": _driver(columns, connection),
        "workers": _workers(columns, connection),
        "events": _events(columns, connection),
    }


def _spent(columns: StudyColumns, connection: Reading) -> Floats:
    """Return the seconds of evaluation that were paid up to each trial, by row."""
    query = (
        "SELECT e.trial_id, sum(e.seconds) FROM trial t JOIN evaluation e ON e.trial_id = t.id "
        "WHERE t.study_id = ? GROUP BY e.trial_id"
    )
    paid = np.zeros(len(columns.ids))
    table = connection.table(query, (columns.study.id,))
    if len(table):
        paid[np.searchsorted(columns.ids, table[:, 0].astype(np.int64))] = table[:, 1]
    total: Floats = np.cumsum(paid)
    return total


def _ended(columns: StudyColumns, connection: Reading, rows: Sequence[int]) -> list[float | None]:
    """Return when trials ended, in seconds since the study was enrolled."""
    ids = [int(columns.ids[row]) for row in rows]
    query = f"SELECT id, ended FROM trial WHERE id IN ({marks(ids)})"
    found = {row[0]: moment(row[1]) for row in connection.execute(query, ids)}
    begun = datetime.fromisoformat(columns.study.created)
    return [
        None
        if (ended := found[item]) is None
        else (datetime.fromisoformat(ended) - begun).total_seconds()
        for item in ids
    ]


def _volume(columns: StudyColumns, connection: Reading) -> dict[str, Any]:
    """Return the share of the box from the best values to the reference that is dominated.

    The reference lies a tenth of the final front's range beyond its worst value of each objective;
    so the curve ends where `nas studies compare` would put it against itself.
    """
    config = columns.study.config
    rows = np.flatnonzero(columns.feasible())
    if not len(rows):
        return {"trials": [], "share": [], "seconds": [], "spent": [], "front": []}
    signs = np.array([1.0 if target.direction == "min" else -1.0 for target in config.targets])
    costs = signs * np.stack([columns.values(name)[rows] for name in config.names], axis=1)
    ways = ["min"] * len(signs)
    final = costs[non_dominated(costs, ways)]  # type: ignore[arg-type]
    ideal, worst = final.min(axis=0), final.max(axis=0)
    span = np.where(worst > ideal, worst - ideal, 1.0) * (1 + _MARGIN)
    scaled = (costs - ideal) / span
    count = CHECKPOINTS if len(signs) <= 4 else _FEWER
    stops = np.unique(np.linspace(1, len(rows), min(count, len(rows))).round().astype(int)).tolist()
    shares, sizes = [], []
    front = np.empty((0, len(signs)))
    for begin, stop in zip([0, *stops], stops, strict=False):
        pool = np.concatenate([front, scaled[begin:stop]])
        front = pool[non_dominated(pool, ways)]  # type: ignore[arg-type]
        shares.append(hypervolume(front, [1.0] * len(signs), ways))  # type: ignore[arg-type]
        sizes.append(len(front))
    at = [int(rows[stop - 1]) for stop in stops]
    return {
        "trials": [int(columns.number[row]) + 1 for row in at],
        "share": shares,
        "seconds": _ended(columns, connection, at),
        "spent": _spent(columns, connection)[at].tolist(),
        "front": sizes,
    }


def _stages(columns: StudyColumns, connection: Reading) -> list[dict[str, Any]]:
    """Return the funnel: how many reached each stage that dropped any, and how many it dropped."""
    query = (
        "SELECT stage, count(*) FROM trial WHERE study_id = ? AND state = 'dropped' GROUP BY stage"
    )
    dropped = dict(connection.execute(query, (columns.study.id,)).fetchall())
    states = columns.states()
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
    columns: StudyColumns, connection: Reading, state: str, *, stage: str | None = None
) -> list[dict[str, Any]]:
    """Return reasons with how often each came, and the newest trials of each."""
    where = "study_id = ? AND state = ?" + ("" if stage is None else " AND stage = ?")
    query = (
        "SELECT coalesce(reason, 'no reason was recorded') AS why, count(*), max(number) "
        f"FROM trial WHERE {where} GROUP BY why ORDER BY count(*) DESC, max(number) DESC LIMIT 20"
    )
    asked = [columns.study.id, state, *([] if stage is None else [stage])]
    rows = connection.execute(query, asked)
    return [{"reason": row[0], "count": row[1], "newest": row[2]} for row in rows]


def _seconds(columns: StudyColumns, connection: Reading) -> list[dict[str, Any]]:
    query = (
        "SELECT e.evaluator, count(*), sum(e.seconds) FROM trial t "
        "JOIN evaluation e ON e.trial_id = t.id WHERE t.study_id = ? "
        "GROUP BY e.evaluator ORDER BY 3 DESC"
    )
    rows = connection.execute(query, (columns.study.id,))
    return [{"evaluator": row[0], "count": row[1], "seconds": row[2]} for row in rows]


def _driver(columns: StudyColumns, connection: Reading) -> str | None:
    """Return until when the study's driver holds it, unless it renews that; None without one."""
    query = "SELECT expires FROM lease WHERE study_id = ?"
    row = connection.execute(query, (columns.study.id,)).fetchone()
    return None if row is None else moment(row[0])


def _workers(columns: StudyColumns, connection: Reading) -> list[dict[str, Any]]:
    """Return the study's workers, and who else gave its newest evaluations.

    Those that the driver saw last come first; the others have no state.
    """
    gave = {row["worker"]: row for row in _gave(columns, connection)}
    query = (
        "SELECT name, slot, device, state, trial, since FROM worker WHERE study_id = ? "
        "ORDER BY slot, name"
    )
    found = []
    for row in connection.execute(query, (columns.study.id,)):
        known = gave.pop(row["name"], {"worker": row["name"], "count": 0, "seconds": 0.0})
        about = {key: row[key] for key in ("slot", "device", "state", "trial")}
        found.append({**known, **about, "since": moment(row["since"])})
    return [*found, *gave.values()]


def _gave(columns: StudyColumns, connection: Reading) -> list[dict[str, Any]]:
    """Return who gave the newest evaluations of the study, who was heard of last first."""
    query = (
        "SELECT e.worker, count(*), sum(e.seconds), max(e.ended) FROM trial t "
        "JOIN evaluation e ON e.trial_id = t.id WHERE t.study_id = ? AND t.number > ? "
        "AND e.worker != '' GROUP BY e.worker ORDER BY 4 DESC LIMIT 100"
    )
    since = int(columns.number.max(initial=0)) - RECENT
    rows = connection.execute(query, (columns.study.id, since))
    return [
        {"worker": row[0], "count": row[1], "seconds": row[2], "last": moment(row[3])}
        for row in rows
    ]


def _events(columns: StudyColumns, connection: Reading) -> list[dict[str, Any]]:
    """Return the newest events but the many that only say that something was evaluated."""
    query = (
        "SELECT time, kind, data FROM event WHERE study_id = ? AND kind NOT IN "
        "('evaluated', 'reused') AND id > (SELECT max(id) FROM event) - ? ORDER BY id DESC LIMIT ?"
    )
    rows = connection.execute(query, (columns.study.id, _SEARCHED_EVENTS, _EVENTS))
    return [{"time": moment(r["time"]), "kind": r["kind"], "data": loads(r["data"])} for r in rows]
