"""Does an export do what the study says? Reloads it in a clean process and measures again."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evaluators.audit.files import check_files, wrong_preprocessing
from evaluators.audit.latency import check_latency
from evaluators.audit.process import run_jobs
from evaluators.audit.truth import (
    ACCURACY_TOLERANCE,
    INPUT_TOLERANCE,
    LARGEST_ROUNDING,
    LATENCY_TOLERANCE,
    OUTPUT_TOLERANCE,
    ROUNDINGS,
    Truth,
)
from evaluators.audit.values import Audit, Check
from search_spaces.export.values import Format
from search_spaces.export.write import EXAMPLE_BATCH, example_inputs

_SEED = 1
_SHOWN = 16
"""Normalised test images that are compared pixel by pixel."""
_BATCH = 512

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Inputs of a network, and what must come out.

    Attributes:
        inputs: (b, ...) each.
        training: whether the network is in training mode.
        output: what the study's module gives.
        state: what its state dict is then; empty in evaluation mode.
    """

    inputs: tuple[Tensor, ...]
    training: bool
    output: Tensor
    state: Mapping[str, Tensor]


def audit_export(
    directory: Path, truth: Truth, *, latency_tolerance: float = LATENCY_TOLERANCE
) -> Audit:
    """Reload an export where nothing of the study is at hand, and measure it again.

    A plain export is reloaded where this package cannot be imported. Its latency is shown beside
    the study's, which was measured on this package's kernels; that of a packed export is judged.

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
    formats: list[Format] = [item for item in truth.order.to if item != "safetensors"]
    checks = check_files(folder, truth)
    with tempfile.TemporaryDirectory(prefix="audit-") as scratch:
        checks += _reloaded(folder, truth, formats, Path(scratch))
    if formats and formats[0] != "onnx":
        for latency in truth.latencies:
            checks.append(check_latency(folder, truth, formats[0], latency, latency_tolerance))
    return Audit(
        form=truth.order.form,
        formats=truth.order.to,
        key=truth.architecture.key,
        checks=tuple(checks),
        device=truth.device,
        seconds=time.perf_counter() - begun,
    )


def cases_of(truth: Truth, *, training: bool) -> list[Case]:
    """Run the study's module on batches of 7 and of 1, in evaluation and perhaps training mode."""
    cases = []
    dtype = next((p.dtype for p in truth.module.parameters()), torch.float32)
    for mode in (False, True) if training else (False,):
        for batch in (EXAMPLE_BATCH, 1):
            inputs = [x.to(dtype) for x in example_inputs(truth.architecture, batch)]
            module = copy.deepcopy(truth.module).train(mode)
            torch.manual_seed(_SEED)
            try:
                with torch.no_grad():
                    output = module(*inputs)
            except ValueError:
                if mode and batch == 1:  # batch norm has no variance over one pixel of one image
                    continue
                raise
            state = module.state_dict() if mode else {}
            cases.append(Case(tuple(inputs), mode, output, state))
    return cases


def write_cases(cases: list[Case], folder: Path) -> list[Json]:
    """Write the inputs of cases, and return how a job names them."""
    named = []
    for number, case in enumerate(cases):
        path = folder / f"case{number}.safetensors"
        save_file({f"input_{i}": x.contiguous() for i, x in enumerate(case.inputs)}, path)
        named.append({"inputs": str(path), "training": case.training, "seed": _SEED})
    return named


def largest_difference(cases: list[Case], results: Mapping[str, Tensor]) -> float:
    """Return the largest difference of an output or statistic, relative to the largest of its kind.

    Returns:
        infinity where a result is missing, of another shape or not a number.
    """
    worst = 0.0
    for number, case in enumerate(cases):
        expected = {"output": case.output}
        expected |= {f"state.{name}": tensor for name, tensor in case.state.items()}
        for name, tensor in expected.items():
            found = results.get(f"{number:04d}.{name}")
            if found is None or found.shape != tensor.shape:
                return math.inf
            worst = max(worst, _relative(found, tensor))
    return worst


def own_rounding(module: nn.Module, cases: list[Case]) -> float:
    """Return how far a module's own outputs are from those it would give in float64.

    Another runtime may round as much another way: MobileNetV2 with random weights is 7.4e-6 of its
    largest output from float64 in torch and 6.9e-6 in onnxruntime, and these differ by 1.0e-5.
    """
    exact = copy.deepcopy(module).eval().double()
    with torch.no_grad():
        return max(
            _relative(case.output, exact(*(x.double() for x in case.inputs)))
            for case in cases
            if not case.training
        )


def _relative(found: Tensor, expected: Tensor) -> float:
    if not expected.numel():
        return 0.0
    difference = (found.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item()
    if math.isnan(difference):
        return math.inf
    return 0.0 if difference == 0 else difference / scale if scale else math.inf


def _reloaded(folder: Path, truth: Truth, formats: list[Format], scratch: Path) -> list[Check]:
    """Run outputs and accuracy of each format in one clean process."""
    jobs: list[Json] = []
    cases: list[list[Case]] = []
    for kind in formats:
        here = scratch / kind
        here.mkdir()
        cases.append(cases_of(truth, training=kind == "python"))
        # A packed program computes where it was traced; all else is compared on the CPU.
        device = truth.device if (truth.order.form, kind) == ("packed", "pt2") else "cpu"
        common = {"directory": str(folder), "format": kind}
        jobs.append(
            {
                **common,
                "task": "outputs",
                "device": device,
                "cases": write_cases(cases[-1], here),
                "results": str(here / "outputs"),
            }
        )
        if truth.test is not None and truth.order.preprocessing is not None:
            jobs.append(
                {
                    **common,
                    "task": "accuracy",
                    "device": truth.device if kind == "python" else device,
                    "images": str(scratch / "test"),
                    "batch": _BATCH,
                    "shown": _SHOWN,
                    "results": str(here / "inputs"),
                }
            )
    if truth.test is not None and truth.order.preprocessing is not None:
        _write_test(truth, scratch / "test")
    alone = truth.order.form == "plain"
    answers = run_jobs(jobs, alone=alone, threads=torch.get_num_threads()) if jobs else []
    checks: list[Check] = []
    remaining = iter(cases)
    for job, answer in zip(jobs, answers, strict=True):
        if job["task"] == "outputs":
            checks.append(_check_outputs(truth, job, answer, next(remaining)))
        else:
            checks += _check_accuracy(folder, truth, job, answer)
    return checks


def _check_outputs(truth: Truth, job: Json, answer: Json, cases: list[Case]) -> Check:
    name, tolerance = f"outputs of {job['format']}", OUTPUT_TOLERANCE[truth.order.form]
    if "error" in answer:
        return Check(name, False, note=f"does not load: {answer['error']}")
    worst = largest_difference(cases, load_file(job["results"]))
    if math.isinf(worst):
        return Check(name, False, tolerance=tolerance, note="other shapes, or not numbers")
    if worst > tolerance and job["format"] == "onnx":  # another runtime, with a rounding of its own
        rounding = own_rounding(truth.module, cases)
        tolerance = max(tolerance, min(ROUNDINGS * rounding, LARGEST_ROUNDING))
    return Check(name, worst <= tolerance, 0.0, worst, tolerance, "of the largest output")


def _check_accuracy(folder: Path, truth: Truth, job: Json, answer: Json) -> list[Check]:
    name = f"test_accuracy of {job['format']}"
    if "error" in answer:
        return [Check(name, False, note=f"does not run: {answer['error']}")]
    assert truth.test is not None
    found = answer["correct"] / answer["total"]
    tolerance = max(ACCURACY_TOLERANCE, 1 / answer["total"])
    stated = truth.test_accuracy
    same = stated is None or abs(found - stated) <= tolerance + 1e-12
    note = "" if stated is not None else "the study states none"
    return [
        _check_inputs(folder, truth, load_file(job["results"])["normalised"], job["format"]),
        Check(name, same, stated, found, tolerance, "share of the test split", note),
    ]


def _check_inputs(folder: Path, truth: Truth, found: Tensor, kind: Format) -> Check:
    assert truth.test is not None
    meant = truth.test.to("cpu").batch(slice(0, len(found)))
    worst = (found - meant).abs().max().item()
    note = wrong_preprocessing(folder, truth)
    passed = not note and worst <= INPUT_TOLERANCE
    unit = "standard deviations"
    return Check(f"preprocessing of {kind}", passed, 0.0, worst, INPUT_TOLERANCE, unit, note)


def _write_test(truth: Truth, path: Path) -> None:
    """Write the test images as they were before the data set normalised them."""
    test, facts = truth.test, truth.order.preprocessing
    assert test is not None
    assert facts is not None
    images = test.images.cpu()
    if test.levels is None:
        mean, std = (
            torch.tensor(item, dtype=torch.float64).reshape(-1, 1, 1)
            for item in (facts.mean, facts.std)
        )
        images = (images.double() * std + mean).float()
    save_file({"images": images.contiguous(), "labels": test.labels.cpu().contiguous()}, path)
