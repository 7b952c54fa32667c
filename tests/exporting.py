"""Exports that tests share: trained modules, and what reloading their folders elsewhere gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from evaluators.audit.audit import audit_export
from evaluators.audit.cases import cases_of, largest_difference, write_cases
from evaluators.audit.process import run_where_due
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
            inputs = example_inputs(architecture, 4)
            module(*(x + step if x.is_floating_point() else x for x in inputs))
    return module.eval()


def audited_source(architecture: Architecture, module: nn.Module, order: Order, to: Path) -> str:
    """Export a network into a new folder, hold it to its audit, and return its Python source."""
    export_network(architecture, module, to, order)
    audit = audit_export(to, Truth(architecture, module, order))
    assert audit.passed, audit.remarks()
    return (to / "model.py").read_text()


def reloaded_differences(
    architectures: Sequence[Architecture],
    folder: Path,
    to: Sequence[Format],
    *,
    modules: Sequence[nn.Module] | None = None,
    form: str = "plain",
) -> dict[tuple[int, str], float | str]:
    """Export networks, and reload all in one process where this project cannot be imported.

    Returns:
        by position and format: the largest difference from the module that was exported, relative
        to the largest output, over batches of 7 and 1, for modules in training mode too; or the
        reason why it did not load. Weights by themselves must be those of the module to the bit,
        read where this project cannot be imported; their network is then this project's.
    """
    jobs, cases = [], {}
    for number, architecture in enumerate(architectures):
        module = modules[number] if modules else trained(architecture, number)
        order = Order(form=form, to=tuple(to))  # type: ignore[arg-type]
        truth = Truth(architecture, module, order)
        export_network(architecture, module, folder / f"net{number}", order)
        for kind in to:
            here = folder / f"cases{number}-{kind}"
            here.mkdir()
            training, cached = kind in ("python", "safetensors"), kind == "python"
            expected = cases_of(truth, training=training, cached=cached)
            job = {
                "directory": str(folder / f"net{number}"),
                "format": kind,
                "device": "cpu",
                "cases": write_cases(expected, here),
            }
            cases[number, kind] = expected, module
            tasks = {"outputs": form == "plain" and kind != "safetensors"}
            tasks |= {"weights": True} if kind == "safetensors" else {}
            for task, alone in tasks.items():
                results = str(here / task)
                jobs.append({**job, "task": task, "results": results, "alone": alone})
    found: dict[tuple[int, Format], float | str] = {}
    for job, answer in zip(jobs, run_where_due(jobs), strict=True):
        key = (int(Path(job["directory"]).name.removeprefix("net")), job["format"])
        expected, module = cases[key]
        if "error" in answer:
            found[key] = answer["error"]
        elif job["task"] == "outputs":
            found[key] = largest_difference(expected, load_file(job["results"]))
        elif not _equal(load_file(job["results"]), module.state_dict()):
            found[key] = "other weights"
    return found


def _equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Tell whether two state dicts are equal to the bit."""
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], tensor) for name, tensor in expected.items()
    )
