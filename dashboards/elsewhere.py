"""Figures that other studies have of the same networks: another device as an axis.

Such a figure is named ``latency_ms@study``, and found by the network's key.
"""

from __future__ import annotations

from dashboards import record
from dashboards.record import Floats, Reading, StudyRow
from dashboards.words import Metric, study_metric
from studies.metrics import parse_metric

MARK = "@"
"""Stands between metric and study; no metric has it in its name."""
_MEASURED = ("latency_ms", "energy_mj", "peak_memory_mb")
_NEWEST = 2000
"""Trials of this study that are asked whether the other has their networks."""


def metrics_elsewhere(connection: Reading, study: StudyRow) -> dict[str, Metric]:
    """Return what was measured on other devices of networks that this study has too."""
    found: dict[str, Metric] = {}
    for other in record.studies(connection):
        if other.id == study.id or not _shares(connection, study, other):
            continue
        device = other.conditions.get("device", "")
        if not device or device == study.conditions.get("device"):
            continue
        for name in other.config.names:
            if parse_metric(name, own=True).name in _MEASURED:
                words = study_metric(name, other.config)
                full = f"{name}{MARK}{other.name}"
                label = f"{words.label}, {other.name} on {device}"
                found[full] = Metric(full, label, words.direction, words.unit, words.spread)
    return found


def figures_elsewhere(connection: Reading, study: StudyRow, metric: str) -> Floats:
    """Return (rows, 4): trial of this study, value, low and high as the other study has them."""
    name, _, other = metric.partition(MARK)
    query = (
        "SELECT t.id, max(v.value), max(v.low), max(v.high) FROM study s "
        "JOIN trial o ON o.study_id = s.id "
        "JOIN trial t ON t.architecture_key = o.architecture_key AND t.study_id = ? "
        "JOIN value v ON v.trial_id = o.id AND v.metric = ? WHERE s.name = ? GROUP BY t.id"
    )
    return connection.table(query, (study.id, name, other))


def _shares(connection: Reading, study: StudyRow, other: StudyRow) -> bool:
    query = (
        "SELECT 1 FROM (SELECT architecture_key FROM trial WHERE study_id = ? "
        "ORDER BY id DESC LIMIT ?) AS newest "
        "JOIN trial o ON o.architecture_key = newest.architecture_key "
        "WHERE o.study_id = ? LIMIT 1"
    )
    return connection.execute(query, (study.id, _NEWEST, other.id)).fetchone() is not None
