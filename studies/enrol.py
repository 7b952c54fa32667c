"""Before a study runs: what its settings mean here, and whether they fit what is recorded."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from evaluators.accuracy.data import load_dataset
from evaluators.accuracy.recipe import get_recipe
from evaluators.protocol import Evaluator
from kernels.device import detect
from kernels.errors import NasError
from search_spaces.space import DataSpec, Space
from search_spaces.zoo import load_space
from studies.config import StudyConfig
from studies.evaluation import check_coverage, default_evaluators
from studies.storage import Repository, StudyRecord
from studies.workspace import Workspace

_FREE = {"trials", "max_repeats", "max_failures", "device"}
"""Settings that may change between runs of a study; a device is held by its kind and model."""
_LIBRARIES = ("paretonas", "torch", "optuna", "numpy")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a study's settings mean on this machine.

    Attributes:
        space: the search space.
        data: what it must know of the data.
        evaluators: in the order they run.
        conditions: what must not change while the study goes on.
    """

    space: Space
    data: DataSpec
    evaluators: tuple[Evaluator, ...]
    conditions: Mapping[str, str]


def prepare(
    config: StudyConfig, place: Workspace, evaluators: Sequence[Evaluator] | None
) -> Setting:
    """Load what the settings name.

    Raises:
        NasError: something cannot be found, or an objective has no evaluator.
    """
    space = load_space(config.space)
    dataset = load_dataset(config.data)
    device = detect(config.device)
    if evaluators is None:
        evaluators = default_evaluators(config, dataset, device, save=place.weights.save)
    check_coverage(config, evaluators)
    conditions = {"space": f"{space.name} version {space.version}", "data": dataset.fingerprint}
    if "accuracy" in config.objectives:
        conditions["recipe"] = get_recipe(config.recipe).digest
    if any(target.metric.name == "latency_ms" for target in config.targets):
        conditions["device"] = f"{device.kind} ({device.name})"
    data = DataSpec(dataset.input_shape, dataset.classes)
    return Setting(space, data, tuple(evaluators), conditions)


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
    _check_same(config.name, setting.conditions, found.conditions)
    repository.set_config(found.id, config.to_json())
    return found


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
