"""Before a study runs: what its settings mean here, and whether they fit what is recorded."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

from evaluators.accuracy.data import load_dataset
from evaluators.accuracy.recipe_reference import find_recipe
from evaluators.protocol import Evaluator
from kernels.device import Device
from kernels.errors import NasError
from search_spaces.offers import of_kinds
from search_spaces.space import DataSpec, Space
from search_spaces.zoo import load_space
from studies.config import StudyConfig
from studies.evaluation import Means, check_coverage, default_evaluators, wanted_metrics
from studies.funnel import Stage, make_stages
from studies.metrics import QUALITIES, parse_metric
from studies.offers import without_slower
from studies.presets import Preset, presets
from studies.rungs import with_rungs
from studies.starting import trained_model
from studies.storage import Repository, StudyRecord
from studies.workspace import Workspace

_FREE = {
    "trials",
    "candidates",
    "minutes",
    "device_minutes",
    "trial_minutes",
    "trial_memory_mb",
    "max_repeats",
    "max_failures",
    "max_drops",
    "recipe",
    "device",
    "workers",
    "ray",
    "gpus",
    "lookahead",
}
"""Settings that may change between runs of a study; what a recipe says and the kind and model of a
device are held by the conditions."""
_IN_FLIGHT = 4
"""Candidates in flight per worker. Training times of a space differ by 50 and more: with one per
worker, two workers trained one network at a time on CIFAR-10 while the slowest was in work."""
_LIBRARIES = ("paretonas", "torch", "optuna", "numpy")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a study's settings mean on this machine.

    Attributes:
        space: the search space.
        data: what it must know of the data.
        stages: what a candidate passes, in order.
        presets: what is evaluated before anything is asked for.
        wanted: metrics without which a trial has failed.
        lookahead: how many trials may be in flight; 0 until it is known.
        conditions: what must not change while the study goes on.
    """

    space: Space
    data: DataSpec
    stages: tuple[Stage, ...]
    presets: tuple[Preset, ...]
    wanted: frozenset[str]
    lookahead: int
    conditions: Mapping[str, str]

    def for_workers(self, slots: int) -> Setting:
        """Return the setting with a lookahead for so many workers, where none was given."""
        lookahead = self.lookahead or default_lookahead(slots)
        held = {**self.conditions, "lookahead": str(lookahead)}
        return replace(self, lookahead=lookahead, conditions=held)

    def recorded(self, study: StudyRecord) -> Setting:
        """Return the setting with what the record holds on to."""
        return replace(self, lookahead=int(study.conditions["lookahead"]))

    def sign(self, metric: str) -> float:
        """Return 1 where more of a metric is better, -1 where less is."""
        kind = parse_metric(metric, own=True).kind
        return -1.0 if kind is not None and kind.direction == "min" else 1.0


def prepare(
    config: StudyConfig,
    place: Workspace,
    evaluators: Sequence[Evaluator] | None,
    *,
    device: Device,
    space: Space | None = None,
) -> Setting:
    """Load what the settings name.

    Args:
        config: the settings.
        place: the workspace.
        evaluators: those given; None for those that the settings need.
        device: that they run on.
        space: stands for the one that the settings name.

    Raises:
        NasError: something cannot be found, or an objective has no evaluator.
    """
    dataset = load_dataset(config.data)
    start = None
    if config.from_model is not None:
        trained = trained_model(config.from_model, dataset.spec, place, config.variants)
        space, start = trained.space, trained.start
    elif space is None:
        space = load_space(config.space)
        if config.variants:
            space = of_kinds(space, config.variants, dataset.spec)
    if evaluators is None:
        evaluators = default_evaluators(Means(config, dataset, device, place, start, space))
    check_coverage(config, evaluators)
    space, offers = without_slower(space, config, place)
    evaluators, rungs, gates = with_rungs(config, evaluators)
    stages = make_stages(config, evaluators, gates=gates, rungs=rungs)
    conditions = {
        "space": f"{space.name} version {space.version}",
        "data": dataset.fingerprint,
        **offers,
    }
    wanted = wanted_metrics(config)
    if any(name.startswith(QUALITIES) for name in wanted):
        conditions["recipe"] = find_recipe(config.recipe, dataset.input_shape).digest
    if any(item.slot == "measurement" for item in evaluators):
        conditions["device"] = f"{device.kind} ({device.name})"
    data = dataset.spec
    return Setting(
        space=space,
        data=data,
        stages=stages,
        presets=presets(config, data, space),
        wanted=frozenset(wanted),
        lookahead=config.lookahead or 0,
        conditions=conditions,
    )


def default_lookahead(workers: int) -> int:
    """Return how many trials may be in flight: several a worker, so that a slow one stops none."""
    return _IN_FLIGHT * workers if workers > 1 else 1


def enrol(config: StudyConfig, setting: Setting, repository: Repository) -> StudyRecord:
    """Return the study of that name, recorded now or earlier.

    Raises:
        NasError: it was recorded with other settings or conditions; names the first.
    """
    found = repository.find_study(config.name)
    if found is None:
        return repository.add_study(
            config.name, config.to_json(), conditions=setting.conditions, versions=versions()
        )
    settings = {key: value for key, value in config.to_json().items() if key not in _FREE}
    _check_same(config.name, settings, found.config)
    held = setting.conditions if config.lookahead else _without(setting.conditions, "lookahead")
    _check_same(config.name, held, found.conditions)
    repository.set_config(found.id, config.to_json())
    return found


def _without(conditions: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in conditions.items() if key != name}


def _check_same(study: str, now: Mapping[str, object], recorded: Mapping[str, object]) -> None:
    for key, value in now.items():
        if recorded.get(key) != value:
            raise NasError(
                f"The study {study!r} is in the record with {key} {recorded.get(key)!r}, not "
                f"{value!r}. Give the same, or another name to begin a new study."
            )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that figures depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from the source tree
            found[name] = "unknown"
    return found
