"""What was measured in a workspace, by any study or by itself: as rows, and as files."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kernels.errors import NasError
from studies.metrics import METRICS, parse_metric
from studies.workspace import Workspace

FORMAT = 1
"""Version of the JSON document."""
REASON = "reason"
"""In the detail of a figure that could not be had: why."""

_METRICS = ("latency_ms", "energy_mj", "peak_memory_mb", "trained_latency_ms")
_EVALUATORS = ("LatencyEvaluator", "EnergyEvaluator", "PeakMemoryEvaluator", "RepeatedEvaluator")
"""What the record says made them; earlier releases and later looks put the metric there."""


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """A figure that a device was measured for.

    Attributes:
        network: key of the network; empty where the record no longer knows it.
        text: one-line form of the network.
        metric: with its conditions.
        value: None where it could not be had.
        low: lower end of its interval; None where it has none.
        high: upper end.
        detail: how it came about: samples, states of the device, versions.
        key: that it is found by; empty where it is not reused.
        study: that it was paid for; empty where none asked, or the study was deleted.
        started: UTC.
        ended: UTC.
        worker: where it ran.
    """

    network: str
    text: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    detail: Mapping[str, Any]
    key: str
    study: str
    started: datetime
    ended: datetime
    worker: str

    @property
    def disturbed(self) -> tuple[str, ...]:
        """Why it is not to be trusted."""
        return tuple(self.detail.get("disturbed") or ())

    @property
    def reason(self) -> str:
        """Why it could not be had; empty where it could."""
        return str(self.detail.get(REASON) or "")


def measurements(workspace: Workspace | Path | str) -> list[MeasuredRow]:
    """Return all that was measured in a workspace, oldest first.

    Raises:
        NasError: there is no record.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        found = repository.measurements().all((*_EVALUATORS, *_METRICS))
    return [
        MeasuredRow(
            network=record.network,
            text=record.text,
            metric=figure.metric,
            value=figure.value if figure.value == figure.value else None,
            low=figure.low,
            high=figure.high,
            detail=figure.detail,
            key=record.evaluation.key or "",
            study=record.study,
            started=record.evaluation.started,
            ended=record.evaluation.ended,
            worker=record.evaluation.worker,
        )
        for record in found
        for figure in record.evaluation.figures
        if parse_metric(figure.metric, own=True).name in _METRICS
    ]


def export_measurements(workspace: Workspace | Path | str, path: Path | str) -> int:
    """Write all that was measured in a workspace to a file, and return how many figures that is.

    Args:
        workspace: where it is recorded.
        path: of a ``.csv`` file in UTF-8, one row a figure, what is not known is empty; or of a
            ``.json`` file with ``format`` and ``measurements``, each with its whole detail.

    Raises:
        NasError: there is no record, the file's name ends otherwise, or it cannot be written.
    """
    target = Path(path)
    write = _WRITERS.get(target.suffix)
    if write is None:
        raise NasError(f"Expected a file {' or '.join(f'NAME{end}' for end in _WRITERS)}: {path}.")
    rows = measurements(workspace)
    try:
        write(rows, target)
    except OSError as problem:
        raise NasError(f"Cannot write {path}: {problem.strerror or problem}.") from None
    return len(rows)


def _write_csv(rows: Iterable[MeasuredRow], path: Path) -> None:
    flat = [flat_row(row) for row in rows]
    header = list(dict.fromkeys(name for row in flat for name in row)) or ["network"]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, header, restval="")
        table.writeheader()
        table.writerows(flat)


def _write_json(rows: Iterable[MeasuredRow], path: Path) -> None:
    document = {"format": FORMAT, "measurements": [row_json(row) for row in rows]}
    path.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")


_WRITERS = {".csv": _write_csv, ".json": _write_json}


def row_json(row: MeasuredRow) -> dict[str, Any]:
    """Return a figure with its whole detail as JSON values; moments are ISO 8601 in UTC."""
    moments = {"started": row.started.isoformat(), "ended": row.ended.isoformat()}
    return {**asdict(row), **moments, "reason": row.reason}


_CONDITIONS = ("device", "batch", "dtype", "mode", "cache", "layout", "phase", "threads")
_STATISTICS = ("p10_us", "p90_us", "mad_us", "drift", "between_run", "rounds_taken")
VERSIONS = ("driver", "torch", "cuda", "harness", "paretonas")
"""What a figure was made with, in its detail."""
_STATES = (
    "sm_clock_mhz",
    "memory_clock_mhz",
    "temperature_c",
    "power_w",
    "frequency_mhz",
)


def flat_row(row: MeasuredRow) -> dict[str, Any]:
    """Return a figure as a row of a table: what is known of it, but for single samples.

    Of the states of the device around the rounds there are the lowest and the highest figure
    (``NAME.low``, ``NAME.high``), and every reason for throttling.
    """
    detail = row.detail
    samples = detail.get("samples_us") or []
    kind = METRICS[parse_metric(row.metric).name]
    return {
        "network": row.network,
        "metric": row.metric,
        "value": row.value,
        "low": row.low,
        "high": row.high,
        "unit": kind.unit,
        **{name: detail.get(name) for name in _CONDITIONS},
        "count": len(samples) or None,
        "median_us": statistics.median(samples) if samples else None,
        **{name: detail.get(name) for name in _STATISTICS},
        "rounds_disturbed": len(detail.get("rounds_disturbed") or ()) if samples else None,
        "repeats": len(detail.get("repeats") or ()) or None,
        "disturbed": "; ".join(row.disturbed),
        "reason": row.reason,
        **_states(detail),
        **{name: detail.get(name) for name in VERSIONS},
        "started": row.started.isoformat(),
        "ended": row.ended.isoformat(),
        "worker": row.worker,
        "study": row.study,
        "key": row.key,
        "text": row.text,
    }


def _states(detail: Mapping[str, Any]) -> dict[str, Any]:
    states = list(_each_state(detail.get("states") or ()))
    found: dict[str, Any] = {}
    for name in _STATES:
        values = [state[name] for state in states if name in state]
        found |= {
            f"{name}.low": min(values, default=None),
            f"{name}.high": max(values, default=None),
        }
    why = {reason for state in states for reason in state.get("throttle", ())}
    return {**found, "throttle": "; ".join(sorted(why))}


def _each_state(states: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """Yield states that stand alone, or in pairs around a round."""
    for item in states:
        if isinstance(item, Mapping):
            yield item
        else:
            yield from item
