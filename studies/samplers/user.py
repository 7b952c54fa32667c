"""Samplers of the user: any ``optuna.samplers.BaseSampler`` in a module or a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.trial import FrozenTrial

from kernels.errors import NasError
from kernels.references import load_reference
from search_spaces.choose import Decider, Option, Rejected
from search_spaces.space import Candidate
from studies.samplers.encoding import Encoding
from studies.samplers.guided import Guided, Problem


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

    def run(self, decider: Decider) -> Candidate:
        """See :class:`~studies.samplers.guided.Guided`."""
        return super().run(_Guarded(decider, self._failed))

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
    found = load_reference(reference, "sampler")
    if not callable(found):
        raise NasError(
            f"{reference} is no sampler; name a class, or a function that makes one of seed=."
        )
    return found  # type: ignore[no-any-return]


class _Guarded:
    """Tells a sampler's own errors from those of a space."""

    def __init__(self, decider: Decider, failed: Callable[[Exception], NasError]) -> None:
        self._decider, self._failed = decider, failed

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`search_spaces.choose.Decider`."""
        try:
            return self._decider.decide(name, options)
        except (Rejected, NasError):
            raise
        except Exception as problem:
            raise self._failed(problem) from problem
