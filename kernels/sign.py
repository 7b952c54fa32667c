"""A sign that a device is being measured on, for the processes that work on it beside.

A lock keeps two measurements apart (:mod:`kernels.exclusive`). This keeps other work from a
measurement: who measures puts up the sign, who works looks at it now and then and stands still
while it is up. Sign and presence are locks of the system, so that the death of their holder, by
kill -9 too, takes them down.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from kernels.device import Device
from kernels.exclusive import device_name, lock_folder

LOOK_SECONDS = 0.1
"""How often who works is to look."""
NOTICE_SECONDS = 0.3
"""How long it takes until all who work have looked, and stand still."""


class Sign:
    """The sign of one device, as one party of a process sees it.

    Args:
        device: the device.
    """

    def __init__(self, device: Device) -> None:
        name = device_name(device)
        self._path = lock_folder() / f"{name}.sign"
        self._present = lock_folder() / f"{name}.present"
        self._own = self._present / f"{os.getpid()}-{uuid4().hex[:8]}"
        self._held: dict[Path, int] = {}

    def put_up(self) -> bool:
        """Say that the device is being measured on; False while somebody else says so."""
        return self._hold(self._path)

    def take_down(self) -> None:
        """Say so no longer."""
        self._drop(self._path)

    @property
    def is_mine(self) -> bool:
        """Whether this party has it up."""
        return self._path in self._held

    def is_up(self) -> bool:
        """Tell whether somebody else has it up."""
        return not self.is_mine and _is_held(self._path)

    def be_present(self) -> None:
        """Say that this party works on the device, and looks at the sign."""
        if self._own not in self._held:
            with suppress(OSError):
                self._present.mkdir(exist_ok=True)
            self._hold(self._own)

    def be_absent(self) -> None:
        """Say that it does no longer."""
        if self._own in self._held:
            self._own.unlink(missing_ok=True)
            self._drop(self._own)

    def others_are_present(self) -> bool:
        """Tell whether another party works on the device."""
        for path in self._present.glob("*"):
            if path != self._own:
                if _is_held(path):
                    return True
                path.unlink(missing_ok=True)  # of one that was killed
        return False

    def close(self) -> None:
        """Take everything down."""
        self.take_down()
        self.be_absent()

    def _hold(self, path: Path) -> bool:
        if path in self._held:
            return True
        file = _lock(path, exclusive=True)
        if file is None:
            return False
        self._held[path] = file
        return True

    def _drop(self, path: Path) -> None:
        file = self._held.pop(path, None)
        if file is not None:
            os.close(file)


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    file = _lock(path, exclusive=False)
    if file is None:
        return True
    os.close(file)
    return False


def _lock(path: Path, *, exclusive: bool) -> int | None:
    """Return an open file with its lock; None where another has it."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system: nobody can say anything
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file
