"""Who works on something: a process of a host, told apart from a later one of the same number."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

_ENDED = ("Z", "X", "x")
"""States of a process that only waits for its parent to take note."""


_RETIRED: set[str] = set()
"""Tokens of this process that hold nothing any more, whatever a record says that was full."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A holder of claims and leases.

    Attributes:
        token: unique; two owners of one process are two.
        host: name of its machine; empty where it is no process.
        pid: its process there.
        started: when that process started as the system tells it, so that another process which is
            given the number later is not taken for it; empty where the system does not tell.
    """

    token: str
    host: str
    pid: int
    started: str

    @classmethod
    def here(cls) -> Owner:
        """Return a new owner in this process."""
        pid = os.getpid()
        return cls(uuid4().hex, socket.gethostname(), pid, _started(pid) or "")

    @classmethod
    def of_study(cls, study_id: int) -> Owner:
        """Return the holder of what is done for a study whoever drives it.

        Its claims outlive a driver and are those of the next one, or run out.
        """
        return cls(f"study {study_id}", "", 0, "")

    def retire(self) -> None:
        """Say that it holds nothing any more, though its process lives on."""
        _RETIRED.add(self.token)

    @property
    def dead(self) -> bool:
        """Whether it retired or its process has ended; of another host that is never known."""
        if self.token in _RETIRED:
            return True
        if self.host != socket.gethostname():
            return False
        if self.started:
            return _started(self.pid) != self.started
        return not _exists(self.pid)


def _started(pid: int) -> str | None:
    """Return clock ticks from boot to the start of a process; None if it ended or /proc is absent.

    The name in ``/proc/<pid>/stat``, field 2, may hold blanks and brackets: fields count after it.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in _ENDED else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
