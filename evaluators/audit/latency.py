"""Is an export as fast as the study says? Times it again, beside the study's own network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from evaluators.audit.process import Json, run_jobs
from evaluators.audit.truth import Latency, Truth
from evaluators.audit.values import Check

_TIMINGS = 3
"""Times that a latency beyond its tolerance is measured: machines are busy, slow kernels stay."""
_NO_TIMES = ("safetensors",)
"""Formats that hold nothing to run."""


def check_latency(folder: Path, truth: Truth, latency: Latency, share: float) -> list[Check]:
    """Time each format as the study timed its candidates, in a process of its own.

    Beside it runs what the study builds. Where the rounds were disturbed, figures of now cannot be
    held against the study's, and an export is held against that. A ``.pt2`` that is run operator by
    operator pays for torch's graph runner, which the study's network did not; what that costs is
    measured too, and granted.

    Args:
        folder: the export.
        truth: what the study has.
        latency: what the study measured, and how.
        share: how much slower than the slow end of the study's spread a packed export may be; a
            plain one is not judged, as the study timed this package's kernels.
    """
    formats = [item for item in truth.order.to if item not in _NO_TIMES]
    if not formats:
        return []
    judged = truth.order.form == "packed"
    best: dict[str, Check] = {}
    for _ in range(_TIMINGS if judged else 1):
        answer = _timed(folder, truth, latency, formats)
        for kind in formats:
            check = _check(truth, latency, kind, share, answer)
            before = best.get(kind)
            if before is None or _over(check) < _over(before):
                best[kind] = check
        if all(check.passed for check in best.values()):
            break
    return [best[kind] for kind in formats]


def _timed(folder: Path, truth: Truth, latency: Latency, formats: Sequence[str]) -> Json:
    job: Json = {
        "task": "latency",
        "directory": str(folder),
        "formats": list(formats),
        "form": truth.order.form,
        "device": truth.device,
        "qualifiers": dict(latency.qualifiers),
        "architecture": truth.architecture.to_json(),
    }
    (answer,) = run_jobs([job], alone=False)
    return answer


def _check(truth: Truth, latency: Latency, kind: str, share: float, answer: Json) -> Check:
    judged = truth.order.form == "packed"
    name, stated = f"{latency.metric} of {kind}", latency.figure
    failed = answer.get("error") or answer["refused"].get(kind)
    if failed:
        return Check(name, not judged, stated.value, note=f"cannot be timed: {failed}")
    if kind in answer["apart"]:
        return Check(name, True, stated.value, note=f"not timed: {answer['apart'][kind]}")
    found, native = answer["ms"][kind], answer["native"]
    notes = [truth.device_note, f"beside it, built by the study: {native:.4g} ms"]
    runner = 0.0
    if kind == "pt2" and answer["traced"] is not None:
        runner = max(0.0, answer["traced"] - native)
        notes.append(f"torch's graph runner takes {runner:.4g} ms of it")
    slowest = _slowest(latency, share) + runner
    if answer["disturbed"]:  # such figures can be compared with each other only
        slowest = max(slowest, native * _slowest(latency, share) / stated.value + runner)
        notes += [*answer["disturbed"], *(["judged beside the study's network"] if judged else [])]
    passed = not judged or found <= slowest
    tolerance = slowest - stated.value if judged else None
    note = "; ".join(filter(None, notes))
    return Check(name, passed, stated.value, found, tolerance, "ms a batch", note)


def _slowest(latency: Latency, share: float) -> float:
    """Return what a packed export may take, in milliseconds a batch."""
    high = latency.figure.value if latency.figure.high is None else latency.figure.high
    return high * (1 + share)


def _over(check: Check) -> float:
    """Return how far a latency is beyond what it may be; what cannot be timed is beyond all."""
    return math.inf if check.gap is None else check.gap - (check.tolerance or 0.0)
