"""The front as rows of a plain table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dashboards.columns import StudyColumns
from dashboards.record import Reading
from dashboards.views.networks import networks_of
from dashboards.words import Metric, study_metric
from studies.metrics import QUALITIES

SHOWN = (
    *(name for of in QUALITIES for name in (of, f"test_{of}")),
    *("latency_ms", "params", "macs"),
)
"""Metrics that are shown though they are no objectives."""


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
    networks = networks_of(columns, connection, front)
    rows = []
    for row in front:
        key, text = networks[row]
        figures = {name: _figure(columns, name, row) for name in names}
        known_figures = {name: item for name, item in figures.items() if item is not None}
        rows.append(FrontRow(int(columns.number[row]), key, text, known_figures))
    kept = [name for name in names if name in config.names or any(name in r.figures for r in rows)]
    metrics = [study_metric(name, config) for name in kept]
    device = columns.study.conditions.get("device", "")
    return FrontTable(metrics, rows, columns.states(), device)


def _figure(
    columns: StudyColumns, name: str, row: int
) -> tuple[float, float | None, float | None] | None:
    value, low, high = (float(columns.values(name, part)[row]) for part in ("value", "low", "high"))
    if not np.isfinite(value):
        return None
    return value, low if np.isfinite(low) else None, high if np.isfinite(high) else None
