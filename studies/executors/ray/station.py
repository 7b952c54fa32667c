"""A place of work on a node of a cluster: one worker process, and whom it works for.

It is an actor, and outlives its driver: what it is at when that dies is done, and kept for the next
driver. One that hears of no driver for some minutes ends.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any

from evaluators.protocol import Slot
from kernels.device import Device
from kernels.environment import visible_gpus
from kernels.shared_arrays import Arrays, once, publish
from studies.executors.files import unpack
from studies.executors.marker import marker
from studies.executors.outbox import Outbox
from studies.executors.pool import PoolExecutor
from studies.executors.protocol import File, Job, Limits, Outcome

_WAIT_SECONDS = 1.0
_LOOK_SECONDS = 2.0
_PATIENCE = 6
"""How many times longer one that is at work waits for a driver."""


@dataclass(frozen=True, slots=True)
class StationSettings:
    """What all stations of a study are made with; equal ones are as good as new.

    Attributes:
        root: folder of the workspace, as the driver calls it.
        identity: content of the marker there.
        path: where the driver finds modules.
        threads: CPU threads of a worker.
        limits: of each job.
        attempts: how often a job whose worker process died is begun.
        gpus: whether workers may see the GPUs that are assigned to the station.
        device: that trainings and measurements of a node share; None where each has its own.
        silence: seconds without a word of a driver after which it ends.
        release: version of this project.
    """

    root: str
    identity: str
    path: tuple[str, ...]
    threads: int
    limits: Limits
    attempts: int
    gpus: bool
    device: Device | None
    silence: float
    release: str


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a station says of itself.

    Attributes:
        name: ``host:pid`` of its process.
        node: name of its machine.
        device: what is assigned to it.
        shared: whether it shares the folder of the workspace.
        key: of the job it is at; None where there is none, or the job has none.
    """

    name: str
    node: str
    device: str
    shared: bool
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Luggage:
    """Arrays that each machine is to have once; see :func:`kernels.shared_arrays.publish`."""

    name: str
    about: Mapping[str, Any]
    arrays: Arrays


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job as it travels.

    Attributes:
        slot: of its evaluator.
        digest: names the evaluator.
        architecture: pickled.
        key: cache key, or empty.
        attempts: how often it was given to a station, this time included.
        luggage: names of the arrays that its machine must have.
        files: of the workspace that it goes on from, for a station that does not share it.
    """

    slot: Slot
    digest: str
    architecture: bytes
    key: str
    attempts: int
    luggage: tuple[str, ...] = ()
    files: tuple[File, ...] = ()


class Packed:
    """Something pickled that stays so until it is unpickled in a worker process."""

    def __init__(self, content: bytes, slot: Slot = "training") -> None:
        self.content, self.slot = content, slot

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return pickle.loads, (self.content,)


class Station:
    """One worker process of a study, held by an actor.

    Args:
        settings: of all stations of the study.
        slot: what it does.
        device: what is assigned to it, in words.
        fetch: gets what lies in the cluster's store by what a driver sent of it.
    """

    def __init__(
        self, settings: StationSettings, slot: Slot, device: str, fetch: Callable[[Any], Any]
    ) -> None:
        self._settings, self._fetch = settings, fetch
        root = Path(settings.root)
        shared = marker(root) == settings.identity
        gpus = visible_gpus() if settings.gpus else ""
        self._greeting = Greeting(
            name=f"{socket.gethostname()}:{os.getpid()}",
            node=socket.gethostname(),
            device=f"{device} {gpus}" if gpus else device,
            shared=shared,
        )
        self._pool = PoolExecutor(
            1,
            limits=settings.limits,
            outbox=Outbox(root / "outbox") if shared else None,
            attempts=settings.attempts,
            threads=settings.threads,
            gpus=settings.gpus,
            path=[*sys.path, *(item for item in settings.path if _is_missing(item))],
            send_from=None if shared else settings.root,
            device=settings.device,
        )
        self._evaluators: dict[str, Packed] = {}
        self._slot = slot
        self._changed = Condition()
        self._assigned: SimpleQueue[Assignment] = SimpleQueue()
        self._at: Assignment | None = None
        self._outcome: Outcome | None = None
        self._heard = self._done = time.monotonic()
        # A worker process dies with the thread that started it: this one lives as the actor does.
        Thread(target=self._work, name="work", daemon=True).start()
        Thread(target=self._watch, name="watch", daemon=True).start()

    def greet(self, settings: StationSettings | None = None) -> Greeting | None:
        """Say who this is and what it is at; None where it was made with other settings."""
        self._heard = time.monotonic()
        if settings is not None and settings != self._settings:
            return None
        with self._changed:
            return replace(self._greeting, key=None if self._at is None else self._at.key)

    def run(
        self, assignment: Assignment, evaluator: Sequence[Any], luggage: Sequence[Any]
    ) -> Outcome:
        """Do a job; what was left of an earlier one is forgotten.

        Args:
            assignment: the job.
            evaluator: where its evaluator lies in the cluster's store, alone in a list.
            luggage: where the arrays lie, in the order of their names.
        """
        self._heard = time.monotonic()
        if assignment.digest not in self._evaluators:
            content = self._fetch(evaluator[0])
            self._evaluators[assignment.digest] = Packed(content, assignment.slot)
        for name, where in zip(assignment.luggage, luggage, strict=True):
            once(name, partial(self._unload, where))
        unpack(Path(self._settings.root), assignment.files)
        with self._changed:
            self._at, self._outcome = assignment, None
        self._assigned.put(assignment)
        return self.outcome()

    def outcome(self) -> Outcome:
        """Return what came of the job it is at, or was at last, when it is done."""
        with self._changed:
            while self._outcome is None:
                self._changed.wait()
            self._heard = time.monotonic()
            return self._outcome

    def leave(self) -> None:
        """End the actor, and what it is at."""
        self.close()
        os._exit(0)

    def close(self) -> None:
        """End the worker process, and put its files in order."""
        self._pool.close()

    def _unload(self, where: Any) -> None:
        found: Luggage = self._fetch(where)
        publish(found.name, found.about, found.arrays)

    def _work(self) -> None:
        while True:
            assignment = self._assigned.get()
            outcome = self._do(assignment)
            with self._changed:
                self._done = time.monotonic()
                self._outcome = replace(
                    outcome, attempts=outcome.attempts + assignment.attempts - 1
                )
                self._changed.notify_all()

    def _do(self, assignment: Assignment) -> Outcome:
        packed: Any = self._evaluators[assignment.digest]
        network: Any = Packed(assignment.architecture)
        self._pool.submit(Job(1, packed, network, assignment.key))
        while True:
            for outcome in self._pool.wait(_WAIT_SECONDS):
                return outcome

    def _watch(self) -> None:
        """End the actor when nobody is there to work for."""
        while True:
            time.sleep(_LOOK_SECONDS)
            with self._changed:
                busy = self._at is not None and self._outcome is None
                quiet = time.monotonic() - max(self._heard, 0.0 if busy else self._done)
            if quiet > self._settings.silence * (_PATIENCE if busy else 1):
                Station.leave(self)


def _is_missing(item: str) -> bool:
    return item not in sys.path and Path(item).is_dir()
