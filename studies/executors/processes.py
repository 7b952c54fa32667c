"""What the operating system is asked about worker processes."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

_PROC = Path("/proc")
_PAUSE_SECONDS = 0.0002


def has_proc() -> bool:
    """Tell whether the system shows processes as files, as Linux does."""
    return (_PROC / "self" / "statm").exists()


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory; 0 where it is gone or the system does not show it."""
    try:
        pages = (_PROC / str(pid) / "statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def limit_memory(size: int) -> None:
    """Limit the address space of this process: the rule where resident memory is not shown."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size, most))


def is_stopped(pid: int) -> bool:
    """Tell whether no thread of a process can run: each is stopped or dead.

    Where the system does not show threads the signal is taken to have done its work.
    """
    for stat in (_PROC / str(pid) / "task").glob("*/stat"):
        try:
            state = stat.read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "TtZX":
            return False
    return True


def wait_stopped(pid: int, seconds: float) -> bool:
    """Wait until a process that was sent SIGSTOP stands still; tell whether it did in time.

    A thread in a system call stops only at its end, so the signal alone promises nothing.
    """
    deadline = time.monotonic() + seconds
    while not is_stopped(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def waits_for_lock(pid: int) -> bool:
    """Tell whether a process waits for the lock of a file; False where the system does not say."""
    try:
        locks = (_PROC / "locks").read_text().splitlines()
    except OSError:
        return False
    # Waiters are lines such as "1: -> FLOCK  ADVISORY  WRITE 4711 08:01:131130 0 EOF".
    fields = [line.split() for line in locks]
    return any(field[1] == "->" and field[5] == str(pid) for field in fields)


def signal_group(group: int, number: int) -> None:
    """Send a signal to every process of a group; one that is gone needs none."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
    except PermissionError:
        # What macOS says of a group in which only a zombie is left.
        if sys.platform == "linux":
            raise


def describe_exit(status: int) -> str:
    """Say how a process ended, from its return code as subprocess gives it.

    Example:
        >>> describe_exit(-9), describe_exit(3)
        ('signal 9', 'exit code 3')
    """
    return f"signal {-status}" if status < 0 else f"exit code {status}"


def kill_own_group() -> None:
    """End this process and those it started, at once; only for a leader of its group."""
    os.killpg(os.getpid(), signal.SIGKILL)
