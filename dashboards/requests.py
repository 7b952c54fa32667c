"""What the page asked for that takes long, done one after the other, each in its own process.

The dashboard itself only reads. An export, and the measurement of what pays at each layer, are done
by a child that writes to the record as ``nas export`` does and takes the device's lock to measure.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import asdict, dataclass, field
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Literal

from dashboards.process import run_child
from kernels.errors import NasError
from studies.workspace import Workspace

Json = dict[str, Any]
Kind = Literal["export", "variants"]

MOST_WAITING = 20
"""Requests that wait at one time; more are refused."""
_KEPT = 200


@dataclass(slots=True)
class Request:
    """Something that was asked for.

    Attributes:
        id: names it while the dashboard runs.
        kind: ``export``, or ``variants``: measure every way of computing each layer.
        study: whose trial it is about.
        trial: the trial's number.
        to: formats of an export.
        form: of an export, ``plain`` or ``packed``.
        state: ``waiting``, ``running``, ``done`` or ``failed``.
        message: why it failed.
        since: when it came into its state, seconds since 1970.
    """

    id: int
    kind: Kind
    study: str
    trial: int
    to: tuple[str, ...] = ()
    form: str = "plain"
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    message: str = ""
    since: float = field(default_factory=time.time)

    @property
    def open(self) -> bool:
        """Whether it is not over yet."""
        return self.state in ("waiting", "running")


class Requests:
    """The queue of one dashboard; its thread begins with it.

    Args:
        place: the workspace.
    """

    def __init__(self, place: Workspace) -> None:
        self._place = place
        self._lock = Lock()
        self._all: list[Request] = []
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._child: subprocess.Popen[str] | None = None
        self._closed = False
        Thread(target=self._work, name="requests", daemon=True).start()

    def ask(
        self, kind: Kind, study: str, trial: int, to: tuple[str, ...] = (), *, form: str = "plain"
    ) -> Json:
        """Queue a request, or return the open one that is the same.

        Raises:
            NasError: too many wait already.
        """
        with self._lock:
            waiting = [item for item in self._all if item.open]
            for item in waiting:
                asked = (item.kind, item.study, item.trial, item.to, item.form)
                if asked == (kind, study, trial, to, form):
                    return asdict(item)
            if len(waiting) >= MOST_WAITING:
                raise NasError(f"{len(waiting)} requests wait already; try again later.")
            made = Request(len(self._all), kind, study, trial, to, form)
            self._all.append(made)
        self._queue.put(made)
        return asdict(made)

    def listed(self, study: str, trial: int) -> list[Json]:
        """Return the requests about a trial, the newest first, with how many stand before each."""
        with self._lock:
            open_ones = [item.id for item in self._all if item.open]
            return [
                {**asdict(item), "before": sum(number < item.id for number in open_ones)}
                for item in reversed(self._all[-_KEPT:])
                if (item.study, item.trial) == (study, trial)
            ]

    def close(self) -> None:
        """End the child that runs, and begin no other."""
        self._closed = True
        self._queue.put(None)
        running = self._child
        if running is not None and running.poll() is None:
            running.kill()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None and not self._closed:
            self._set(item, "running")
            order = {
                "do": item.kind,
                "root": str(self._place.root),
                "database": self._place.database,
                "study": item.study,
                "trial": item.trial,
                "to": item.to,
                "form": item.form,
            }
            found = run_child(order, self._note)
            self._set(item, "failed" if "error" in found else "done", found.get("error", ""))

    def _note(self, running: subprocess.Popen[str]) -> None:
        self._child = running
        if self._closed:
            running.kill()

    def _set(
        self, item: Request, state: Literal["running", "done", "failed"], message: str = ""
    ) -> None:
        with self._lock:
            item.state, item.message, item.since = state, message, time.time()
