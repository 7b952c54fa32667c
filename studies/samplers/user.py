"""Samplers of the user: any ``optuna.samplers.BaseSampler`` in a module or a file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.trial import FrozenTrial

from kernels.errors import NasError, UnknownNameError
from search_spaces.choose import Rejected
from search_spaces.space import Candidate
from studies.samplers.encoding import Encoding
from studies.samplers.guided import Guided, Problem
from studies.samplers.questions import NotingDecider


class UserModel(Guided):
    """A user's sampler; it is made anew for every ask, with the seed of the ask.

    What it wants to remember from ask to ask it must take from the trials, as Optuna's do.

    Args:
        reference: ``module:Name`` or ``path/to/file.py:Name``.
        problem: what is searched.

    Raises:
        NasError: it cannot be loaded or made.
    """

    def __init__(self, reference: str, problem: Problem) -> None:
        super().__init__(reference, problem)
        self._make = _load(reference)
        self._made(problem.seed)

    def fresh(self, seed: int, encoding: Encoding, trials: Sequence[FrozenTrial]) -> BaseSampler:
        """See :class:`~studies.samplers.guided.Guided`."""
        return self._made(seed)

    def ask(self, study: optuna.Study) -> optuna.Trial:
        """See :class:`~studies.samplers.guided.Guided`."""
        try:
            return super().ask(study)
        except Exception as problem:
            raise self._failed(problem) from problem

    def run(self, decider: NotingDecider) -> Candidate:
        """See :class:`~studies.samplers.guided.Guided`."""
        try:
            return super().run(decider)
        except (Rejected, NasError):
            raise
        except Exception as problem:
            raise self._failed(problem) from problem

    def _made(self, seed: int) -> BaseSampler:
        try:
            sampler = self._make(seed=seed)
        except Exception as problem:
            raise self._failed(problem) from problem
        if not isinstance(sampler, BaseSampler):
            raise NasError(
                f"{self.kind}(seed=...) gives {type(sampler).__name__}; it must give an "
                "optuna.samplers.BaseSampler."
            )
        if isinstance(sampler, BaseGASampler):
            raise NasError(
                f"{self.kind} counts generations of all trials, and a study shows its sampler only "
                "the newest and the front. Use 'nsga2', 'nsga3' or 'evolution'."
            )
        return sampler

    def _failed(self, problem: Exception) -> NasError:
        why = " ".join(str(problem).split())
        return NasError(f"The sampler {self.kind} failed: {type(problem).__name__}: {why}")


def _load(reference: str) -> Callable[..., Any]:
    place, _, name = reference.rpartition(":")
    try:
        module = (
            _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        )
    except (Exception, SystemExit) as problem:
        why = " ".join(str(problem).split())
        raise NasError(
            f"The sampler {reference!r} cannot be loaded: {type(problem).__name__}: {why} "
            "Write module:Name or path/to/file.py:Name."
        ) from problem
    found = getattr(module, name, None)
    if found is None:
        raise UnknownNameError(f"sampler in {place}", name, _samplers_in(module))
    if not callable(found):
        raise NasError(
            f"{reference} is no sampler; name a class, or a function that makes one of seed=."
        )
    return found  # type: ignore[no-any-return]


def _from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_sampler_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise NasError(f"there is no file {path}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses in the file look their module up
    spec.loader.exec_module(module)
    return module


def _samplers_in(module: ModuleType) -> list[str]:
    return [
        name
        for name, item in vars(module).items()
        if isinstance(item, type) and issubclass(item, BaseSampler)
    ]
