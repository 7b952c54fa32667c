"""A point of a front trained again from several seeds: what of its figure was luck.

The weights of each seed stay in the workspace, so a confirmation that was interrupted, or that is
asked for more seeds, pays only what is missing. The result is a figure of the trial,
``accuracy[seeds=K]`` and ``test_accuracy[seeds=K]`` (``loss`` of a text), with every seed in its
details.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from evaluators.accuracy.data import load_dataset
from evaluators.accuracy.evaluator import AccuracyEvaluator, Weights
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.recipe_reference import find_recipe
from evaluators.accuracy.seeds import SeedSummary
from evaluators.accuracy.tasks import score_split
from evaluators.protocol import Measured
from kernels.device import detect
from kernels.errors import NasError
from nas.figures import number
from nas.jobs.common import Json
from nas.live.lines import Teller
from nas.output import progress
from search_spaces.architecture import Architecture
from search_spaces.build import build, load_weights
from studies.config import StudyConfig
from studies.front import FrontPoint
from studies.metrics import METRICS, quality_of
from studies.workspace import Workspace

_PARTS = ("validation", "test")


def confirm_point(run: Path, config: StudyConfig, point: FrontPoint, count: int, head: str) -> Json:
    """Train a point from ``count`` seeds, those of the study first, and record what came of it.

    Args:
        run: directory of the run.
        config: settings of its study.
        point: what to confirm.
        count: seeds.
        head: begins each line about it.

    Raises:
        NasError: a training failed, or data or recipe are not those of the study any more.
    """
    place = Workspace.of(run)
    quality = quality_of(config.names)
    if quality is None:
        raise NasError("The study trained nothing: there is no figure to confirm.")
    metrics = {"validation": f"{quality}[seeds={count}]", "test": f"test_{quality}[seeds={count}]"}
    with place.open(create=False) as repository:
        detail = repository.detail(point.trial_id, metrics["test"])
        architecture = repository.architecture(point.key)
        conditions = repository.study(config.name).conditions
    dataset = load_dataset(config.data)
    recipe = find_recipe(config.recipe, dataset.input_shape)
    _check_same(conditions, data=dataset.fingerprint, recipe=recipe.digest)
    seeds: list[Json] = list(detail.get("seeds", ()))
    if not seeds:
        for seed in range(config.seed, config.seed + count):
            teller = Teller(f"{head} seed {seed}", recipe.epochs)
            seeds.append(_one_seed(place, config, architecture, recipe, seed, teller))
            values = ", ".join(f"{part} {number(quality, seeds[-1][part])}" for part in _PARTS)
            progress(f"{head} seed {seed}: {values}")
    summaries = {
        part: SeedSummary.of([Measured(metrics[part], item[part]) for item in seeds])
        for part in _PARTS
    }
    if not detail:
        figures = [
            Measured(metrics[part], item.mean, item.low, item.high, {"seeds": seeds})
            for part, item in summaries.items()
        ]
        with place.open(create=False) as repository:
            repository.add_values(point.trial_id, figures)
    searched = point.values[quality].value
    better = 1.0 if METRICS[quality].direction == "max" else -1.0
    return {
        "key": point.key,
        "trial": point.trial,
        "metric": quality,
        "searched": searched,
        **{part: dataclasses.asdict(item) for part, item in summaries.items()},
        "luck": better * (searched - summaries["validation"].mean),
        "gap": better * (summaries["validation"].mean - summaries["test"].mean),
        "seeds": seeds,
    }


def _check_same(conditions: Mapping[str, str], **now: str) -> None:
    for name, value in now.items():
        if conditions.get(name, value) != value:
            raise NasError(
                f"The {name} is not what the study was made with; put the old {name} back."
            )


def _one_seed(
    place: Workspace,
    config: StudyConfig,
    architecture: Architecture,
    recipe: Recipe,
    seed: int,
    teller: Teller,
) -> Json:
    dataset = load_dataset(config.data)
    device = detect(config.device).torch_name
    kept: dict[str, Weights] = {}

    def save(key: str, weights: Weights) -> str:
        kept[key] = weights
        return place.weights.save(key, weights)

    evaluator = AccuracyEvaluator(
        dataset,
        recipe,
        seed=seed,
        device=device,
        threads=config.threads,
        save=save,
        checkpoints=place.root / "checkpoints",
        on_epoch=teller,
    )
    key = evaluator.dense_key(architecture)
    paid = True
    try:
        weights: Weights = place.weights.load(key)
    except NasError:  # not trained from this seed yet
        paid = False
        evaluator.evaluate(architecture)
        weights = kept[key]
    module = build(architecture)
    load_weights(module, architecture, weights)
    module.to(device)
    validation, test = (score_split(module, dataset, part).value for part in _PARTS)
    return {"seed": seed, "validation": validation, "test": test, "dense_key": key, "reused": paid}
