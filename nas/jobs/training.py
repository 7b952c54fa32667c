"""The job of ``nas train``: one architecture trained from several seeds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file

from evaluators.accuracy.data import AnyDataset, load_dataset
from evaluators.accuracy.evaluator import Weights, measure_test
from evaluators.accuracy.recipe import Recipe, get_recipe
from evaluators.accuracy.seeds import SeedSummary, train_seeds
from evaluators.accuracy.tasks import metrics_of
from evaluators.protocol import Measured
from kernels.device import Device, detect
from kernels.errors import NasError
from nas.figures import figure, number
from nas.jobs.common import Json
from nas.jobs.trials import recorded_architecture
from nas.output import progress
from nas.tables import table
from search_spaces.architecture import Architecture
from studies.presets import read_architecture

_KINDS = ("validation", "test")


def train(
    reference: str,
    *,
    data: str,
    recipe: str,
    seeds: int,
    first_seed: int,
    device: str | None,
    threads: int,
    out: Path | None,
) -> Json:
    """Train a network once per seed and test each.

    Args:
        reference: see :func:`find_architecture`.
        data: name of a data set.
        recipe: name of a recipe.
        seeds: how many.
        first_seed: the first of them; the others follow.
        device: a name that :func:`kernels.device.detect` takes.
        threads: CPU threads.
        out: where weights, architecture and figures are written; None: nowhere.

    Raises:
        NasError: something cannot be found or read, or a training failed.
    """
    architecture = find_architecture(reference)
    dataset = load_dataset(data)
    _check_fit(architecture, dataset, data)
    target = detect(device)
    every = range(first_seed, first_seed + seeds)
    rows = _rows(architecture, dataset, get_recipe(recipe), every, target, threads, out)
    result: Json = {
        "key": architecture.key,
        "text": architecture.text,
        "params": architecture.params,
        "macs": architecture.macs,
        "data": data,
        "recipe": recipe,
        "metric": metrics_of(dataset)[0],
        "device": str(target),
        "seeds": rows,
        **{kind: _summary(rows, kind) for kind in _KINDS},
    }
    if out is not None:
        _write(out / "architecture.json", architecture.to_json())
        _write(out / "training.json", result)
    return result


def _check_fit(architecture: Architecture, dataset: AnyDataset, data: str) -> None:
    shapes, spec = [node.shape for node in architecture.inputs], dataset.spec
    classes = (*spec.input_shape, spec.classes) if spec.vocabulary else (spec.classes,)
    if shapes != [spec.input_shape] or architecture.output.shape != classes:
        raise NasError(
            f"The network takes {shapes} and gives {architecture.output.shape}; the data {data!r} "
            f"has {spec.kind} {spec.input_shape} of {spec.classes} classes."
        )


def _rows(
    architecture: Architecture,
    dataset: AnyDataset,
    recipe: Recipe,
    seeds: Sequence[int],
    device: Device,
    threads: int,
    out: Path | None,
) -> list[Json]:
    """Train and test once per seed; weights are written as soon as they are there."""
    rows: list[Json] = []
    for seed in seeds:
        kept: dict[str, Weights] = {}
        (validation,) = train_seeds(
            architecture,
            dataset,
            recipe,
            [seed],
            device=device.torch_name,
            threads=threads,
            save=kept.__setitem__,
            checkpoints=None if out is None else out / "checkpoints",
        )
        weights = next(iter(kept.values()))
        test = measure_test(architecture, weights, dataset, device=device.torch_name)[0]
        file = None if out is None else _save(out, seed, weights)
        rows.append(_row(seed, {"validation": validation, "test": test}, file))
        progress(
            f"[{len(rows)}/{len(seeds)}] seed {seed}: "
            f"validation {number(validation.metric, validation.value)}, "
            f"test {number(test.metric, test.value)}, {rows[-1]['seconds']:.1f} s"
        )
    return rows


def find_architecture(reference: str) -> Architecture:
    """Read an architecture: a JSON file, ``RUN:KEY`` of a record, or the text form.

    Raises:
        NasError: it is none of the three.
    """
    if reference.lstrip().startswith("input "):
        return Architecture.parse(reference)
    if Path(reference).is_file():
        return read_architecture(reference)
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


def _summary(rows: Sequence[Json], kind: str) -> Json:
    figures = [Measured("accuracy", row[kind]["value"]) for row in rows]
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
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
