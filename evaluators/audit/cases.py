"""Inputs that an export is run on, what must come out, and how far from it something is."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from evaluators.audit.process import Json
from evaluators.audit.truth import Truth
from search_spaces.export.write import EXAMPLE_BATCH, example_inputs
from search_spaces.pack import pack

_SEED = 1


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Inputs of a network, and what must come out.

    Attributes:
        inputs: (b, ...) each.
        training: whether the network is in training mode.
        output: what the study's module gives.
        state: what its state dict is then; empty in evaluation mode.
        cached: whether a decoder is also to read the tokens one by one, for the same output.
    """

    inputs: tuple[Tensor, ...]
    training: bool
    output: Tensor
    state: Mapping[str, Tensor]
    cached: bool = False


def cases_of(truth: Truth, *, training: bool, cached: bool = False) -> list[Case]:
    """Run the study's module on batches of 7 and of 1, in evaluation and perhaps training mode.

    Variants run in the form that the study reports; they have no training mode. Decoders may be
    asked for the same output with what they keep of tokens read before.
    """
    reported = pack(truth.architecture, truth.module)
    modes = (False, True) if training and not truth.architecture.regions else (False,)
    cases = []
    for mode in modes:
        for batch in (EXAMPLE_BATCH, 1):
            inputs = tuple(
                _cast(x, truth.module) for x in example_inputs(truth.architecture, batch)
            )
            module = copy.deepcopy(reported).train(mode)
            torch.manual_seed(_SEED)
            try:
                with torch.no_grad():
                    output = module(*inputs)
            except ValueError:
                if mode and batch == 1:  # batch norm has no variance over one pixel of one image
                    continue
                raise
            state = module.state_dict() if mode else {}
            kept = cached and not mode and truth.architecture.decodes
            cases.append(Case(inputs, mode, output, state, kept))
    return cases


def write_cases(cases: list[Case], folder: Path) -> list[Json]:
    """Write the inputs of cases, and return how a job names them."""
    named = []
    for number, case in enumerate(cases):
        path = folder / f"case{number}.safetensors"
        save_file({f"input_{i}": x.contiguous() for i, x in enumerate(case.inputs)}, path)
        named.append(
            {
                "inputs": str(path),
                "training": case.training,
                "cached": case.cached,
                "seed": _SEED,
            }
        )
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
        expected |= {"cached": case.output} if case.cached else {}
        for name, tensor in expected.items():
            worst = max(worst, relative(results.get(f"{number:04d}.{name}"), tensor))
    return worst


def own_rounding(module: nn.Module, cases: list[Case]) -> float:
    """Return how far a module's own outputs are from those it would give in float64.

    Another runtime may round as much another way: MobileNetV2 with random weights is 7.4e-6 of its
    largest output from float64 in torch and 6.9e-6 in onnxruntime, and these differ by 1.0e-5.
    """
    exact = copy.deepcopy(module).eval().double()
    with torch.no_grad():
        return max(
            relative(case.output, exact(*(_cast(x, exact) for x in case.inputs)))
            for case in cases
            if not case.training
        )


def outputs_of(module: nn.Module, cases: list[Case]) -> list[Case]:
    """Return cases with what a module gives, in evaluation mode, as what must come out."""
    runs = copy.deepcopy(module).eval()
    with torch.no_grad():
        return [replace(case, output=runs(*case.inputs)) for case in cases]


def relative(found: Tensor | None, expected: Tensor) -> float:
    """Return the largest difference of two tensors, relative to the largest value expected.

    Returns:
        infinity where one is missing, of another shape or not a number.
    """
    if found is None or found.shape != expected.shape:
        return math.inf
    if not expected.numel():
        return 0.0
    difference = (found.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item()
    if math.isnan(difference):
        return math.inf
    return 0.0 if difference == 0 else difference / scale if scale else math.inf


def _cast(x: Tensor, module: nn.Module) -> Tensor:
    """Return an input in the type of a module's weights; whole numbers stay what they are."""
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    return x.to(dtype) if x.is_floating_point() else x
