"""Timing on a GPU: events behind a spinning kernel, and CUDA graphs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from kernels._timing.runner import Block, Call, describe_cache
from kernels._timing.values import TimingPolicy
from kernels.errors import NasError

if TYPE_CHECKING:
    import torch

_FLUSH_BYTES = 256 << 20
_FILL_ATTEMPTS = 5
_GATE_MARGIN = 1.5
_MIN_GATE_US = 100.0
_MAX_GATE_US = 500_000.0
_CALIBRATION_CYCLES = 2_000_000
_CALIBRATIONS = 4
_EAGER_PASSES = 3


def _cuda() -> Any:
    """Return ``torch.cuda``, of which torch types only parts."""
    import torch

    return torch.cuda


class CudaSession:
    """What the functions timed together share: the device, the flush buffer, the spin's pace.

    Args:
        index: number of the GPU.
        policy: how to time.
    """

    def __init__(self, index: int, policy: TimingPolicy) -> None:
        self.index = index
        self.policy = policy
        self._buffer: torch.Tensor | None = None
        self._cycles_per_us = 0.0
        self._side: Any = None

    @property
    def side(self) -> Any:
        """The stream on which all is captured: libraries keep a workspace for each stream."""
        if self._side is None:
            self._side = _cuda().Stream(self.index)
        return self._side

    def flush_buffer(self) -> torch.Tensor:
        """Return a buffer that is larger than the L2 cache, on this GPU."""
        import torch

        if self._buffer is None:
            l2_bytes = torch.cuda.get_device_properties(self.index).L2_cache_size
            size_bytes = max(_FLUSH_BYTES, 2 * l2_bytes)
            self._buffer = torch.empty(size_bytes, dtype=torch.int8, device=f"cuda:{self.index}")
        return self._buffer

    def spin(self, duration_us: float) -> None:
        """Enqueue a kernel on the current stream that does nothing for about that long."""
        if not self._cycles_per_us:
            self._cycles_per_us = self._measure_pace()
        _cuda()._sleep(int(duration_us * self._cycles_per_us))

    def _measure_pace(self) -> float:
        elapsed_ms = 0.0
        for _ in range(_CALIBRATIONS):  # the first loads the kernel and wakes the clocks
            begin, end = _events(2)
            begin.record()
            _cuda()._sleep(_CALIBRATION_CYCLES)
            end.record()
            end.synchronize()
            elapsed_ms = begin.elapsed_time(end)
        return _CALIBRATION_CYCLES / (elapsed_ms * 1e3)


def _events(count: int) -> list[Any]:
    return [_cuda().Event(enable_timing=True) for _ in range(count)]


class CudaRunner:
    """Times calls, or replays of a graph of calls, with events on the current stream.

    Args:
        functions: called in turn.
        session: shared by the functions that are timed together.

    Raises:
        NasError: the calls cannot be captured, or one function cannot be cold in a graph.
    """

    def __init__(self, functions: Sequence[Call], session: CudaSession) -> None:
        policy = session.policy
        flushed = policy.cache == "cold" and len(functions) == 1
        self._session = session
        self._open = policy.queue == "open"
        self._host_us_per_repeat = 0.0
        self._enqueued_ns = 0
        self._hopeless = False  # the last batch starved in spite of all attempts
        self._fitting: dict[int, int] = {}  # repeats to samples that fit behind one spin
        self._flush: Call | None = None
        self._turn: Iterator[Call]
        self._captured = tuple(functions) if policy.mode == "graph" else ()
        self.calls = 0
        self.repeatable = not flushed
        flush_bytes = 0
        if policy.mode == "graph":
            if flushed:
                raise NasError(
                    "One function cannot be cold inside a CUDA graph. Give a sequence of "
                    "functions over rotated buffers (see cold_sets), or choose mode='eager' or "
                    "cache='warm'."
                )
            turns = -(-policy.calls_per_graph // len(functions))
            self.calls_per_repeat = turns * len(functions)
            self._turn = self._replays(_EAGER_PASSES)
            self._turn_length = 1
        else:
            self.calls_per_repeat = 1
            self._turn = cycle(functions)
            self._turn_length = len(functions)
        if flushed:
            buffer = session.flush_buffer()
            flush_bytes = buffer.numel()
            self._flush = buffer.zero_
        self.cache_policy = describe_cache(policy.cache, functions, flush_bytes)

    def block(self, samples: int, repeats: int) -> Block:
        """Take samples of ``repeats`` repeats each, after an untimed turn."""
        times: list[float] = []
        starved = 0
        while len(times) < samples:
            batch = self._batch(samples - len(times), repeats)
            times += batch.samples_us
            starved += batch.starved
        return Block(times, starved)

    def renew(self, move: Call) -> None:
        """See :class:`kernels._timing.runner.Runner`."""
        if self._captured:
            self._turn = iter(())  # the graph's memory goes before more is taken
        move()
        if self._captured:
            self._turn = self._replays(passes=1)

    def _replays(self, passes: int) -> Iterator[Call]:
        """Capture the functions, after some eager passes, and return the graph without end."""
        session = self._session
        self.calls += passes * len(self._captured)
        calls, index, stream = self.calls_per_repeat, session.index, session.side
        return cycle([capture(self._captured, calls, index, stream=stream, passes=passes)])

    def _batch(self, wanted: int, repeats: int) -> Block:
        """Take up to ``wanted`` samples behind one spin.

        A batch that the host could not enqueue in time is taken again, first behind a longer
        spin, then with fewer samples: the launch queue holds about 1,000 launches, and beyond
        them the host competes with the GPU however long the spin was. The last attempt counts.
        """
        if self._open:
            return self._enqueue(wanted, repeats, 0.0)
        block = Block([], 0)
        most = min(wanted, self._fitting.get(repeats, wanted))
        for attempt in range(1 if self._hopeless else _FILL_ATTEMPTS):
            size = max(1, most >> max(0, attempt - 1))
            host_us = self._host_us_per_repeat * size * repeats
            gate_us = (_MIN_GATE_US + _GATE_MARGIN * host_us) * 2**attempt
            begin = perf_counter_ns()
            block = self._enqueue(size, repeats, min(gate_us, _MAX_GATE_US))
            if not block.starved:
                if size < most:
                    self._fitting[repeats] = size
                break
            self._host_us_per_repeat = (self._enqueued_ns - begin) / 1e3 / (size * repeats)
        self._hopeless = block.starved > 0
        return block

    def _enqueue(self, samples: int, repeats: int, gate_us: float) -> Block:
        cuda = _cuda()
        starts, ends = _events(samples), _events(samples)
        starved = 0
        cuda.synchronize()
        if not self._open:
            self._session.spin(gate_us)
        for call in islice(self._turn, self._turn_length):
            call()
        self.calls += (self._turn_length + samples * repeats) * self.calls_per_repeat
        for start, end in zip(starts, ends, strict=True):
            if self._flush is not None:
                self._flush()
            if self._open:
                cuda.synchronize()
            start.record()
            for call in islice(self._turn, repeats):
                call()
            end.record()
            # The GPU began this sample before all of it was enqueued: it may have waited.
            starved += not self._open and start.query()
        self._enqueued_ns = perf_counter_ns()
        cuda.synchronize()
        times = [start.elapsed_time(end) * 1e3 for start, end in zip(starts, ends, strict=True)]
        return Block(times, starved)


def capture(
    functions: Sequence[Call],
    calls: int,
    index: int,
    *,
    stream: Any = None,
    passes: int = _EAGER_PASSES,
) -> Call:
    """Return the replay of a graph of ``calls`` calls, the functions in turn.

    The functions first run eagerly on a side stream, so that an error of their own surfaces as
    itself and lazy set-up stays out of the capture.

    Args:
        functions: called in turn.
        calls: in the graph.
        index: number of the GPU.
        stream: the side stream; a new one by default.
        passes: how often each function runs before.

    Raises:
        NasError: the calls cannot be captured, or put no work on the current stream.
    """
    cuda = _cuda()
    current = cuda.current_stream(index)
    side = stream or cuda.Stream(index)
    side.wait_stream(current)
    with cuda.stream(side):
        for call in islice(cycle(functions), passes * len(functions)):
            call()
    current.wait_stream(side)
    cuda.synchronize(index)
    graph = cuda.CUDAGraph()
    # thread_local: another thread's allocation must not spoil our capture.
    recording = cuda.graph(graph, stream=side, capture_error_mode="thread_local")
    try:
        with warnings.catch_warnings(record=True) as caught, recording:
            warnings.simplefilter("always")
            for call in islice(cycle(functions), calls):
                call()
    except RuntimeError as error:
        cause = str(error.__context__ or error).partition("\n")[0]
        raise NasError(
            f"The function cannot be captured in a CUDA graph: {cause}. Time it with "
            "mode='eager', or remove its synchronisation with the host."
        ) from error
    finally:
        cuda.set_stream(current)  # torch 2.11 leaves the side stream after a failure
    if any("graph is empty" in str(warning.message).lower() for warning in caught):
        raise NasError(
            "The CUDA graph is empty: the function puts no work on the current stream of "
            f"cuda:{index}. Check its device and stream, or time it with mode='eager'."
        )
    return graph.replay  # type: ignore[no-any-return]
