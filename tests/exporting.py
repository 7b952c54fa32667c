"""Exports that tests share: trained modules, and what reloading their folders elsewhere gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from evaluators.audit.cases import cases_of, largest_difference, write_cases
from evaluators.audit.process import run_jobs
from evaluators.audit.truth import Truth
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.export.values import Format
from search_spaces.export.write import Order, example_inputs, export_network


def trained(architecture: Architecture, seed: int = 0) -> nn.Module:
    """Return a module whose weights, norms and statistics are no initial ones."""
    torch.manual_seed(seed)
    module = build(architecture)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            if tensor.ndim == 1:
                low = 0.5 if name.endswith("weight") else -0.2
                tensor.uniform_(low, low + 0.8)
        for step in range(3):
            inputs = [x + step for x in example_inputs(architecture, 4)]
            module(*inputs)
    return module.eval()


def reloaded_differences(
    architectures: Sequence[Architecture],
    folder: Path,
    to: Sequence[Format],
    *,
    modules: Sequence[nn.Module] | None = None,
    form: str = "plain",
) -> dict[tuple[int, str], float | str]:
    """Export networks, reload all in one process where this project cannot be imported.

    Returns:
        by position and format: the largest difference from the module that was exported, relative
        to the largest output, over batches of 7 and 1, for Python in training mode too; or the
        reason why it did not load.
    """
    jobs, cases = [], {}
    for number, architecture in enumerate(architectures):
        module = modules[number] if modules else trained(architecture, number)
        order = Order(form=form, to=tuple(to))
        place = folder / f"net{number}"
        export_network(architecture, module, place, order)
        for kind in to:
            here = folder / f"cases{number}-{kind}"
            here.mkdir()
            truth = Truth(architecture, module, order)
            cases[number, kind] = cases_of(truth, training=kind == "python")
            jobs.append(
                {
                    "task": "outputs",
                    "directory": str(place),
                    "format": kind,
                    "device": "cpu",
                    "cases": write_cases(cases[number, kind], here),
                    "results": str(here / "outputs"),
                }
            )
    answers = run_jobs(jobs, alone=form == "plain")
    return {
        key: answer.get("error") or largest_difference(expected, load_file(job["results"]))
        for (key, expected), job, answer in zip(cases.items(), jobs, answers, strict=True)
    }
