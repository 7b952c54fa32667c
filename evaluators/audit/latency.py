"""Is an export as fast as the study says? Times it again, beside the study's own network."""

from __future__ import annotations

import math
from pathlib import Path

from evaluators.audit.process import Json, run_jobs
from evaluators.audit.truth import Latency, Truth
from evaluators.audit.values import Check
from search_spaces.export.values import Format

_TIMINGS = 3
"""Times that a latency beyond its tolerance is measured: machines are busy, slow kernels stay."""


def check_latency(
    folder: Path, truth: Truth, kind: Format, latency: Latency, share: float
) -> Check:
    """Time a format as the study timed its candidates, in a process of its own.

    Args:
        folder: the export.
        truth: what the study has.
        kind: format to time.
        latency: what the study measured, and how.
        share: how much slower than the slow end of the study's spread a packed export may be; a
            plain one is not judged, as the study timed this package's kernels.
    """
    judged = truth.order.form == "packed"
    name, stated = f"{latency.metric} of {kind}", latency.figure
    high = stated.value if stated.high is None else stated.high
    tolerance = high - stated.value + share * high
    job: Json = {
        "task": "latency",
        "directory": str(folder),
        "format": kind,
        "device": truth.device,
        "qualifiers": dict(latency.qualifiers),
        "architecture": truth.architecture.to_json(),
    }
    best, notes = math.inf, [truth.device_note]
    for _ in range(_TIMINGS if judged else 1):
        (answer,) = run_jobs([job], alone=False)
        if "error" in answer:
            return Check(name, not judged, note=f"cannot be timed: {answer['error']}")
        if answer["export"] < best:
            best = answer["export"]
            notes = [
                truth.device_note,
                f"beside it, built by the study: {answer['native']:.4g} ms",
                *answer["disturbed"],
            ]
        if best - stated.value <= tolerance:
            break
    passed = not judged or best - stated.value <= tolerance
    limit = tolerance if judged else None
    note = "; ".join(filter(None, notes))
    return Check(name, passed, stated.value, best, limit, "ms a batch", note)
