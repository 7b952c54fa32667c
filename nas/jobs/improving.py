"""The jobs of ``nas proxies organise`` and ``kernels``: a network before and after, by 3DRF."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path

from evaluators.cost import analytic_cost
from evaluators.proxies.kernel_menu import choose_kernels
from evaluators.proxies.organise import Budget, organise
from evaluators.proxies.paths import path_scores
from evaluators.proxies.receptive_field import receptive_field
from kernels.errors import NasError
from nas.jobs.common import Json
from nas.jobs.spaces import shape_of
from nas.jobs.training import find_architecture
from nas.tables import table
from search_spaces.architecture import Architecture
from search_spaces.blocks import chain_of


def organised(
    reference: str,
    *,
    input_shape: str | None,
    params: float | None,
    macs: float | None,
    layers: int | None,
    latency_ms: float | None,
    device: str | None,
    results: int,
    most: int,
    out: Path | None,
    say: Callable[[str], None],
) -> Json:
    """Choose the depths of a network's stages.

    Args:
        reference: see :func:`network_of`.
        input_shape: of one sample, for a model of torchvision's or of the user's.
        params: most parameters; those of the network if None.
        macs: most multiply-accumulates, likewise.
        layers: most layers; None: as many as there is budget for.
        latency_ms: most milliseconds of one sample, measured; None: any.
        device: where latency is measured.
        results: how many choices to print.
        most: blocks that a stage may have.
        out: where the choices are written as JSON files, for ``nas search --enqueue``.
        say: told what goes on.

    Raises:
        NasError: the network cannot be read or has no stages, or nothing keeps the budget.
    """
    before = network_of(reference, input_shape)
    budget = Budget(
        before.params if params is None else params,
        before.macs if macs is None else macs,
        inf if layers is None else layers,
    )
    chain = chain_of(before, most=most)
    say("Searching ...")
    found = organise(before, budget, results=results, most=most)
    rows = [{"depths": list(chain.depths), **_figures(before)}]
    networks = []
    for item in found:
        network = chain.with_depths(item.depths)
        rows.append({"depths": list(item.depths), **_figures(network)})
        networks.append(network)
    if latency_ms is not None:
        rows, networks = _fast(rows, [before, *networks], latency_ms, device, say)
    return {"network": reference, "rows": rows, "files": _written(networks, out, "organised")}


def _fast(
    rows: list[Json],
    networks: list[Architecture],
    most_ms: float,
    device: str | None,
    say: Callable[[str], None],
) -> tuple[list[Json], list[Architecture]]:
    """Measure all, and keep the original and those that are fast enough."""
    from evaluators.latency.latency import LatencyEvaluator
    from kernels.device import detect

    evaluator = LatencyEvaluator(detect(device))
    kept, chosen = [], []
    for row, network in zip(rows, networks, strict=True):
        say(f"Measuring {row['depths']} ...")
        row["latency_ms"] = evaluator.evaluate(network)[0].value
        if network is networks[0] or row["latency_ms"] <= most_ms:
            kept.append(row)
            chosen.append(network)
    if len(kept) < 2:
        raise NasError(
            f"None of the {len(rows) - 1} best choices keeps {most_ms:g} ms; ask for more "
            "--results."
        )
    return kept, chosen[1:]


def rekernelled(
    reference: str,
    *,
    input_shape: str | None,
    params: float | None,
    macs: float | None,
    out: Path | None,
) -> Json:
    """Choose the kind of kernel at every place of a network.

    Args:
        reference: see :func:`network_of`.
        input_shape: of one sample, for a model of torchvision's or of the user's.
        params: most parameters; half of the network's if neither this nor ``macs`` is given.
        macs: most multiply-accumulates.
        out: where the network is written as a JSON file, for ``nas search --enqueue``.

    Raises:
        NasError: the network cannot be read or swapped, or nothing keeps the budget.
    """
    before = network_of(reference, input_shape)
    if params is None and macs is None:
        params = before.params / 2
    found = choose_kernels(before, Budget(inf if params is None else params, macs or inf))
    return {
        "network": reference,
        "before": _figures(before),
        "after": _figures(found.architecture),
        "kernels": [
            {
                "place": before.nodes[number].scope or str(number),
                "was": before.nodes[number].op.text,
                "now": name,
            }
            for number, name in found.kernels.items()
        ],
        "files": _written([found.architecture], out, "kernels"),
    }


def network_of(reference: str, input_shape: str | None) -> Architecture:
    """Read a network: as ``nas train`` does, or trace a model; its weights are left out.

    Raises:
        NasError: it cannot be read.
    """
    if not reference.startswith("torchvision:") and ".py:" not in reference:
        return find_architecture(reference)[0].dense()
    return traced(reference, input_shape)


def traced(reference: str, input_shape: str | None) -> Architecture:
    """Trace a model by its reference, for ``CxHxW`` (3x224x224 by default); no weights are kept.

    Raises:
        NasError: it cannot be found or traced.
    """
    from search_spaces.models import load_model
    from search_spaces.trace import trace

    shape = shape_of(input_shape or "3x224x224")
    return Architecture(trace(load_model(reference, trained=False), shape).nodes)


def _figures(network: Architecture) -> Json:
    cost, paths = analytic_cost(network), path_scores(network)
    return {
        "layers": cost.layers,
        "params": cost.params,
        "macs": cost.macs,
        "rf_gain": receptive_field(network).gain,
        "path_local": paths.local,
    }


def _written(networks: list[Architecture], out: Path | None, stem: str) -> list[str]:
    if out is None:
        return []
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{stem}{number}.json" for number in range(len(networks))]
    for file, network in zip(files, networks, strict=True):
        file.write_text(json.dumps(network.to_json()), encoding="utf-8")
    return [str(file) for file in files]


def organised_text(result: Json) -> str:
    """Write what :func:`organised` found, the network as it was first."""
    rows = []
    for number, row in enumerate(result["rows"]):
        name = "as it is" if number == 0 else str(number)
        rows.append([name, "-".join(map(str, row["depths"])), *_cells(row)])
    timed = "latency_ms" in result["rows"][0]
    header = ["", "depths", *_HEADER, *(["ms"] if timed else [])]
    return "\n".join([table(header, rows, left=(0, 1)), *_files(result)])


def rekernelled_text(result: Json) -> str:
    """Write what :func:`rekernelled` found."""
    swaps = [[item["place"], item["was"], item["now"]] for item in result["kernels"]]
    rows = [["before", *_cells(result["before"])], ["after", *_cells(result["after"])]]
    share = 1 - result["after"]["params"] / result["before"]["params"]
    return "\n".join(
        [
            table(["place", "kernel", "now"], swaps, left=(0, 1, 2)),
            "",
            table(["", *_HEADER], rows),
            f"{100 * share:.1f} % fewer parameters",
            *_files(result),
        ]
    )


_HEADER = ("layers", "params", "MACs", "3DRF gain", "path local")


def _cells(row: Mapping[str, float]) -> list[str]:
    timed = [f"{row['latency_ms']:.3f}"] if "latency_ms" in row else []
    return [
        f"{row['layers']}",
        f"{row['params']:,}",
        f"{row['macs']:,}",
        f"{row['rf_gain']:.3f}",
        f"{row['path_local']:.3f}",
        *timed,
    ]


def _files(result: Json) -> list[str]:
    if not result["files"]:
        return []
    flags = " ".join(f"--enqueue {file}" for file in result["files"])
    return ["", f"Begin a study with them: nas search SPACE {flags}"]
