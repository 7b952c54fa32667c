"""Does an export do what the study says? Reloads it in a clean process and measures again."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from evaluators.audit.cases import (
    Case,
    cases_of,
    largest_difference,
    outputs_of,
    own_rounding,
    relative,
    write_cases,
)
from evaluators.audit.files import check_files
from evaluators.audit.latency import check_latency
from evaluators.audit.process import Json, run_where_due
from evaluators.audit.quality import check_preprocessing, check_quality, quality_job, write_test
from evaluators.audit.truth import (
    FLIPS,
    LARGEST_FLIP,
    LARGEST_ROUNDING,
    LATENCY_TOLERANCE,
    OUTPUT_TOLERANCE,
    ROUNDINGS,
    Truth,
)
from evaluators.audit.values import Audit, Check
from search_spaces.export.values import Format
from search_spaces.pack import pack
from search_spaces.variants import tolerance_of

_QUALITY = ("accuracy", "likelihood")
"""Tasks that read the test split."""


def audit_export(
    directory: Path, truth: Truth, *, latency_tolerance: float = LATENCY_TOLERANCE
) -> Audit:
    """Reload an export where nothing of the study is at hand, and measure it again.

    A plain export is reloaded where this package cannot be imported, but for weights by themselves,
    whose network is this package's. Its latency is shown beside the study's, which was measured on
    this package's kernels; that of a packed export is judged.

    Args:
        directory: the folder.
        truth: what the study has.
        latency_tolerance: how much slower a packed export may be than the slow end of the study's
            spread.

    Returns:
        each figure as stated and as found. What does not load is a check that failed, not an error.

    Raises:
        NasError: the clean process cannot be started.
    """
    begun = time.perf_counter()
    folder = directory.resolve()
    checks = check_files(folder, truth)
    with tempfile.TemporaryDirectory(prefix="audit-") as scratch:
        checks += _reloaded(folder, truth, Path(scratch))
    for latency in truth.latencies:
        checks += check_latency(folder, truth, latency, latency_tolerance)
    return Audit(
        form=truth.order.form,
        formats=truth.order.to,
        key=truth.architecture.key,
        checks=tuple(checks),
        device=truth.device,
        seconds=time.perf_counter() - begun,
    )


def _reloaded(folder: Path, truth: Truth, scratch: Path) -> list[Check]:
    """Run each format in a clean process: its outputs, and its accuracy where data is known."""
    jobs: list[Json] = []
    cases: dict[Format, list[Case]] = {}
    if "safetensors" in truth.order.to:
        results = str(scratch / "weights")
        jobs.append(_job(folder, "weights", "safetensors", results=results, alone=True))
    for kind in truth.order.to:
        here = scratch / kind
        here.mkdir()
        training, cached = kind in ("python", "safetensors"), kind == "python"
        cases[kind] = cases_of(truth, training=training, cached=cached)
        jobs += _jobs(folder, truth, kind, cases[kind], here)
    if quality_job(truth) is not None:
        files = write_test(truth, scratch / "split")
        jobs = [{**job, **files} if job["task"] in _QUALITY else job for job in jobs]
    checks = []
    read: list[tuple[Json, Json]] = []
    for job, answer in zip(jobs, run_where_due(jobs, threads=torch.get_num_threads()), strict=True):
        if job["task"] == "weights":
            checks.append(_check_weights(truth, job, answer))
        elif job["task"] == "outputs":
            checks.append(_check_outputs(truth, job, answer, cases[job["format"]]))
        else:
            checks.append(check_quality(truth, job, answer))
            read.append((job, answer))
    if read:  # how inputs are prepared depends on no format
        checks.append(check_preprocessing(folder, truth, *read[0]))
    return checks


def _jobs(folder: Path, truth: Truth, kind: Format, cases: list[Case], scratch: Path) -> list[Json]:
    module = kind in ("python", "safetensors")
    alone = truth.order.form == "plain" and kind != "safetensors"
    # A packed program computes where it was traced; all else is compared on the CPU.
    device = truth.device if (truth.order.form, kind) == ("packed", "pt2") else "cpu"
    named = write_cases(cases, scratch)
    results = str(scratch / "outputs")
    jobs = [_job(folder, "outputs", kind, device=device, cases=named, results=results, alone=alone)]
    quality = quality_job(truth)
    if quality is not None:
        where = truth.device if module else device
        quality |= {"device": where, "results": str(scratch / "inputs"), "alone": alone}
        jobs.append({"directory": str(folder), "format": kind, **quality})
    return jobs


def _job(folder: Path, task: str, kind: Format, **settings: object) -> Json:
    return {"task": task, "directory": str(folder), "format": kind, **settings}


def _check_weights(truth: Truth, job: Json, answer: Json) -> Check:
    """Compare the tensors of a file with the study's, which they must equal to the bit."""
    name = "weights of safetensors"
    if "error" in answer:
        return Check(name, False, note=f"does not load: {answer['error']}")
    found = load_file(job["results"])
    expected = pack(truth.architecture, truth.module, truth.order.form).state_dict()
    if found.keys() != expected.keys():
        other = ", ".join(sorted(found.keys() ^ expected.keys())[:3])
        return Check(name, False, note=f"other tensors than the network's: {other}")
    worst = max((relative(found[key], tensor) for key, tensor in expected.items()), default=0.0)
    if math.isinf(worst):
        return Check(name, False, tolerance=0.0, note="other shapes, or not numbers")
    return Check(name, worst == 0, 0.0, worst, 0.0, "of the largest weight")


def _check_outputs(truth: Truth, job: Json, answer: Json, cases: list[Case]) -> Check:
    name, tolerance = f"outputs of {job['format']}", OUTPUT_TOLERANCE[truth.order.form]
    if truth.order.form == "plain":
        tolerance = max(tolerance, tolerance_of(truth.architecture))
    if "error" in answer:
        return Check(name, False, note=f"does not load: {answer['error']}")
    worst = largest_difference(cases, load_file(job["results"]))
    if math.isinf(worst):
        return Check(name, False, tolerance=tolerance, note="other shapes, or not numbers")
    if worst > tolerance:
        tolerance = max(tolerance, _rounding(truth, job["format"], cases))
    return Check(name, worst <= tolerance, 0.0, worst, tolerance, "of the largest output")


def _rounding(truth: Truth, kind: Format, cases: list[Case]) -> float:
    """Return how far outputs may be off because sums are rounded in another order.

    That of variants is told by their plain form alone: what the packed one computes is on trial.
    """
    if truth.architecture.regions:
        plain = pack(truth.architecture, truth.module, "plain")
        return min(FLIPS * own_rounding(plain, outputs_of(plain, cases)), LARGEST_FLIP)
    if kind == "onnx":  # another runtime, with a rounding of its own
        return min(ROUNDINGS * own_rounding(truth.module, cases), LARGEST_ROUNDING)
    return 0.0
