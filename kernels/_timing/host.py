"""The state of the process while it times: threads, processors, garbage collection."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from kernels._timing.values import TimingPolicy
from kernels.errors import NasError


@contextmanager
def host_state(policy: TimingPolicy) -> Iterator[int]:
    """Set threads and processors as the policy asks, and restore them.

    Yields:
        torch's number of CPU threads in force.
    """
    import torch

    with ExitStack() as stack:
        if policy.threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(policy.threads)
        if policy.cpus is not None:
            stack.enter_context(_pinned(policy.cpus))
        yield torch.get_num_threads()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from running inside a sample."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _pinned(cpus: tuple[int, ...]) -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity"):
        raise NasError("This system cannot pin a process to processors. Leave `cpus` at None.")
    caller = os.sched_getaffinity(0)
    if not set(cpus) <= caller:
        raise NasError(f"This process may use the processors {sorted(caller)}. Got {cpus=}.")
    # NOTE: affinity belongs to a thread: torch's workers that exist keep theirs unless set too,
    # and those that start meanwhile inherit ours and would keep it after we leave.
    before = _affinities()
    try:
        for thread in before:
            _set_affinity(thread, set(cpus))
        yield
    finally:
        for thread in _affinities():
            _set_affinity(thread, before.get(thread, caller))


def _affinities() -> dict[int, set[int]]:
    """Return the processors of each thread of this process."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # the thread ended
            found[int(task.name)] = os.sched_getaffinity(int(task.name))
    return found


def _set_affinity(thread: int, cpus: set[int]) -> None:
    with suppress(ProcessLookupError):
        os.sched_setaffinity(thread, cpus)
