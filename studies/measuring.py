"""Measuring networks as such: each figure once a workspace, whichever study or command paid for it.

Figures are found, claimed, made and recorded as those of a study's trials are, under the same keys,
so a study that comes later finds them; one that is at the same figure just now is waited for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluators.latency.provenance import provenance
from evaluators.protocol import Evaluator, Measured
from kernels.device import Device
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.space import DataSpec, Space
from studies.evaluation import MEASURES, measuring_evaluator
from studies.executors import Executor, Job, Outbox, Outcome
from studies.heartbeat import LEASE_SECONDS
from studies.measurements import REASON
from studies.metrics import parse_metric
from studies.placement import make_pool
from studies.samplers import Lesson, make_sampler
from studies.storage import Evaluation, Owner, RecordUnreachableError, Repository
from studies.storage.wants import Answer, Want
from studies.supply import CLAIM_POLL_SECONDS, check_kept, check_room, recordable, storable
from studies.workspace import Workspace

_RENEW_SECONDS = LEASE_SECONDS / 6

How = Literal["measured", "stored", "failed"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A figure that was asked for.

    Attributes:
        architecture: the network.
        metric: with its conditions.
        how: ``stored`` where it was in the record, ``measured`` now, or ``failed``.
        figure: the figure; None where it failed.
        reason: why it failed; empty otherwise.
    """

    architecture: Architecture
    metric: str
    how: How
    figure: Measured | None = None
    reason: str = ""

    @property
    def disturbed(self) -> tuple[str, ...]:
        """Why the figure is not to be trusted; such a one is not reused."""
        return () if self.figure is None else tuple(self.figure.detail.get("disturbed") or ())


def measuring_evaluators(
    metrics: Sequence[str], device: Device, *, repeat: int = 1
) -> list[Evaluator]:
    """Return what measures some metrics, each once, in order.

    Raises:
        NasError: a metric is unknown or not one that a device is measured for, or its conditions
            cannot be had there.
    """
    found = {str(metric): metric for metric in map(parse_metric, metrics)}
    for metric in found.values():
        if metric.name not in MEASURES:
            raise NasError(f"{metric} is not measured on a device; what is: {', '.join(MEASURES)}.")
    if not found:
        raise NasError(f"Name a metric to measure: {', '.join(MEASURES)}.")
    return [measuring_evaluator(metric, device, repeat) for metric in found.values()]


def members(space: Space, data: DataSpec, count: int, *, seed: int = 0) -> Iterator[Architecture]:
    """Yield distinct random networks of a space, as a random search of that seed proposes them.

    Fewer come where no more are found.

    Raises:
        NasError: the space rejects everything.
    """
    sampler = make_sampler("random", space, data, directions=["min"], constraints=[], seed=seed)
    seen = set[str]()
    for number in range(count):
        candidate = sampler.ask(number, []).candidate
        key = candidate.architecture.key
        if key in seen:
            return
        seen.add(key)
        sampler.tell(Lesson(number, key, candidate.decisions, None, {}))
        yield candidate.architecture


def measure(
    networks: Iterable[Architecture],
    metrics: Sequence[str],
    workspace: Workspace | Path | str,
    *,
    device: Device,
    repeat: int = 1,
    executor: Executor | None = None,
    on_figure: Callable[[Measurement], None] | None = None,
) -> list[Measurement]:
    """Measure networks, or find what was measured of them before.

    Args:
        networks: taken one after the other, as they are measured; of equal ones the first.
        metrics: in the metric grammar, such as ``latency_ms[batch=8]``.
        workspace: where figures are found and recorded; made where it does not exist.
        device: where to measure.
        repeat: measurements that a figure is the mean of.
        executor: where they run; by default a process of their own.
        on_figure: told of each figure.

    Returns:
        the figures in order, network by network.

    Raises:
        NasError: a metric is none that a device is measured for, or the record cannot be used.
    """
    place = Workspace.of(workspace)
    evaluators = measuring_evaluators(metrics, device, repeat=repeat)
    found: dict[str, list[Measurement]] = {}
    with executor or make_pool(place, device) as running, place.open() as repository:
        measurer = Measurer(place, repository, running, device)
        for architecture in networks:
            if architecture.key in found:
                continue
            of_network = found[architecture.key] = []
            for evaluator in evaluators:
                for item in measurer.measure(architecture, evaluator):
                    of_network.append(item)
                    if on_figure is not None:
                        on_figure(item)
    return [item for of_network in found.values() for item in of_network]


class Measurer:
    """Obtains figures of networks; used by one thread.

    Args:
        place: the workspace; its record is open.
        repository: the record.
        executor: runs evaluations.
        device: where it runs them.
    """

    def __init__(
        self, place: Workspace, repository: Repository, executor: Executor, device: Device
    ) -> None:
        self._root, self._repository, self._executor = place.root, repository, executor
        self._device = device
        self._owner = Owner.here()
        self._store = repository.measurements()
        self._outbox = Outbox(place.root / "outbox")

    def measure(self, architecture: Architecture, evaluator: Evaluator) -> list[Measurement]:
        """Return an evaluator's figures of a network: those in the record, or else new ones.

        Raises:
            NasError: the record refused, or there is no room for a result.
        """
        key = storable(evaluator.cache_key(architecture))
        try:
            answer = self._ask(Want(key, evaluator.metrics))
            if answer.figures is not None:
                return [
                    Measurement(architecture, item.metric, "stored", item)
                    for item in answer.figures
                ]
            outcome = self._outbox.get(key) or self._run(architecture, evaluator, key)
            check_kept(outcome, f"The measurement of {architecture.key[:8]}")
            found = self._keep(architecture, evaluator, key, outcome)
        except BaseException:
            with suppress(NasError):
                self._repository.release_all(self._owner)
            raise
        self._outbox.remove(key)
        return found

    def _ask(self, want: Want) -> Answer:
        """Return what is known, or the right to find it out."""
        while True:
            answer = self._store.ask(want, self._owner, LEASE_SECONDS)
            if answer.granted or answer.figures is not None:
                return answer
            time.sleep(CLAIM_POLL_SECONDS)

    def _run(self, architecture: Architecture, evaluator: Evaluator, key: str) -> Outcome:
        check_room(self._root)
        self._executor.submit(Job(1, evaluator, architecture, key))
        while not (outcomes := self._executor.wait(_RENEW_SECONDS)):
            with suppress(RecordUnreachableError):  # the claim may be lost; the figure is not
                self._repository.renew_claims(self._owner, LEASE_SECONDS)
        return outcomes[0]

    def _keep(
        self, architecture: Architecture, evaluator: Evaluator, key: str, outcome: Outcome
    ) -> list[Measurement]:
        figures = {item.metric: item for item in outcome.measured}
        reason = outcome.reason or _missing(evaluator, figures)
        if not reason:
            evaluation = recordable(evaluator, key, outcome)
            self._record(architecture, evaluation, key)
            return [
                Measurement(architecture, item.metric, "measured", item)
                for item in evaluation.figures
            ]
        first, _, output = reason.partition("\n")
        detail = {REASON: first, "output": output, **provenance(self._device)}
        failed = Evaluation(
            evaluator=type(evaluator).__name__,
            key=None,
            figures=tuple(Measured(name, math.nan, detail=detail) for name in evaluator.metrics),
            started=outcome.started,
            ended=outcome.ended,
            worker=outcome.worker,
        )
        self._record(architecture, failed, key)
        return [
            Measurement(architecture, name, "failed", None, first) for name in evaluator.metrics
        ]

    def _record(self, architecture: Architecture, evaluation: Evaluation, key: str) -> None:
        self._store.keep(architecture, evaluation, claimed=key, owner=self._owner)


def _missing(evaluator: Evaluator, figures: dict[str, Measured]) -> str:
    for name in evaluator.metrics:
        if name not in figures:
            return f"The metric {name} was not given."
        if not math.isfinite(figures[name].value):
            return f"The metric {name} is {figures[name].value}."
    return ""
