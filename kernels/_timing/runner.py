"""What can be timed, and what a device must do to time it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kernels._timing.values import Cache

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Movable:
    """A function that is timed with its data at another place in memory every round.

    Where the weights of a small network lie changes its time on a GPU by up to several percent,
    and stays as it is for the life of a process.

    Attributes:
        call: the function.
        move: puts what the function reads elsewhere.
    """

    call: Call
    move: Call


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

    def renew(self, move: Call) -> None:
        """Move what the function reads; a graph is captured anew."""
        ...


def describe_cache(cache: Cache, functions: Sequence[Call], flush_bytes: int) -> str:
    """Return the cache policy in words; ``flush_bytes`` is 0 where nothing is rewritten."""
    if len(functions) > 1:
        return f"{cache}: {len(functions)} buffer sets in turn"
    if flush_bytes:
        return f"cold: {flush_bytes >> 20} MiB rewritten before each call, not timed"
    return "warm: the same buffers in each call"
