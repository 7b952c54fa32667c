"""What can be timed, and what a device must do to time it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from kernels._timing.values import Cache

Call = Callable[[], object]


class Block(NamedTuple):
    """Samples taken in one go.

    Attributes:
        samples_us: total microseconds of each sample.
        starved: samples in which the device may have waited for the host.
    """

    samples_us: list[float]
    starved: int


class Runner(Protocol):
    """One function made ready on one device.

    Attributes:
        calls_per_repeat: calls of the function in one repeat.
        repeatable: whether a sample may hold several repeats.
        cache_policy: what is done about the cache, in words.
        calls: calls of the function made so far, timed or not.
    """

    @property
    def calls_per_repeat(self) -> int: ...

    @property
    def repeatable(self) -> bool: ...

    @property
    def cache_policy(self) -> str: ...

    @property
    def calls(self) -> int: ...

    def block(self, samples: int, repeats: int) -> Block:
        """Take samples of ``repeats`` repeats each, after one untimed turn of the function."""
        ...


def describe_cache(cache: Cache, functions: Sequence[Call], flush_bytes: int) -> str:
    """Return the cache policy in words; ``flush_bytes`` is 0 where nothing is rewritten."""
    if len(functions) > 1:
        return f"{cache}: {len(functions)} buffer sets in turn"
    if flush_bytes:
        return f"cold: {flush_bytes >> 20} MiB rewritten before each call, not timed"
    return "warm: the same buffers in each call"
