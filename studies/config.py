"""What a study is asked to do: one frozen, validated value, from TOML or keyword arguments."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from evaluators.accuracy.recipe import get_recipe
from kernels.errors import NasError, UnknownNameError
from studies.metrics import Objective, parse_objective

SamplerName = Literal["tpe", "random", "nsga2"]


class StudyConfig(BaseModel):
    """The settings of a study.

    Attributes:
        name: of the study, unique in its workspace.
        space: name of a search space, or ``path/to/file.py[:name]``.
        data: name of a data set, or ``npz:PATH``.
        objectives: metrics to search for, at least one, in the metric grammar; the batch of a
            latency is part of its name: ``latency_ms[batch=256]``.
        trials: how many candidates to evaluate in full; repeats and failures do not count.
        recipe: how candidates are trained.
        seed: of the search and of every training.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``; None takes a GPU when there is one.
        threads: CPU threads of a training; sums round differently with their number.
        sampler: who proposes candidates.
        max_repeats: candidates in a row that were met before, after which the space counts as
            exhausted and the study ends.
        max_failures: failed candidates in a row after which the study ends.

    Raises:
        NasError: a setting is missing, unknown or wrong; one line that says which.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    space: str = Field(min_length=1)
    data: str = Field(min_length=1)
    objectives: tuple[str, ...] = Field(default=("accuracy", "latency_ms"), strict=False)
    trials: int = Field(default=20, ge=1)
    recipe: str = "digits-short"
    seed: int = Field(default=0, ge=0, lt=2**31)
    device: str | None = None
    threads: int = Field(default=1, ge=1)
    sampler: SamplerName = "tpe"
    max_repeats: int = Field(default=50, ge=1)
    max_failures: int = Field(default=20, ge=1)

    def __init__(self, **settings: Any) -> None:
        for name in settings.keys() - type(self).model_fields.keys():
            raise UnknownNameError("setting", name, type(self).model_fields)
        try:
            super().__init__(**settings)
        except ValidationError as problem:
            first = problem.errors()[0]
            place = ".".join(map(str, first["loc"]))
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
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise NasError(f"Cannot read the settings file {path}: {problem}.") from None
        try:
            return cls(**{**(defaults or {}), **settings, **overrides})
        except NasError as problem:
            raise NasError(f"{path}: {problem}") from None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise NasError(f"Setting 'name': use letters, digits, '.', '_' and '-', got {name!r}.")
        return name

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(str(parse_objective(text).metric) for text in texts)
        if not names or len(set(names)) != len(names):
            raise NasError(
                f"Setting 'objectives': name at least one metric, each once, got {list(texts)}."
            )
        return names

    @field_validator("recipe")
    @classmethod
    def _known_recipe(cls, name: str) -> str:
        get_recipe(name)
        return name

    @field_validator("sampler", mode="before")
    @classmethod
    def _known_sampler(cls, name: object) -> object:
        if isinstance(name, str) and name not in get_args(SamplerName):
            raise UnknownNameError("sampler", name, get_args(SamplerName))
        return name

    @property
    def targets(self) -> tuple[Objective, ...]:
        """The objectives with their directions."""
        return tuple(parse_objective(text) for text in self.objectives)

    def to_json(self) -> dict[str, Any]:
        """Return all settings as plain JSON values; ``StudyConfig(**...)`` reads them back."""
        return self.model_dump(mode="json")
