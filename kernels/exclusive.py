"""One measurement at a time on a device, across processes.

The lock is the system's own on an open file, so the death of its holder frees it, kill -9 included.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from kernels.device import Device
from kernels.environment import CACHE_VARIABLE, cache_dir
from kernels.errors import NasError

_POLL_SECONDS = 0.05
_threads: dict[str, threading.RLock] = {}
_held: dict[str, int] = {}
_files: set[int] = set()
_guard = threading.Lock()


@contextmanager
def exclusive(device: Device, *, wait_seconds: float = 600.0) -> Iterator[None]:
    """Hold a device for a measurement; a thread that holds it may enter again.

    Args:
        device: a GPU, known by its UUID, or the CPU of this machine.
        wait_seconds: how long to wait for another holder.

    Raises:
        NasError: another process or thread held the device all that time, and says who; or the
            lock cannot be taken at all, and says why.
    """
    name = device_name(device)
    with _guard:
        lock = _threads.setdefault(name, threading.RLock())
    end = time.monotonic() + wait_seconds
    if not lock.acquire(timeout=wait_seconds):
        raise NasError(f"Another thread has measured on {device} for {wait_seconds:.0f} s.")
    try:
        if _held.get(name):
            _held[name] += 1
            try:
                yield
            finally:
                _held[name] -= 1
            return
        with _locked(lock_folder() / f"{name}.lock", device, end):
            _held[name] = 1
            try:
                yield
            finally:
                _held[name] = 0
    finally:
        lock.release()


def device_name(device: Device) -> str:
    """Return what a device is called in the names of locks."""
    if device.kind == "cpu":
        return "cpu"
    return f"gpu-{device.uuid or device.index}"


def lock_folder() -> Path:
    """Return a folder all processes of this user agree on."""
    for folder in (cache_dir() / "locks", Path(gettempdir()) / f"paretonas-locks-{_user()}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise NasError(f"No folder for locks can be written: neither {cache_dir()} nor {gettempdir()}.")


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"


@contextmanager
def _locked(path: Path, device: Device, end: float) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # no such locks on this system; threads still exclude each other
        yield
        return
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise _no_lock(path, problem) from problem
    _files.add(file)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise NasError(
                        f"{device} is being measured by {_holder(file)}; wait for it, or end it."
                    ) from None
                time.sleep(_POLL_SECONDS)
            except OSError as problem:  # a file system without locks
                raise _no_lock(path, problem) from problem
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} since {time.strftime('%F %T')}".encode(), 0)
        yield
    finally:
        if file in _files:  # a forked child has closed its copy
            _files.discard(file)
            os.close(file)  # gives the lock back


def _no_lock(path: Path, problem: OSError) -> NasError:
    return NasError(
        f"{path} cannot be locked ({problem.strerror}); have {CACHE_VARIABLE} name a folder of "
        "your own on a local disk."
    )


def _holder(file: int) -> str:
    return os.pread(file, 200, 0).decode(errors="replace") or "another process"


def _forget() -> None:
    """A forked child holds nothing: its copy of the file would outlive a killed parent's lock."""
    global _guard
    _guard = threading.Lock()
    for file in _files:
        os.close(file)
    _files.clear()
    _held.clear()
    _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
