"""Timing on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter_ns

from kernels._timing.runner import Block, Call, describe_cache
from kernels._timing.values import TimingPolicy

_UNKNOWN_CACHE_BYTES = 64 << 20
_MAX_FLUSH_BYTES = 1 << 30
_CACHES = Path("/sys/devices/system/cpu")


class CpuRunner:
    """Times calls with the monotonic clock.

    Args:
        functions: called in turn.
        policy: how to time.
    """

    calls_per_repeat = 1

    def __init__(self, functions: Sequence[Call], policy: TimingPolicy) -> None:
        flush_bytes = 0
        if policy.cache == "cold" and len(functions) == 1:
            flush_bytes = min(2 * last_level_cache_bytes(), _MAX_FLUSH_BYTES)
        self.calls = 0
        self.repeatable = flush_bytes == 0
        self.cache_policy = describe_cache(policy.cache, functions, flush_bytes)
        self._flush = _flusher(flush_bytes) if flush_bytes else None
        self._turn: Iterator[Call] = cycle(functions)
        self._turn_length = len(functions)

    def block(self, samples: int, repeats: int) -> Block:
        """Take samples of ``repeats`` calls each, after one untimed turn."""
        for call in islice(self._turn, self._turn_length):
            call()
        self.calls += self._turn_length + samples * repeats
        return Block([self._sample_us(repeats) for _ in range(samples)], starved=0)

    def renew(self, move: Call) -> None:
        """See :class:`kernels._timing.runner.Runner`."""
        move()

    def _sample_us(self, repeats: int) -> float:
        calls = list(islice(self._turn, repeats))
        if self._flush is not None:
            self._flush()
        begin = perf_counter_ns()
        for call in calls:
            call()
        return (perf_counter_ns() - begin) / 1e3


def _flusher(size_bytes: int) -> Call:
    import torch

    buffer = torch.zeros(size_bytes // 4, dtype=torch.int32)
    return lambda: buffer.add_(1)


def last_level_cache_bytes(root: Path = _CACHES) -> int:
    """Return the size of all last-level caches this process can use; 64 MiB where unknown.

    Args:
        root: where the kernel describes the processors.
    """
    found: dict[tuple[int, str], int] = {}
    for cpu in _usable_cpus():
        for index in root.glob(f"cpu{cpu}/cache/index*"):
            try:
                level = int((index / "level").read_text())
                shared_by = (index / "shared_cpu_list").read_text().strip()
                size_kib = int((index / "size").read_text().strip().removesuffix("K"))
            except (OSError, ValueError):
                continue
            found[level, shared_by] = size_kib << 10
    last = max((level for level, _ in found), default=0)
    total = sum(size for (level, _), size in found.items() if level == last)
    return total or _UNKNOWN_CACHE_BYTES


def _usable_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
