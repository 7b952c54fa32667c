"""What early stopping saved and what it cost, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dashboards.columns import StudyColumns
from dashboards.record import Reading, loads
from studies.metrics import parse_metric
from studies.stopping import report, stopping_text
from studies.storage import TrialState, Value


class _Trained(NamedTuple):
    """A trial as a report reads it."""

    number: int
    state: TrialState
    values: Mapping[str, Value]


def stopping_words(columns: StudyColumns, connection: Reading) -> str:
    """Return what ``nas show`` says of early stopping; empty where nothing was to be stopped."""
    config = columns.study.config
    if not config.rungs:
        return ""
    query = "SELECT kind, data FROM event WHERE study_id = ? AND kind IN ('control', 'stopped')"
    events = [(row[0], loads(row[1])) for row in connection.execute(query, (columns.study.id,))]
    if not events:
        return ""
    controls = {data["trial"] for kind, data in events if kind == "control"}
    moments = {data["metric"] for _, data in events}
    moments |= {name for name in columns.metrics(connection) if _is_moment(name)}
    found = report(
        config,
        _trained(columns, connection, sorted(moments)),
        controls=controls,
        epochs=int(events[0][1]["epochs"]),
    )
    return stopping_text(found)


def _trained(columns: StudyColumns, connection: Reading, moments: list[str]) -> list[_Trained]:
    """Return the trials that got to a rung, or are complete."""
    names = [*columns.study.config.names, *moments]
    columns.load(connection, names)
    came = columns.complete()
    for name in moments:
        came |= np.isfinite(columns.values(name))
    came &= ~columns.baseline
    found = []
    for row in np.flatnonzero(came):
        state = columns.state(int(row))
        figures = {name: float(columns.values(name)[row]) for name in names}
        values = {name: Value(value) for name, value in figures.items() if np.isfinite(value)}
        if state is not TrialState.REPEAT:
            found.append(_Trained(int(columns.number[row]), state, values))
    return found


def _is_moment(name: str) -> bool:
    return any(key == "epoch" for key, _ in parse_metric(name, own=True).qualifiers)
