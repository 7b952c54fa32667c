"""Evaluators that users bring: a function of a built network, or an object that is one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from torch import nn

from evaluators.accuracy.data import AnyDataset
from evaluators.accuracy.evaluator import Start
from evaluators.accuracy.initialise import initialise
from evaluators.accuracy.packed import packed
from evaluators.protocol import EvaluationError, Evaluator, Measured, Slot
from kernels.errors import NasError
from kernels.references import load_reference
from search_spaces.architecture import Architecture
from search_spaces.build import build

ENTRY_POINTS = "paretonas.evaluators"
"""The entry-point group under which other distributions offer evaluators."""

OwnFunction = Callable[[nn.Module, AnyDataset], Mapping[str, float] | float]
"""Takes a fresh network and the data; returns a figure, or figures by metric name."""


@dataclass(frozen=True)
class FunctionEvaluator:
    """Evaluates a fresh network, or a variant of a trained model, by a user's function.

    Its results are reused as long as the function's source, data and seed are the same; those of
    a function without source text never are.

    Attributes:
        function: what the user wrote.
        dataset: handed to it.
        metrics: names of what it returns.
        seed: of the initial weights.
        reference: how another process finds the function; None: it is sent as it is.
        start: weights that the network begins from, in place of fresh ones.
    """

    function: OwnFunction
    dataset: AnyDataset
    metrics: tuple[str, ...]
    seed: int
    reference: str | None = None
    start: Start | None = None
    slot: Slot = "training"

    def __reduce__(self) -> tuple[Callable[..., Evaluator], tuple[Any, ...]]:
        settings = (self.dataset, self.metrics, self.seed)
        if self.reference is None:
            return FunctionEvaluator, (self.function, *settings, None, self.start)
        return _function_evaluator, (self.reference, *settings, self.start)

    def cache_key(self, architecture: Architecture) -> str:
        """See :class:`evaluators.protocol.Evaluator`."""
        try:
            source = inspect.getsource(inspect.unwrap(self.function))
        except (OSError, TypeError):
            return ""
        parts = [source, architecture.key, self.dataset.fingerprint, str(self.seed)]
        parts += [] if self.start is None else [self.start.digest]
        return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Build, initialise by seed, have variants run on their kernels, and call the function.

        Raises:
            EvaluationError: it returned something else than the figures it should.
        """
        module = build(architecture)
        if self.start is None:
            initialise(module, self.seed)
        else:
            self.start.give(module, architecture)
        module = packed(architecture, module, self.dataset)
        found: Any = self.function(module, self.dataset)
        if not isinstance(found, Mapping):
            found = {self.metrics[0]: found} if len(self.metrics) == 1 else {}
        missing = [name for name in self.metrics if name not in found]
        if missing:
            raise EvaluationError(f"The evaluator returned no {', '.join(missing)}.")
        try:
            values = {name: float(found[name]) for name in self.metrics}
        except (TypeError, ValueError) as problem:
            raise EvaluationError(f"The evaluator returned no number: {problem}.") from None
        for name, value in values.items():
            if not math.isfinite(value):
                raise EvaluationError(f"The evaluator returned {value} for {name}.")
        return [Measured(name, value) for name, value in values.items()]


def _function_evaluator(
    reference: str,
    dataset: AnyDataset,
    metrics: tuple[str, ...],
    seed: int,
    start: Start | None = None,
) -> FunctionEvaluator:
    return FunctionEvaluator(_load(reference), dataset, metrics, seed, reference, start)


class ReferredEvaluator:
    """A user's evaluator object, which other processes find by its reference.

    Args:
        reference: as :func:`load_own_evaluator` takes it.

    Raises:
        NasError: it cannot be loaded or made.
    """

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._evaluator = _made(reference, _load(reference))

    def __reduce__(self) -> tuple[type[ReferredEvaluator], tuple[str]]:
        return ReferredEvaluator, (self._reference,)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of the user's evaluator."""
        return tuple(self._evaluator.metrics)

    @property
    def slot(self) -> Slot:
        """That of the user's evaluator."""
        return self._evaluator.slot

    def cache_key(self, architecture: Architecture) -> str:
        """See :class:`evaluators.protocol.Evaluator`."""
        return self._evaluator.cache_key(architecture)

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """See :class:`evaluators.protocol.Evaluator`."""
        return self._evaluator.evaluate(architecture)


def load_own_evaluators(
    references: Sequence[str],
    dataset: AnyDataset,
    *,
    metrics: tuple[str, ...],
    seed: int,
    start: Start | None = None,
) -> list[Evaluator]:
    """Return a user's evaluators.

    Args:
        references: as :func:`load_own_evaluator` takes them.
        dataset: for functions.
        metrics: names of the user's metrics. Objects say which of them they give; one function
            gives the others; of several functions each gives the metric that has its name.
        seed: for functions.
        start: for functions: weights that networks begin from.

    Raises:
        NasError: one cannot be loaded, or is no evaluator.
    """
    objects = [name for name in references if _is_evaluator(_load(name))]
    functions = [name for name in references if name not in objects]
    found: dict[str, Evaluator] = {name: ReferredEvaluator(name) for name in objects}
    given = {metric for evaluator in found.values() for metric in evaluator.metrics}
    left = tuple(metric for metric in metrics if metric not in given)
    for name in functions:
        own = name.rpartition(":")[2]
        mine = left if len(functions) == 1 else tuple(item for item in left if item == own)
        found[name] = load_own_evaluator(name, dataset, metrics=mine, seed=seed, start=start)
    return [found[name] for name in references]


def load_own_evaluator(
    reference: str,
    dataset: AnyDataset,
    *,
    metrics: tuple[str, ...],
    seed: int,
    start: Start | None = None,
) -> Evaluator:
    """Return a user's evaluator.

    Args:
        reference: ``FILE.py:NAME``, ``module:NAME`` or the name of an entry point; it names a
            function ``(model, data) -> figures`` or an object of the evaluators' protocol.
        dataset: for a function.
        metrics: names of the figures that a function returns.
        seed: for a function.
        start: for a function: weights that networks begin from.

    Raises:
        NasError: it cannot be loaded, or is no evaluator.
    """
    found = _load(reference)
    if _is_evaluator(found):
        return ReferredEvaluator(reference)
    if not callable(found):
        raise NasError(f"{reference} is neither a function nor an evaluator.")
    if not metrics:
        raise NasError(
            f"What does {reference} return? Name it as an objective: --objectives NAME:min,...; "
            "of several functions each gives the metric of its own name."
        )
    return FunctionEvaluator(found, dataset, metrics, seed, reference, start)


def _is_evaluator(found: object) -> bool:
    return all(hasattr(found, name) for name in ("metrics", "slot", "cache_key", "evaluate"))


def _made(reference: str, found: Any) -> Evaluator:
    if not isinstance(found, type):
        made: Evaluator = found
        return made
    try:
        made = found()
    except Exception as problem:  # the class is a user's
        why = " ".join(str(problem).split())
        raise NasError(
            f"The evaluator {reference} cannot be made: {type(problem).__name__}: {why}"
        ) from problem
    return made


def _load(reference: str) -> Any:
    return load_reference(reference, "evaluator", group=ENTRY_POINTS)
