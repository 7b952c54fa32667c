"""The job of ``nas train``: one architecture trained from several seeds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from evaluators.accuracy.data import AnyDataset, load_dataset
from evaluators.accuracy.evaluator import AccuracyEvaluator, Weights, measure_test
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.recipe_reference import find_recipe
from evaluators.accuracy.seeds import SeedSummary
from evaluators.accuracy.tasks import metrics_of
from evaluators.protocol import Measured
from kernels.device import Device, detect
from kernels.environment import cache_dir
from kernels.errors import NasError
from nas.figures import duration, figure, number
from nas.jobs.common import Json
from nas.jobs.trials import recorded_architecture
from nas.live.lines import Teller
from nas.output import progress
from nas.tables import table
from search_spaces.architecture import Architecture
from studies.presets import read_architecture

_KINDS = ("validation", "test")
_FIGURES = "training.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a network is trained, whichever the seed.

    Attributes:
        architecture: the network.
        dataset: what it is trained on and tested with.
        recipe: how.
        device: where.
        threads: CPU threads.
        out: directory for weights and figures; None: nowhere.
    """

    architecture: Architecture
    dataset: AnyDataset
    recipe: Recipe
    device: Device
    threads: int
    out: Path | None


def train(
    reference: str,
    *,
    data: str | None,
    recipe: str,
    seeds: int,
    first_seed: int,
    device: str | None,
    threads: int,
    out: Path | None,
) -> Json:
    """Train a network once per seed and test each; seeds that are in ``out`` are not paid again.

    Args:
        reference: see :func:`find_architecture`.
        data: name of a data set; None: that of the study the network is from.
        recipe: name of a recipe.
        seeds: how many.
        first_seed: the first of them; the others follow.
        device: a name that :func:`kernels.device.detect` takes.
        threads: CPU threads.
        out: where weights, architecture and figures are written; None: nowhere.

    Raises:
        NasError: something cannot be found or read, or a training failed.
    """
    architecture, known = find_architecture(reference)
    data = data or known
    if data is None:
        raise NasError("Name the data set: --data NAME; only RUN:KEY brings that of its study.")
    dataset = load_dataset(data)
    _check_fit(architecture, dataset, data)
    found = find_recipe(recipe, dataset.input_shape)
    plan = Plan(architecture, dataset, found, detect(device), threads, out)
    if out is not None:
        _write(out / "architecture.json", architecture.to_json())
    rows: list[Json] = []
    earlier = {} if out is None else _earlier(out / _FIGURES)
    for seed in range(first_seed, first_seed + seeds):
        head = f"[{len(rows) + 1}/{seeds}] seed {seed}"
        rows.append(_one_seed(plan, seed, earlier, head))
        result = _result(plan, data, rows)
        if out is not None:
            _write(out / _FIGURES, result)
    return result


def _result(plan: Plan, data: str, rows: Sequence[Json]) -> Json:
    metric = metrics_of(plan.dataset)[0]
    return {
        "key": plan.architecture.key,
        "text": plan.architecture.text,
        "params": plan.architecture.params,
        "macs": plan.architecture.macs,
        "data": data,
        "recipe": plan.recipe.name,
        "metric": metric,
        "device": str(plan.device),
        "seeds": list(rows),
        **{kind: _summary(metric, rows, kind) for kind in _KINDS},
    }


def _check_fit(architecture: Architecture, dataset: AnyDataset, data: str) -> None:
    shapes, spec = [node.shape for node in architecture.inputs], dataset.spec
    classes = (*spec.input_shape, spec.classes) if spec.vocabulary else (spec.classes,)
    if shapes != [spec.input_shape] or architecture.output.shape != classes:
        raise NasError(
            f"The network takes {shapes} and gives {architecture.output.shape}; the data {data!r} "
            f"has {spec.kind} {spec.input_shape} of {spec.classes} classes."
        )


def _one_seed(plan: Plan, seed: int, earlier: Mapping[str, Json], head: str) -> Json:
    """Train and test from a seed; the weights are written as soon as they are there."""
    device, kept = plan.device.torch_name, dict[str, Weights]()
    evaluator = AccuracyEvaluator(
        plan.dataset,
        plan.recipe,
        seed=seed,
        device=device,
        threads=plan.threads,
        save=kept.__setitem__,
        checkpoints=(plan.out or cache_dir()) / "checkpoints",
        on_epoch=Teller(head, plan.recipe.epochs),
    )
    row = earlier.get(evaluator.dense_key(plan.architecture))
    word = "trained before"
    if row is None:
        validation = evaluator.evaluate(plan.architecture)[0]
        (weights,) = kept.values()
        test = measure_test(plan.architecture, weights, plan.dataset, device=device)[0]
        file = None if plan.out is None else _save(plan.out, seed, weights)
        row = _row(seed, {"validation": validation, "test": test}, file)
        word = duration(row["seconds"])
    metric = metrics_of(plan.dataset)[0]
    values = ", ".join(f"{kind} {number(metric, row[kind]['value'])}" for kind in _KINDS)
    progress(f"{head}: {values}, {word}")
    return row


def _earlier(path: Path) -> dict[str, Json]:
    """Return the seeds that were trained into a directory before, by dense key."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["seeds"]
        return {row["dense_key"]: row for row in rows if Path(row["file"]).is_file()}
    except (OSError, ValueError, KeyError, TypeError):  # none, or a torn file: trained again
        return {}


def find_architecture(reference: str) -> tuple[Architecture, str | None]:
    """Read an architecture: a JSON file, ``RUN:KEY`` of a record, or the text form.

    Returns:
        the network, and the data of the study that a recorded one is from.

    Raises:
        NasError: it is none of the three.
    """
    if reference.lstrip().startswith("input "):
        return Architecture.parse(reference), None
    if Path(reference).is_file():
        return read_architecture(reference), None
    run, colon, key = reference.rpartition(":")
    if colon and Path(run).is_dir():
        return recorded_architecture(Path(run), key)
    raise NasError(
        f"Expected an architecture as a JSON file, RUN:KEY or its text in quotes "
        f"('input 3x32x32; conv 16 k3; ...'), got {reference!r}."
    )


def train_text(result: Json) -> str:
    """Write the figures of each seed and their summary."""
    metric = result["metric"]
    rows = [
        [
            str(row["seed"]),
            *(figure(metric, row[kind]) for kind in _KINDS),
            f"{row['seconds']:.1f} s",
        ]
        for row in result["seeds"]
    ]
    rows.append(["mean", *(_mean(metric, result[kind]) for kind in _KINDS), ""])
    head = (
        f"{result['key'][:8]}, {result['params']:,} parameters, on {result['data']} by "
        f"{result['recipe']}, {result['device']}"
    )
    files = [row["file"] for row in result["seeds"] if row["file"]]
    written = f"\n\nWeights: {', '.join(files)}" if files else ""
    return f"{head}\n\n{table(['seed', *_KINDS, 'time'], rows)}{written}"


def _mean(metric: str, item: Json) -> str:
    text = number(metric, item["mean"])
    deviation = item["deviation"]
    return text if deviation is None else f"{text} +- {number(metric, deviation)}"


def _row(seed: int, found: Mapping[str, Measured], file: str | None) -> Json:
    parts = {
        kind: {"value": item.value, "low": item.low, "high": item.high}
        for kind, item in found.items()
    }
    detail = found["validation"].detail
    return {
        "seed": seed,
        **parts,
        "seconds": detail["seconds"],
        "dense_key": detail["dense_key"],
        "file": file,
    }


def _summary(metric: str, rows: Sequence[Json], kind: str) -> Json:
    figures = [Measured(metric, row[kind]["value"]) for row in rows]
    return dataclasses.asdict(SeedSummary.of(figures))


def _save(out: Path, seed: int, weights: Weights) -> str:
    path = out / f"seed{seed}.safetensors"
    try:
        out.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    except OSError as problem:
        raise NasError(f"Cannot write the weights to {path}: {problem}.") from None
    return str(path)


def _write(path: Path, document: Json) -> None:
    partial = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as problem:
        raise NasError(f"Cannot write {path}: {problem.strerror or problem}.") from None
