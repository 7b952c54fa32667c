"""What a study is asked to do: one frozen, validated value, from TOML or keyword arguments."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from evaluators.accuracy.recipe_reference import check_name
from evaluators.proxies.fusion import FUSED
from kernels.errors import NasError, UnknownNameError
from studies.metrics import Constraint, Objective, parse_constraint, parse_metric, parse_objective
from studies.samplers import SAMPLERS

_TEXT = {"objectives": ("loss", "latency_ms")}
"""Settings of a study on ``text:PATH`` that differ where they are left out."""

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read a TOML file of settings.

    Raises:
        NasError: it cannot be read.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise NasError(f"Cannot read the settings file {path}: {problem}.") from None


class GateConfig(BaseModel):
    """A stage of the funnel: of the candidates that reach it, the better share goes on.

    Attributes:
        by: metric that the stage judges by, beside the objectives that are known by then; the
            joint rank by the description where only a share is given.
        keep: share of the candidates that goes on, in (0, 1].
        after: candidates that go on unjudged first.
        limit: how many candidates may go on in all; then the study ends.
    """

    model_config = _STRICT

    by: str = FUSED
    keep: float = Field(gt=0, le=1, strict=False)
    after: int = Field(default=10, ge=1)
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        by, _, keep = given.rpartition(":")
        try:
            return {"by": by.strip() or FUSED, "keep": float(keep)}
        except ValueError:
            raise NasError(
                f"Setting 'funnel': write SHARE or METRIC:SHARE, got {given!r}."
            ) from None


class RungConfig(BaseModel):
    """A moment of the training at which the worse candidates are stopped.

    Attributes:
        epoch: after which; below 1, after which share of the epochs.
        keep: share of the candidates that goes on, in (0, 1].
        after: candidates that go on unjudged first.
    """

    model_config = _STRICT

    epoch: float = Field(gt=0, strict=False)
    keep: float = Field(default=1 / 3, gt=0, le=1, strict=False)
    after: int = Field(default=10, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        epoch, colon, keep = given.partition(":")
        try:
            return {"epoch": float(epoch), **({"keep": float(keep)} if colon else {})}
        except ValueError:
            raise NasError(
                f"Setting 'rungs': write EPOCH:SHARE, or {HALVING!r} alone, got {given!r}."
            ) from None

    @field_validator("epoch")
    @classmethod
    def _whole(cls, epoch: float) -> float:
        if epoch >= 1 and not epoch.is_integer():
            raise NasError(
                f"Setting 'rungs': give a whole epoch, or a share below 1, got {epoch:g}."
            )
        return epoch

    def of(self, epochs: int) -> int:
        """Return the epoch, of a training of so many; 0 where a share comes to none."""
        return int(self.epoch if self.epoch >= 1 else self.epoch * epochs)


HALVING = "halving"
"""Instead of rungs: after an eighth, a quarter and half of the epochs the better half goes on."""
_HALVINGS = (0.125, 0.25, 0.5)


class StudyConfig(BaseModel):
    """The settings of a study.

    Attributes:
        name: of the study, unique in its workspace.
        space: name of a search space, or ``path/to/file.py[:name]``.
        from_model: a trained model whose variants are searched, in place of a space:
            ``torchvision:NAME``, ``transformers:FOLDER`` or ``FILE.py:FUNCTION``.
        variants: kinds of variants to search of it, or of a space that asks for some; none named:
            all that something offers.
        data: name of a data set, ``npz:PATH``, ``folder:PATH``, ``text:PATH`` or
            ``FILE.py:FUNCTION``, perhaps with ``?train=5000&validation=1000``.
        objectives: metrics to search for, at least one, in the metric grammar; the batch of a
            latency is part of its name: ``latency_ms[batch=256]``. On a text: ``loss,latency_ms``.
        constraints: bounds that candidates must keep: ``latency_ms<=2.5``.
        funnel: stages that judge candidates before the dearer ones: ``0.5`` keeps the better half
            by the joint rank, ``rf_gain:0.5`` by a metric.
        rungs: stop trainings early: after an epoch, of the candidates that got there, the better
            share goes on, by Pareto rank: ``5:0.5``; ``halving`` alone chooses them.
        control: share of the candidates to be stopped that is trained to the end all the same, to
            see what stopping costs.
        trials: how many candidates to evaluate in full; repeats, failures and those that a
            stage drops do not count.
        candidates: how many candidates to begin in all, but for baselines; None: no limit.
        minutes: wall time of one run, after which no candidate is begun; None: no limit.
        device_minutes: time spent evaluating, over all runs, after which none is begun.
        recipe: how candidates are trained: a name, ``FILE.toml``, or either with changed fields,
            ``short?epochs=5``; ``short`` and ``full`` follow the kind of data.
        repeat: how often each measurement and training is made, each training with a seed of its
            own; the objective is the mean.
        seed: of the search and of every training.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``; None takes a GPU when there is one. Unless a
            number is given, workers train on all GPUs of its model, in turn.
        threads: CPU threads of a training; sums round differently with their number.
        sampler: who proposes candidates; a name, or ``FILE.py:NAME`` of an Optuna sampler.
        workers: processes that train; 0 evaluates in the driver itself. None: one, or on a cluster
            as many as it has room for.
        ray: a Ray cluster to run on, by HOST:PORT; ``local`` starts one on this machine, ``auto``
            takes the one that runs here, else starts one. None: processes of this machine.
        gpus: GPUs of one training on a cluster; a share such as 0.25 lets four have one.
        lookahead: candidates in flight; what is proposed follows from it, not from who is done
            first. None: some for each worker there is when the study begins.
        trial_minutes: limit of one evaluation.
        trial_memory_mb: limit of a worker's memory.
        baselines: networks to compare with, ``torchvision:NAME``.
        enqueue: files of architectures (JSON) to evaluate first.
        evaluators: user evaluators, ``FILE.py:NAME``, ``module:NAME`` or the name of an entry
            point.
        max_repeats: candidates in a row that were met before, after which the space counts as
            exhausted and the study ends.
        max_failures: failed candidates in a row after which the study ends.
        max_drops: candidates in a row that were dropped, after which the study ends.

    Raises:
        NasError: a setting is missing, unknown or wrong; one line that says which.
    """

    model_config = _STRICT

    name: str
    space: str = Field(min_length=1)
    from_model: str | None = Field(default=None, min_length=1)
    variants: tuple[str, ...] = Field(default=(), strict=False)
    data: str = Field(min_length=1)
    objectives: tuple[str, ...] = Field(default=("accuracy", "latency_ms"), strict=False)
    constraints: tuple[str, ...] = Field(default=(), strict=False)
    funnel: tuple[GateConfig, ...] = Field(default=(), strict=False)
    rungs: tuple[RungConfig, ...] = Field(default=(), strict=False)
    control: float = Field(default=0.1, ge=0, le=1, strict=False)
    trials: int = Field(default=20, ge=1)
    candidates: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0, strict=False)
    device_minutes: float | None = Field(default=None, gt=0, strict=False)
    recipe: str = "short"
    repeat: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    device: str | None = None
    threads: int = Field(default=1, ge=1)
    sampler: str = "ehvi"
    workers: int | None = Field(default=None, ge=0)
    ray: str | None = Field(default=None, min_length=1)
    gpus: float = Field(default=1.0, gt=0, strict=False)
    lookahead: int | None = Field(default=None, ge=1)
    trial_minutes: float | None = Field(default=None, gt=0, strict=False)
    trial_memory_mb: int | None = Field(default=None, ge=1)
    baselines: tuple[str, ...] = Field(default=(), strict=False)
    enqueue: tuple[str, ...] = Field(default=(), strict=False)
    evaluators: tuple[str, ...] = Field(default=(), strict=False)
    max_repeats: int = Field(default=50, ge=1)
    max_failures: int = Field(default=20, ge=1)
    max_drops: int = Field(default=1000, ge=1)

    def __init__(self, **settings: Any) -> None:
        for name in settings.keys() - type(self).model_fields.keys():
            raise UnknownNameError("setting", name, type(self).model_fields)
        if settings.get("from_model"):
            variants = f"variants of {settings['from_model']}"
            if settings.setdefault("space", variants) != variants:
                raise NasError("Name a space or a model to begin from, not both.")
        if str(settings.get("data", "")).startswith("text:"):
            settings = {**_TEXT, **settings}
        try:
            super().__init__(**settings)
        except ValidationError as problem:
            errors = problem.errors()  # a wrong name is why another one is missing
            first = next((item for item in errors if item["type"] == "extra_forbidden"), errors[0])
            place = ".".join(map(str, first["loc"]))
            if first["type"] == "extra_forbidden":
                part, unknown = str(first["loc"][0]), str(first["loc"][-1])
                raise UnknownNameError(
                    f"setting of {part}", unknown, GateConfig.model_fields
                ) from None
            came = "" if first["type"] == "missing" else f", got {first['input']!r}"
            raise NasError(f"Setting {place!r}: {first['msg']}{came}.") from None

    @classmethod
    def from_toml(
        cls, path: Path | str, defaults: Mapping[str, Any] | None = None, /, **overrides: Any
    ) -> StudyConfig:
        """Read a TOML file of settings; it wins over defaults, keyword arguments win over it.

        Raises:
            NasError: the file cannot be read, or a setting in it is wrong.
        """
        return cls.from_document(read_toml(path), path, defaults, **overrides)

    @classmethod
    def from_document(
        cls,
        document: Mapping[str, Any],
        path: Path | str,
        defaults: Mapping[str, Any] | None = None,
        /,
        **overrides: Any,
    ) -> StudyConfig:
        """Take the settings of a TOML file that was read; see :meth:`from_toml`.

        Raises:
            NasError: a setting is wrong; names the file.
        """
        try:
            return cls(**{**(defaults or {}), **document, **overrides})
        except NasError as problem:
            raise NasError(f"{path}: {problem}") from None

    @model_validator(mode="before")
    @classmethod
    def _halving(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and settings.get("rungs") in (HALVING, (HALVING,), [HALVING]):
            return {**settings, "rungs": [{"epoch": item, "keep": 0.5} for item in _HALVINGS]}
        return settings

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise NasError(f"Setting 'name': use letters, digits, '.', '_' and '-', got {name!r}.")
        return name

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        found = [parse_objective(text) for text in texts]
        if not found or len({item.metric for item in found}) != len(found):
            raise NasError(
                f"Setting 'objectives': name at least one metric, each once, got {list(texts)}."
            )
        return tuple(map(str, found))

    @field_validator("recipe")
    @classmethod
    def _known_recipe(cls, name: str) -> str:
        check_name(name)
        return name

    @field_validator("sampler")
    @classmethod
    def _known_sampler(cls, name: str) -> str:
        if name not in SAMPLERS and ":" not in name:
            raise UnknownNameError("sampler", name, SAMPLERS)
        return name

    @model_validator(mode="after")
    def _known_metrics(self) -> StudyConfig:
        if self.ray is not None and self.workers == 0:
            raise NasError("Setting 'workers': a cluster needs at least one, or leave it out.")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise NasError(f"Setting 'gpus': whole GPUs or a share of one, got {self.gpus:g}.")
        epochs = [rung.epoch for rung in self.rungs]
        if epochs != sorted(set(epochs)):
            raise NasError(f"Setting 'rungs': name epochs in order, each once, got {epochs}.")
        for text in self.constraints:
            parse_constraint(text, own=self.has_own_metrics)
        for gate in self.funnel:
            parse_metric(gate.by, own=self.has_own_metrics)
        return self

    @property
    def has_own_metrics(self) -> bool:
        """Whether metrics that the tool does not know may be given by a user's evaluator."""
        return bool(self.evaluators) or any(item.metric.kind is None for item in self.targets)

    @property
    def targets(self) -> tuple[Objective, ...]:
        """The objectives with their directions."""
        return tuple(parse_objective(text) for text in self.objectives)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the objectives' metrics, as figures are recorded under."""
        return tuple(str(item.metric) for item in self.targets)

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        """The constraints."""
        return tuple(parse_constraint(text, own=True) for text in self.constraints)

    def to_json(self) -> dict[str, Any]:
        """Return all settings as plain JSON values; ``StudyConfig(**...)`` reads them back."""
        return self.model_dump(mode="json")
