"""What the record knows of a trial that is exported: facts for its card, truth for its audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from evaluators.accuracy.data import AnyDataset, TextDataset, TextSplit, load_dataset
from evaluators.accuracy.evaluator import Weights, measure_test
from evaluators.accuracy.recipe import RECIPES
from evaluators.accuracy.tasks import example_inputs
from evaluators.audit.truth import Latency, Truth
from kernels.device import Device, detect
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.build import build, load_weights
from search_spaces.export.values import (
    Facts,
    Figure,
    Form,
    Format,
    Preprocessing,
    Processing,
    TextProcessing,
)
from search_spaces.export.write import Order
from search_spaces.pack import prepare
from studies.config import StudyConfig
from studies.metrics import METRICS, parse_metric, quality_of
from studies.storage import Repository, StudyRecord, TrialRecord, Value
from studies.workspace import Workspace

_CONDITIONS = ("space", "device")
_TRAINING = ("seed", "device", "threads", "torch")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be exported, and how.

    Attributes:
        place: where the study is kept.
        study: its record.
        config: its settings.
        form: ``plain`` or ``packed``.
        to: formats.
        device: where to measure; that of the study's settings by default.

    Raises:
        NasError: a packed model is asked for on another device than the study's.
    """

    place: Workspace
    study: StudyRecord
    config: StudyConfig
    form: Form
    to: tuple[Format, ...]
    device: Device

    def __post_init__(self) -> None:
        if self.form == "packed" and self.device_note:
            raise NasError(
                f"Here is {_named(self.device)}, and {self.device_note}. A packed export is made "
                "and audited on the study's device: run it there, or use --form plain."
            )

    @property
    def device_note(self) -> str:
        """How this device differs from the study's; empty if it does not."""
        here = _named(self.device)
        there = self.study.conditions.get("device", here)
        return "" if here == there else f"the study was measured on {there}"


def truth_of(repository: Repository, wanted: Wanted, trial: TrialRecord) -> Truth:
    """Return a trial's model as the record has it; it is tested if it was not.

    Raises:
        NasError: the trial has no trained weights, or they or the data are not there any more.
    """
    detail = repository.detail(trial.id, quality_of(trial.values) or "accuracy")
    if "dense_key" not in detail:
        raise NasError(f"Trial {trial.number} has no trained weights: its evaluator kept none.")
    dataset = load_dataset(wanted.config.data)
    if detail["data_fingerprint"] != dataset.fingerprint:
        raise NasError(
            f"The data {wanted.config.data!r} changed since trial {trial.number} was trained."
        )
    architecture = repository.architecture(trial.key)
    weights = wanted.place.weights.load(detail["dense_key"])
    values = dict(trial.values)
    quality = "test_loss" if isinstance(dataset, TextDataset) else "test_accuracy"
    if quality not in values:
        values |= _tested(repository, trial, architecture, weights, dataset, wanted.device)
    module = build(architecture)
    load_weights(module, architecture, weights)
    module = prepare(architecture, module, example_inputs(dataset))
    order = Order(
        form=wanted.form,
        to=wanted.to,
        facts=_facts(wanted, trial, values, detail, dataset),
        preprocessing=_processing(dataset),
        device=wanted.device.torch_name,
    )
    return Truth(
        architecture=architecture,
        module=module.eval(),
        order=order,
        test=dataset.test,
        tokeniser=dataset.tokeniser if isinstance(dataset, TextDataset) else None,
        **{quality: values[quality].value},
        latencies=tuple(_latencies(values)),
        device=wanted.device.torch_name,
        device_note=wanted.device_note,
    )


def _named(device: Device) -> str:
    return f"{device.kind} ({device.name})"


def _tested(
    repository: Repository,
    trial: TrialRecord,
    architecture: Architecture,
    weights: Weights,
    dataset: AnyDataset,
    device: Device,
) -> dict[str, Value]:
    figures = measure_test(architecture, weights, dataset, device=device.torch_name)
    repository.add_values(trial.id, figures)
    return {item.metric: Value(item.value, item.low, item.high) for item in figures}


def _processing(dataset: AnyDataset) -> Processing:
    if isinstance(dataset, TextDataset):
        about = dataset.tokeniser.to_json()
        return TextProcessing(about["kind"], tuple(about["tokens"]), *dataset.input_shape)
    return Preprocessing(dataset.input_shape, dataset.mean, dataset.std, dataset.class_names)


def _facts(
    wanted: Wanted,
    trial: TrialRecord,
    values: Mapping[str, Value],
    detail: Mapping[str, Any],
    dataset: AnyDataset,
) -> Facts:
    return Facts(
        title=f"{wanted.study.name}, network {trial.key[:8]}",
        study=wanted.study.name,
        trial=trial.number,
        figures={
            name: Figure(item.value, item.low, item.high, _unit(name))
            for name, item in sorted(values.items())
        },
        recipe={
            **_recipe(detail),
            **{name: detail[name] for name in _TRAINING if name in detail},
        },
        data={
            "name": without_folders(wanted.config.data),
            "fingerprint": dataset.fingerprint,
            **_contents(dataset),
        },
        conditions={
            name: without_folders(wanted.study.conditions[name])
            for name in _CONDITIONS
            if name in wanted.study.conditions
        },
    )


def _contents(dataset: AnyDataset) -> dict[str, object]:
    splits = dataset.train, dataset.validation, dataset.test
    if isinstance(dataset, TextDataset):
        counts = [len(split.ids) for split in splits if isinstance(split, TextSplit)]
        about: dict[str, object] = {"vocabulary": dataset.classes}
    else:
        counts = [len(split) for split in splits]
        about = {"classes": dataset.classes}
    unit = "tokens" if isinstance(dataset, TextDataset) else "images"
    training, validation, test = counts
    return about | {
        unit: f"{training} for training, {validation} for validation, {test} for the test"
    }


def _recipe(detail: Mapping[str, Any]) -> dict[str, object]:
    """Return how a trial was trained: all settings, where the recipe is still what it was."""
    name, digest = detail.get("recipe"), detail.get("recipe_digest")
    recipe = RECIPES.get(name) if name in RECIPES.names() else None
    if recipe is None or recipe.digest != digest:
        return {"recipe": name, "digest": digest}
    settings = {item: getattr(recipe, item) for item in recipe.__slots__ if item != "name"}
    return {"recipe": name, **{item: _plain(value) for item, value in settings.items()}}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return ", ".join(" ".join(map(str, item)) for item in value) or "none"
    return value


def _unit(name: str) -> str:
    kind = METRICS.get(parse_metric(name, own=True).name)
    return "" if kind is None else kind.unit


def _latencies(values: Mapping[str, Value]) -> Sequence[Latency]:
    found = []
    for name, value in values.items():
        metric = parse_metric(name, own=True)
        if metric.name == "latency_ms":
            figure = Figure(value.value, value.low, value.high, "ms a batch")
            found.append(Latency(name, figure, dict(metric.qualifiers)))
    return found


def without_folders(reference: str) -> str:
    """Return a reference without the folders of this machine: an export must not name them.

    Example:
        >>> without_folders("npz:/home/someone/flowers.npz?train=500"), without_folders("digits")
        ('npz:flowers.npz?train=500', 'digits')
    """
    place, mark, options = reference.partition("?")
    kind, colon, rest = place.partition(":")
    if colon and kind in ("npz", "folder", "text"):
        return f"{kind}:{PurePath(rest).name}{mark}{options}"
    looks_like_path = "/" in place and place.split("/")[-1] and " " not in place
    return f"{PurePath(place).name if looks_like_path else place}{mark}{options}"


def study_device(config: StudyConfig, device: str | None) -> Device:
    """Return the device to measure on: the one named, or that of the study's settings."""
    return detect(device if device is not None else config.device)
