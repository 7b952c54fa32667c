"""The job of ``nas measure --variants``: what pays at the layers of some networks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from evaluators.latency.latency import LatencyEvaluator
from kernels.device import detect
from kernels.errors import NasError
from nas.jobs.common import Json
from nas.jobs.measurements import run_of
from nas.jobs.measuring import networks_of
from nas.output import progress
from studies.metrics import parse_metric
from studies.offers import record_offers
from studies.workspace import Workspace


def measured_offers(
    asked: Sequence[str],
    *,
    metrics: Sequence[str],
    trials: int,
    seed: int,
    data: str,
    input_shape: str | None,
    device: str | None,
    out: Path | None,
) -> Json:
    """Time the variants that are offered for the layers of some networks, into a run.

    Args:
        asked: networks and spaces, as :func:`nas.jobs.measuring.networks_of` takes them.
        metrics: one latency, with the conditions that a study will ask for.
        trials: networks of each space.
        seed: of the draws.
        data: that the networks of a space are made for.
        input_shape: of one sample, for a model of torchvision's.
        device: where to measure.
        out: directory of the run; None: see :func:`nas.jobs.measurements.run_of`.

    Raises:
        NasError: a name is unknown, the metric is no latency, or the device is not there.
    """
    begin = time.perf_counter()
    asked_for = [parse_metric(item) for item in metrics]
    if [item.name for item in asked_for] != ["latency_ms"]:
        raise NasError(f"Variants are timed by one latency_ms, not by {', '.join(metrics)}.")
    target = detect(device)
    evaluator = LatencyEvaluator(target, **dict(asked_for[0].qualifiers))  # type: ignore[arg-type]
    networks, count = networks_of(asked, data=data, trials=trials, seed=seed, shape=input_shape)
    run = run_of(asked, out)
    progress(f"Timing the variants of the layers of up to {count} networks on {target} ...")
    table = record_offers(Workspace.of(run), islice(networks, count), evaluator)
    return {
        "run": str(run),
        "seconds": time.perf_counter() - begin,
        "variants": table.to_json(),
        "text": str(table),
    }


def offers_text(result: Json) -> str:
    """Write a table, and what it is for."""
    if not result["variants"]["rows"]:
        return "Nothing is offered for the layers of these networks."
    return (
        f"{result['text']}\n\nRecorded in {result['run']}: studies that begin there, with such a "
        "latency among\ntheir metrics, are not offered what is left out."
    )
