"""The timer: statistics in closed form, rounds on a simulated clock, state put back."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from itertools import groupby, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import timing
from kernels._timing import cpu, cuda, host
from kernels._timing.values import quantile
from kernels.errors import NasError
from kernels.timing import (
    Movable,
    Timing,
    TimingPolicy,
    cold_sets,
    time_callable,
    time_interleaved,
)

WARM = TimingPolicy(cache="warm", warmup_min_seconds=0.0, warmup_max_seconds=1.0)


def make_timing(samples: tuple[float, ...], rounds: tuple[int, ...]) -> Timing:
    return Timing(
        samples_us=samples,
        round_index=rounds,
        inner_repeats=4,
        untimed_calls=12,
        warmup_converged=True,
        cache="cold",
        cache_policy="cold: 3 buffer sets in turn",
        mode="graph",
        threads=1,
        device="cuda:0 (a card)",
        queue="full",
    )


class Clock:
    """A simulated clock; functions cost what they are told to."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.calls = 0
        self.log: list[str] = []

    def function(self, cost_us: float | Callable[[int], float], name: str = "") -> timing.Call:
        count = 0

        def call() -> None:
            nonlocal count
            cost = cost_us if isinstance(cost_us, int | float) else cost_us(count)
            count += 1
            self.now_ns += round(cost * 1000)
            self.log.append(name)

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(cpu, "perf_counter_ns", lambda: made.now_ns)
    monkeypatch.setattr(timing, "perf_counter", lambda: made.now_ns / 1e9)
    return made


# Values.


def test_statistics_are_exact() -> None:
    made = make_timing(
        (10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 40.0), (0,) * 11
    )
    assert made.count == 11
    assert made.median_us == 15.0
    assert made.p10_us == 11.0
    assert made.p90_us == 19.0
    assert made.mad_us == 3.0
    assert made.spread == pytest.approx(8 / 15)
    assert made.drift == 0.0


def test_drift_compares_first_and_last_round() -> None:
    made = make_timing(
        (10.0, 10.0, 90.0, 5.0, 5.0, 5.0, 11.0, 11.0, 1.0), (0, 0, 0, 1, 1, 1, 2, 2, 2)
    )
    assert made.drift == pytest.approx(0.1)


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0, 1))
def test_quantile_agrees_with_numpy(values: list[float], fraction: float) -> None:
    assert quantile(values, fraction) == pytest.approx(float(np.quantile(values, fraction)))


def test_timing_round_trips_through_json() -> None:
    made = make_timing((1.5, 2.25), (0, 1))
    assert Timing.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_stored_timing_with_other_fields_is_refused() -> None:
    values = make_timing((1.0,), (0,)).to_dict()
    del values["threads"]
    with pytest.raises(NasError, match=r"Missing or unknown: fan_speed, threads\."):
        Timing.from_dict(values | {"fan_speed": 3})


@pytest.mark.parametrize(("samples", "rounds"), [((), ()), ((1.0,), (0, 1))])
def test_timing_needs_samples_with_rounds(
    samples: tuple[float, ...], rounds: tuple[int, ...]
) -> None:
    with pytest.raises(NasError, match="one round index per sample"):
        make_timing(samples, rounds)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"rounds": 2, "samples_per_round": 50}, "rounds >= 3"),
        ({"rounds": 3, "samples_per_round": 9}, "samples_per_round >= 30"),
        ({"rounds": -6, "samples_per_round": -6}, "samples_per_round >= 30"),
        ({"cache": "tepid"}, "cache 'cold' or 'warm'"),
        ({"mode": "compile"}, "mode 'eager' or 'graph'"),
        ({"queue": "half"}, "queue 'full' or 'open'"),
        ({"calls_per_graph": 0}, "calls_per_graph >= 1"),
        ({"spare_rounds": -1}, "spare_rounds >= 0"),
        ({"min_sample_us": 0}, "min_sample_us > 0"),
        ({"warmup_window": 0}, "warmup_window >= 1"),
        ({"warmup_tolerance": 1.0}, "warmup_tolerance < 1"),
        ({"warmup_min_seconds": 9.0}, "warmup_min_seconds <= warmup_max_seconds"),
        ({"max_seconds": 0.0}, "max_seconds > 0"),
        ({"settle_seconds": -0.1}, "settle_seconds >= 0"),
        ({"threads": 0}, "threads >= 1"),
        ({"cpus": ()}, "cpus not empty"),
    ],
)
def test_policy_names_the_broken_rule(values: dict[str, object], rule: str) -> None:
    with pytest.raises(NasError, match="Invalid timing policy") as raised:
        TimingPolicy(**values)  # type: ignore[arg-type]
    assert rule in str(raised.value)


def test_policy_names_all_broken_rules_at_once() -> None:
    with pytest.raises(NasError, match=r"rounds >= 3; .*threads >= 1"):
        TimingPolicy(rounds=1, threads=0)


def test_cold_sets_exceed_the_cache() -> None:
    for size in (1, 1000, 40_000_000, 159_999_999, 160_000_000, 10**9):
        count = cold_sets(size)
        assert count * size > 160_000_000
        assert count == 2 or (count - 1) * size <= 160_000_000


# Rounds on a simulated clock.


def test_constant_function_is_timed_exactly(clock: Clock) -> None:
    made = time_callable(clock.function(50), policy=WARM)
    assert set(made.samples_us) == {50.0}
    assert made.count == 30
    assert [made.round_index.count(number) for number in range(3)] == [10, 10, 10]
    assert made.inner_repeats * 50 >= WARM.min_sample_us
    assert made.warmup_converged
    assert not made.shortened
    assert made.untimed_calls + made.count * made.inner_repeats == len(clock.log)


def test_short_function_is_repeated_until_a_sample_is_long_enough(clock: Clock) -> None:
    made = time_callable(clock.function(0.05), policy=WARM)
    assert made.median_us == pytest.approx(0.05)
    assert made.inner_repeats * 0.05 >= WARM.min_sample_us


def test_warm_up_waits_for_a_function_that_gets_faster(clock: Clock) -> None:
    made = time_callable(clock.function(lambda n: max(300.0, 3000.0 * 0.98**n)), policy=WARM)
    assert made.warmup_converged
    assert made.untimed_calls > 30
    assert made.median_us <= 1.05 / 0.98 * 300.0


def test_warm_up_that_never_settles_is_bounded_and_told(clock: Clock) -> None:
    made = time_callable(clock.function(lambda n: 1000.0 * 1.02**n), policy=WARM)
    assert not made.warmup_converged
    assert made.untimed_calls < 300


def test_repeats_follow_when_the_function_turns_fast(clock: Clock) -> None:
    made = time_callable(clock.function(lambda n: 5000.0 if n < 3 else 1.0), policy=WARM)
    assert made.median_us == 1.0
    assert made.inner_repeats >= 200


def test_slow_function_gives_fewer_samples_and_says_so(clock: Clock) -> None:
    policy = TimingPolicy(cache="warm", max_seconds=6.0, warmup_max_seconds=1.0)
    made = time_callable(clock.function(1e6), policy=policy)
    assert made.shortened
    assert 3 <= made.count <= 6
    assert set(made.round_index) == {0, 1, 2}
    assert len(clock.log) <= 16


def test_each_round_visits_all_in_a_fresh_seeded_order(clock: Clock) -> None:
    names = ["a", "b", "c", "d", "e"]

    def visits(seed: int) -> list[str]:
        clock.log.clear()
        functions = {name: clock.function(300, name) for name in names}
        policy = TimingPolicy(cache="warm", rounds=6, warmup_min_seconds=0.0, seed=seed)
        time_interleaved(functions, policy=policy)
        # Ten samples and the untimed call make a visit; warm-up comes first, in the given order.
        return clock.log[-6 * 5 * 11 :: 11]

    first = visits(0)
    rounds = [first[start : start + 5] for start in range(0, 30, 5)]
    assert all(sorted(order) == names for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1
    assert visits(0) == first
    assert visits(1) != first


def test_what_can_be_moved_is_moved_before_each_of_its_rounds(clock: Clock) -> None:
    movable = Movable(clock.function(300, "net"), lambda: clock.log.append("move"))
    policy = TimingPolicy(cache="warm", rounds=4, warmup_min_seconds=0.0, warmup_max_seconds=0.01)
    made = time_interleaved({"a": clock.function(300, "a"), "net": movable}, policy=policy)
    assert clock.log.count("move") == 4
    at = [index for index, name in enumerate(clock.log) if name == "move"]
    assert all(clock.log[index + 1 : index + 12] == ["net"] * 11 for index in at)
    assert made["net"].count == made["a"].count == 40


def test_a_function_settles_before_its_samples_and_that_is_not_timed(clock: Clock) -> None:
    def once(settle_seconds: float) -> tuple[Timing, int]:
        clock.log.clear()
        policy = TimingPolicy(cache="warm", warmup_min_seconds=0.0, settle_seconds=settle_seconds)
        return time_callable(clock.function(1000, "f"), policy=policy), len(clock.log)

    (plain, calls), (settled, more) = once(0.0), once(0.02)
    assert settled.count == plain.count == 30
    assert 3 * 18 <= more - calls <= 3 * 22
    assert settled.untimed_calls - plain.untimed_calls == more - calls
    assert once(0.0005)[1] == calls  # a sample is longer than that: its untimed turn is enough


def test_calls_of_rounds_that_do_not_count_are_untimed(clock: Clock) -> None:
    made = time_callable(clock.function(50), policy=WARM)
    kept = made.only([0, 2])
    assert kept.count == 20
    assert kept.untimed_calls == made.untimed_calls + 10 * made.inner_repeats


def test_drift_hits_all_functions_alike(clock: Clock) -> None:
    def drifting(_: int) -> float:
        return 300.0 + clock.now_ns / 1e6

    made = time_interleaved(
        {"a": clock.function(drifting), "b": clock.function(drifting)},
        policy=TimingPolicy(cache="warm", rounds=30, samples_per_round=2, warmup_min_seconds=0.0),
    )
    assert made["a"].drift > 0.05
    assert made["a"].median_us == pytest.approx(made["b"].median_us, rel=0.02)


def test_functions_of_a_sequence_are_called_in_turn(clock: Clock) -> None:
    turn = [clock.function(30, name) for name in "abc"]
    made = time_callable(turn, policy=TimingPolicy(warmup_min_seconds=0.0))
    assert made.cache_policy == "cold: 3 buffer sets in turn"
    following = {"a": "b", "b": "c", "c": "a"}
    assert all(following[one] == two for one, two in pairwise(clock.log))


def test_cold_rewrites_a_buffer_before_each_call_and_does_not_time_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "_flusher", lambda size_bytes: clock.function(7000, "flush"))
    monkeypatch.setattr(cpu, "last_level_cache_bytes", lambda: 32 << 20)
    made = time_callable(clock.function(2, "call"), policy=TimingPolicy(warmup_min_seconds=0.0))
    assert set(made.samples_us) == {2.0}
    assert made.inner_repeats == 1
    assert made.cache_policy == "cold: 64 MiB rewritten before each call, not timed"
    runs = [(name, len(list(group))) for name, group in groupby(clock.log)]
    assert all(length == 1 for name, length in runs if name == "flush")
    assert clock.log.count("flush") >= 30


# The real clock.


def spin(duration_us: float) -> timing.Call:
    def call() -> None:
        end = time.perf_counter_ns() + int(duration_us * 1000)
        while time.perf_counter_ns() < end:
            pass

    return call


def test_a_busy_loop_is_timed_right() -> None:
    made = time_interleaved({"short": spin(100), "long": spin(300)}, policy=WARM)
    assert 100 <= made["short"].p10_us <= 130
    assert 300 <= made["long"].p10_us <= 360
    assert made["short"].device == "cpu"
    assert made["short"].threads == torch.get_num_threads()


def test_cold_reading_is_not_faster_than_warm_reading() -> None:
    data = torch.randn(1 << 18)
    made = {
        cache: time_callable(
            data.sum, policy=TimingPolicy(cache=cache, threads=1, warmup_max_seconds=0.5)
        )
        for cache in ("cold", "warm")
    }
    assert made["cold"].p10_us > made["warm"].p10_us


class OwnError(Exception):
    pass


@pytest.mark.parametrize("after", [0, 40])
def test_state_is_restored_after_an_exception_of_the_function(after: int) -> None:
    threads, affinity = torch.get_num_threads(), os.sched_getaffinity(0)
    other = 1 if threads != 1 else 2
    calls = 0

    def failing() -> None:
        nonlocal calls
        assert torch.get_num_threads() == other
        assert len(os.sched_getaffinity(0)) == 1
        assert not gc.isenabled()
        spin(300)()
        calls += 1
        if calls > after:
            raise OwnError

    policy = TimingPolicy(
        cache="warm", threads=other, cpus=(min(affinity),), warmup_max_seconds=0.1
    )
    with pytest.raises(OwnError):
        time_callable(failing, policy=policy)
    assert torch.get_num_threads() == threads
    assert os.sched_getaffinity(0) == affinity
    assert gc.isenabled()


def test_threads_that_start_while_pinned_are_set_free_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [{1: {0, 1}}, {1: {0}, 7: {0}}]
    done: list[tuple[int, set[int]]] = []
    monkeypatch.setattr(host, "_affinities", lambda: found.pop(0))
    monkeypatch.setattr(host, "_set_affinity", lambda thread, cpus: done.append((thread, cpus)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    with host._pinned((0,)):
        assert done == [(1, {0})]
    assert done[1:] == [(1, {0, 1}), (7, {0, 1})]


def test_a_disabled_collector_stays_disabled() -> None:
    gc.disable()
    try:
        time_callable(spin(300), policy=WARM)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_foreign_processor_is_refused() -> None:
    with pytest.raises(NasError, match="may use the processors"):
        time_callable(spin(1), policy=TimingPolicy(cpus=(100_000,)))


@pytest.mark.parametrize("nothing", [[], [3], 3.5])
def test_nothing_to_time_is_refused(nothing: object) -> None:
    with pytest.raises((NasError, TypeError), match=r"Nothing to time|not iterable"):
        time_callable(nothing, policy=WARM)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0", "mps"])
def test_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(NasError, match="Unknown device"):
        time_callable(spin(1), device=device)


def test_graphs_on_a_cpu_are_refused() -> None:
    with pytest.raises(NasError, match="mode='eager'"):
        time_callable(spin(1), policy=TimingPolicy(mode="graph"))


def test_last_level_caches_are_summed(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("cpu")
    monkeypatch.setattr(cpu, "_usable_cpus", lambda: [0, 1, 2])
    for number, shared in ((0, "0-1"), (1, "0-1"), (2, "2-3")):
        for index, level, size in ((0, 1, "32K"), (1, 3, "1024K")):
            folder = root / f"cpu{number}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            (folder / "level").write_text(f"{level}\n")
            (folder / "size").write_text(f"{size}\n")
            (folder / "shared_cpu_list").write_text(f"{shared}\n")
    assert cpu.last_level_cache_bytes(root) == 2 << 20
    assert cpu.last_level_cache_bytes(root / "none") == 64 << 20


# The GPU, simulated: launches cost host time, the GPU works through its queue.


class FakeCuda:
    """``torch.cuda`` with a host clock and a queue; the spin runs at 1000 cycles a microsecond."""

    def __init__(self, launch_us: float = 5.0, depth: int = 1000) -> None:
        self.host_us = 0.0
        self.gpu_us = 0.0
        self.launch_us = launch_us
        self.depth = depth
        self.queue: deque[float] = deque()

    def enqueue(self, duration_us: float) -> None:
        self.host_us += self.launch_us
        if len(self.queue) >= self.depth:
            self.host_us = max(self.host_us, self.queue.popleft())
        self.gpu_us = max(self.host_us, self.gpu_us) + duration_us
        self.queue.append(self.gpu_us)

    def Stream(self, index: int) -> str:  # noqa: N802
        return f"stream of {index}"

    def _sleep(self, cycles: int) -> None:
        self.enqueue(cycles / 1000)

    def synchronize(self) -> None:
        self.host_us = max(self.host_us, self.gpu_us)

    def Event(self, *, enable_timing: bool) -> FakeEvent:  # noqa: N802
        assert enable_timing
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, device: FakeCuda) -> None:
        self.device = device
        self.at_us = 0.0

    def record(self) -> None:
        self.device.host_us += 1
        self.at_us = self.device.gpu_us = max(self.device.host_us, self.device.gpu_us)

    def query(self) -> bool:
        return self.at_us <= self.device.host_us

    def synchronize(self) -> None:
        self.device.host_us = max(self.device.host_us, self.at_us)

    def elapsed_time(self, end: FakeEvent) -> float:
        return (end.at_us - self.at_us) / 1e3


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = FakeCuda()
    monkeypatch.setattr(cuda, "_cuda", lambda: made)
    monkeypatch.setattr(cuda, "perf_counter_ns", lambda: int(made.host_us * 1000))
    return made


def gpu_runner(function: timing.Call, policy: TimingPolicy) -> cuda.CudaRunner:
    return cuda.CudaRunner([function], cuda.CudaSession(0, policy))


def test_a_full_queue_hides_the_host(gpu: FakeCuda) -> None:
    block = gpu_runner(lambda: gpu.enqueue(2), TimingPolicy(cache="warm")).block(10, 20)
    assert block.starved == 0
    assert block.samples_us == pytest.approx([40.0] * 10)


def test_a_launch_queue_that_is_too_short_makes_smaller_batches(gpu: FakeCuda) -> None:
    gpu.depth = 100
    runner = gpu_runner(lambda: gpu.enqueue(2), TimingPolicy(cache="warm"))
    for _ in range(2):
        block = runner.block(10, 60)
        assert block.starved == 0
        assert block.samples_us == pytest.approx([120.0] * 10)


def test_an_open_queue_holds_the_launches(gpu: FakeCuda) -> None:
    block = gpu_runner(lambda: gpu.enqueue(2), TimingPolicy(cache="warm", queue="open")).block(5, 1)
    assert block.starved == 0
    assert block.samples_us == pytest.approx([7.0] * 5)


def test_a_function_that_waits_for_the_gpu_is_told_as_starved(gpu: FakeCuda) -> None:
    def waiting() -> None:
        gpu.enqueue(2)
        gpu.synchronize()

    runner = gpu_runner(waiting, TimingPolicy(cache="warm"))
    assert runner.block(10, 1).starved == 10
    calls = runner.calls
    runner.block(10, 1)
    assert runner.calls - calls <= 20  # it has given up, one attempt a batch


def test_the_flush_is_outside_the_timed_region(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Buffer:
        def numel(self) -> int:
            return 256 << 20

        def zero_(self) -> None:
            gpu.enqueue(80)

    monkeypatch.setattr(cuda.CudaSession, "flush_buffer", lambda _: Buffer())
    runner = gpu_runner(lambda: gpu.enqueue(2), TimingPolicy())
    assert not runner.repeatable
    assert runner.cache_policy == "cold: 256 MiB rewritten before each call, not timed"
    block = runner.block(10, 1)
    assert block.starved == 0
    assert block.samples_us == pytest.approx([2.0] * 10)


def test_one_function_cannot_be_cold_in_a_graph(gpu: FakeCuda) -> None:
    with pytest.raises(NasError, match="rotated buffers"):
        gpu_runner(lambda: gpu.enqueue(2), TimingPolicy(mode="graph"))


def test_a_graph_holds_whole_turns_of_at_least_the_calls_asked_for(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capture(
        functions: list[timing.Call], calls: int, index: int, **about: object
    ) -> timing.Call:
        return lambda: gpu.enqueue(2 * calls)

    monkeypatch.setattr(cuda, "capture", capture)
    turn = [lambda: None] * 7
    runner = cuda.CudaRunner(turn, cuda.CudaSession(0, TimingPolicy(mode="graph")))
    assert runner.calls_per_repeat == 21
    assert runner.block(3, 2).samples_us == pytest.approx([84.0] * 3)


def test_a_graph_is_captured_anew_when_its_data_have_moved(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[object] = []

    class Graph:
        def __init__(self, duration_us: float) -> None:
            self.duration_us = duration_us

        def __call__(self) -> None:
            gpu.enqueue(self.duration_us)

        def __del__(self) -> None:
            log.append("gone")

    def capture(
        functions: list[timing.Call], calls: int, index: int, *, stream: object, passes: int
    ) -> timing.Call:
        log.append((stream, passes))
        return Graph(len(log) * calls)

    monkeypatch.setattr(cuda, "capture", capture)
    runner = gpu_runner(lambda: None, TimingPolicy(mode="graph", cache="warm", calls_per_graph=4))
    assert runner.block(1, 1).samples_us == pytest.approx([4.0])
    runner.renew(lambda: log.append("moved"))
    # The old graph's memory is free for what moves; libraries keep a workspace for each stream.
    assert log == [("stream of 0", 3), "gone", "moved", ("stream of 0", 1)]
    assert runner.block(1, 1).samples_us == pytest.approx([16.0])


def test_an_eager_function_is_moved_without_a_graph(gpu: FakeCuda) -> None:
    runner = gpu_runner(lambda: gpu.enqueue(2), TimingPolicy(cache="warm"))
    moved: list[int] = []
    runner.renew(lambda: moved.append(1))
    assert moved == [1]
    assert runner.block(3, 20).samples_us == pytest.approx([40.0] * 3)


# Its place in the house.


def test_the_timer_is_a_leaf_and_imports_no_torch() -> None:
    script = (
        "import sys, kernels.timing\n"
        "ours = {name for name in sys.modules if name.startswith('kernels.')}\n"
        "ours = {name for name in ours if not name.startswith('kernels._timing')}\n"
        "assert ours == {'kernels.timing', 'kernels.errors'}, ours\n"
        "assert not {'torch', 'cupy', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr


def test_median_and_not_mean(clock: Clock) -> None:
    made = time_callable(clock.function(lambda n: 90_000 if n % 23 == 22 else 300), policy=WARM)
    assert made.median_us == 300.0
    assert statistics.mean(made.samples_us) > 1000
