"""The one timer of the project: CPU and GPU, every sample kept.

Functions are warmed up until stable, then visited round by round in a shuffled order, so that a
drift of clocks or temperature hits all alike. Clocks are never set. Report the median, not the
mean, and compare only functions that were timed in one call.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from kernels._timing.cpu import CpuRunner
from kernels._timing.cuda import CudaRunner, CudaSession, capture
from kernels._timing.host import collector_paused, host_state
from kernels._timing.runner import Block, Call, Movable, Runner
from kernels._timing.values import CALLS_PER_GRAPH, JsonValue, Queue, Timing, TimingPolicy
from kernels.errors import NasError

__all__ = [
    "CALLS_PER_GRAPH",
    "COLD_BYTES",
    "Call",
    "JsonValue",
    "Movable",
    "NamedDevice",
    "RoundObserver",
    "Timing",
    "TimingPolicy",
    "captured",
    "cold_sets",
    "run_for",
    "time_callable",
    "time_interleaved",
]

COLD_BYTES = 160_000_000
"""Bytes that rotated buffers must span for a cold L2: 50 MB on an H100, 126 MB on a B200."""

_GROWTH = 16  # at most, from one warm-up window to the next: the first samples mislead
_MAX_REPEATS = 1 << 20
_BATCH_SECONDS = 0.1
_DEFAULT_POLICY = TimingPolicy()


class NamedDevice(Protocol):
    """A device that torch can be told, such as ``kernels.device.Device``."""

    @property
    def torch_name(self) -> str:
        """What ``torch.device`` takes, such as ``"cuda:0"``."""


class RoundObserver(Protocol):
    """Watches the rounds from outside the samples, and may ask for more of them."""

    def before(self, index: int) -> None:
        """Be told that a round begins."""

    def after(self, index: int, samples_us: Mapping[str, Sequence[float]]) -> None:
        """Be told that a round has ended, with its samples in microseconds per call by name."""

    def repeats(self) -> int:
        """Return how many of the rounds so far do not count and should be taken again."""


def cold_sets(set_bytes: int, *, total_bytes: int = COLD_BYTES) -> int:
    """Return how many buffer sets a function must rotate over to find its data out of the cache.

    Args:
        set_bytes: bytes one call reads and writes; outputs that a call allocates inside a graph
            do not count, as all calls get the same ones.
        total_bytes: what the sets must exceed together.

    Example:
        >>> cold_sets(100_000_000)
        2
    """
    return max(2, total_bytes // max(1, set_bytes) + 1)


def time_callable(
    function: Call | Sequence[Call] | Movable,
    *,
    device: str | NamedDevice = "cpu",
    policy: TimingPolicy = _DEFAULT_POLICY,
) -> Timing:
    """Time one function; to compare several, use ``time_interleaved``.

    Args:
        function: takes no argument, its result is dropped; or a sequence of such functions, one
            per rotated buffer set, that are called in turn; or one that is moved before each
            round.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or a ``Device``. On a GPU the work is timed
            on torch's current stream.
        policy: how to time.

    Raises:
        NasError: device and policy do not fit, or a capture failed. What the function itself
            raises comes through as it is; threads, processors and streams are restored.

    Example:
        >>> policy = TimingPolicy(cache="warm", warmup_max_seconds=0.1)
        >>> timing = time_callable(lambda: sum(range(1000)), policy=policy)
        >>> timing.count, timing.p10_us <= timing.median_us <= timing.p90_us
        (30, True)
    """
    return time_interleaved({"function": function}, device=device, policy=policy)["function"]


def time_interleaved(
    functions: Mapping[str, Call | Sequence[Call] | Movable],
    *,
    device: str | NamedDevice = "cpu",
    policy: TimingPolicy = _DEFAULT_POLICY,
    observer: RoundObserver | None = None,
) -> dict[str, Timing]:
    """Time functions side by side, in a fresh order each round.

    Args:
        functions: name to what ``time_callable`` takes.
        device: as there.
        policy: as there; the limits in seconds hold for each function.
        observer: told of every round; rounds that it does not count are followed by others, up
            to ``policy.spare_rounds``. The samples of all rounds are kept: see ``Timing.only``.

    Returns:
        The timing of each, in the order given.

    Raises:
        NasError: as there.
    """
    turns = {name: _as_turn(name, function) for name, function in functions.items()}
    index, text = _resolve(device, policy)
    with host_state(policy) as threads, _on_device(index):
        states = {name: _State(runner) for name, runner in _runners(turns, index, policy).items()}
        for name, function in functions.items():
            states[name].move = function.move if isinstance(function, Movable) else None
        for state in states.values():
            with collector_paused():
                _warm_up(state, policy)
        _take_rounds(states, policy, observer)
    queue = None if index is None else policy.queue
    return {
        name: _result(state, policy, threads=threads, device=text, queue=queue)
        for name, state in states.items()
    }


def captured(function: Call, *, device: str | NamedDevice, calls: int = 1) -> Call:
    """Return the replay of a CUDA graph of ``calls`` calls of a function.

    Raises:
        NasError: the device is no GPU, or the function cannot be captured.
    """
    index, text = _resolve(device, _DEFAULT_POLICY)
    if index is None:
        raise NasError(f"CUDA graphs need a GPU, got {text!r}.")
    with _on_device(index):
        return capture([function], calls, index)


def run_for(function: Call, seconds: float, *, device: str | NamedDevice) -> tuple[int, float]:
    """Call a function for a while without a pause, for what is counted over seconds.

    On a GPU the calls are waited for in batches of about a tenth of a second.

    Args:
        function: takes no argument.
        seconds: no batch begins later.
        device: as for ``time_callable``.

    Returns:
        The calls made and the seconds they took.
    """
    index, _ = _resolve(device, _DEFAULT_POLICY)
    with _on_device(index):
        wait = _waiter(index)
        begin = perf_counter()
        function()
        wait()
        batch = max(1, int(_BATCH_SECONDS / max(perf_counter() - begin, 1e-6)))
        calls, begin = 0, perf_counter()
        while perf_counter() - begin < seconds:
            for _ in range(batch):
                function()
            calls += batch
            wait()
        return calls, perf_counter() - begin


def _waiter(index: int | None) -> Call:
    if index is None:
        return lambda: None
    import torch

    return lambda: torch.cuda.synchronize(index)


@dataclass(slots=True)
class _State:
    """A function on its way through the rounds."""

    runner: Runner
    move: Call | None = None
    repeats: int = 1
    converged: bool = False
    seconds_per_sample: float = 0.0
    samples_us: list[float] = field(default_factory=list)
    round_index: list[int] = field(default_factory=list)
    starved: int = 0

    @property
    def calls_per_sample(self) -> int:
        return self.repeats * self.runner.calls_per_repeat


def _as_turn(name: str, function: Call | Sequence[Call] | Movable) -> tuple[Call, ...]:
    if isinstance(function, Movable):
        return (function.call,)
    turn = (function,) if callable(function) else tuple(function)
    if not turn or not all(callable(call) for call in turn):
        raise NasError(f"Nothing to time for {name!r}: expected a function or several in turn.")
    return turn


def _resolve(device: str | NamedDevice, policy: TimingPolicy) -> tuple[int | None, str]:
    """Return the number of the GPU, None for the CPU, and the device in words."""
    name = device if isinstance(device, str) else device.torch_name
    if name == "cpu":
        if policy.mode == "graph":
            raise NasError("CUDA graphs need a GPU. On 'cpu' choose mode='eager'.")
        return None, str(device)
    import torch

    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise NasError(f"Unknown device {name!r}. Expected 'cpu', 'cuda' or 'cuda:0'.")
    if not torch.cuda.is_available():
        raise NasError(f"There is no device {name!r}: torch {torch.__version__} sees no GPU.")
    index = int(number) if number else torch.cuda.current_device()
    if index >= torch.cuda.device_count():
        raise NasError(f"There is no device {name!r}: {torch.cuda.device_count()} GPU(s) seen.")
    text = f"cuda:{index} ({torch.cuda.get_device_name(index)})"
    return index, text if isinstance(device, str) else str(device)


def _on_device(index: int | None) -> AbstractContextManager[object]:
    if index is None:
        return nullcontext()
    import torch

    return torch.cuda.device(index)


def _runners(
    turns: Mapping[str, tuple[Call, ...]], index: int | None, policy: TimingPolicy
) -> dict[str, Runner]:
    if index is None:
        return {name: CpuRunner(turn, policy) for name, turn in turns.items()}
    session = CudaSession(index, policy)
    return {name: CudaRunner(turn, session) for name, turn in turns.items()}


def _warm_up(state: _State, policy: TimingPolicy) -> None:
    """Run until two windows of long enough samples agree, or time is up."""
    begin = perf_counter()
    previous_us = 0.0
    _block(state, 1)  # holds lazy set-up: compilation, allocation
    while True:
        affordable = int(policy.warmup_max_seconds / 4 / max(state.seconds_per_sample, 1e-9))
        window = min(policy.warmup_window, max(1, affordable))
        sample_us = statistics.median(_block(state, window).samples_us)
        elapsed = perf_counter() - begin
        too_short = sample_us < policy.min_sample_us and state.repeats < _MAX_REPEATS
        if too_short and state.runner.repeatable:
            grown = int(1.25 * state.repeats * policy.min_sample_us / max(sample_us, 1e-3)) + 1
            state.repeats = min(grown, _GROWTH * state.repeats, _MAX_REPEATS)
            previous_us = 0.0
        else:
            call_us = sample_us / state.calls_per_sample
            stable = abs(call_us - previous_us) <= policy.warmup_tolerance * previous_us
            if stable and elapsed >= policy.warmup_min_seconds:
                state.converged = True
                return
            previous_us = call_us
        if elapsed >= policy.warmup_max_seconds:
            return


def _take_rounds(
    states: Mapping[str, _State], policy: TimingPolicy, observer: RoundObserver | None
) -> None:
    """Take the rounds of the policy, and spare ones while the observer does not count some."""
    generator = random.Random(policy.seed)
    names = list(states)
    taken = 0
    while taken < policy.rounds or (
        observer is not None
        and taken < policy.rounds + policy.spare_rounds
        and taken - observer.repeats() < policy.rounds
    ):
        if observer is not None:
            observer.before(taken)
        samples = {}
        for name in generator.sample(names, len(names)):
            _make_ready(states[name], policy)
            with collector_paused():
                samples[name] = _take_round(states[name], taken, policy)
        if observer is not None:
            observer.after(taken, samples)
        taken += 1


def _make_ready(state: _State, policy: TimingPolicy) -> None:
    """Move what can be moved, and run alone until the clocks are those of this work."""
    if state.move is not None:
        state.runner.renew(state.move)
    end = perf_counter() + policy.settle_seconds
    while perf_counter() + state.seconds_per_sample <= end:  # else its untimed turn is enough
        _block(state, 1)


def _take_round(state: _State, number: int, policy: TimingPolicy) -> list[float]:
    affordable = int(policy.max_seconds / policy.rounds / max(state.seconds_per_sample, 1e-9))
    block = _block(state, min(policy.samples_per_round, max(1, affordable)))
    samples_us = [total_us / state.calls_per_sample for total_us in block.samples_us]
    state.samples_us += samples_us
    state.round_index += [number] * len(samples_us)
    state.starved += block.starved
    return samples_us


def _block(state: _State, samples: int) -> Block:
    begin = perf_counter()
    block = state.runner.block(samples, state.repeats)
    state.seconds_per_sample = (perf_counter() - begin) / samples
    return block


def _result(
    state: _State, policy: TimingPolicy, *, threads: int, device: str, queue: Queue | None
) -> Timing:
    return Timing(
        samples_us=tuple(state.samples_us),
        round_index=tuple(state.round_index),
        inner_repeats=state.calls_per_sample,
        untimed_calls=state.runner.calls - len(state.samples_us) * state.calls_per_sample,
        warmup_converged=state.converged,
        cache=policy.cache,
        cache_policy=state.runner.cache_policy,
        mode=policy.mode,
        threads=threads,
        device=device,
        queue=queue,
        starved=state.starved,
        shortened=len(state.samples_us) < policy.rounds * policy.samples_per_round,
    )
