"""Latency of a network on a device: watched rounds beside a reference, with their uncertainty."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import torch

from evaluators.keys import measure_key
from evaluators.latency.conditions import metric_name
from evaluators.latency.provenance import key_versions, provenance
from evaluators.latency.reference import KnownReference, reference_work
from evaluators.latency.subject import Subject, faults, layout_of, prepare
from evaluators.latency.uncertainty import BETWEEN_RUN, interval
from evaluators.latency.watch import CPU_TOLERANCE, GPU_TOLERANCE, REFERENCE, Watch
from evaluators.protocol import EvaluationError, Measured, Slot
from kernels.device import Device
from kernels.exclusive import exclusive
from kernels.telemetry import Telemetry
from kernels.timing import Call, Movable, Timing, TimingPolicy, time_interleaved
from search_spaces.architecture import Architecture

MODES = ("eager", "graph", "compile")
"""How a network may be run: as it is, as a CUDA graph, or compiled by torch (then as a graph)."""
_NETWORK = "network"
_MIN_ROUNDS = 3
_PROBE_SECONDS = 0.05


def default_policy(device: Device) -> TimingPolicy:
    """Return how networks are timed, with warm caches.

    On a CPU one thread, so that candidates compare on a machine with other work; on a GPU a CUDA
    graph, so that the time is the device's and not Python's, in many short rounds, for each has
    the network at another place in memory. Disturbed rounds are taken again.
    """
    cpu = device.kind == "cpu"
    return TimingPolicy(
        rounds=5 if cpu else 12,
        spare_rounds=5,
        samples_per_round=8 if cpu else 3,
        cache="warm",
        mode="eager" if cpu else "graph",
        threads=1 if cpu else None,
        min_sample_us=4000.0 if cpu else 2000.0,
        calls_per_graph=4,
        warmup_max_seconds=0.4 if cpu else 0.25,
        max_seconds=1.2 if cpu else 0.5,
        settle_seconds=0.0 if cpu else 0.02,
    )


class LatencyEvaluator:
    """Times forward passes of a candidate with random weights and inputs.

    A decoder is timed in phases: ``prefill`` reads a sequence and fills its cache, ``decode`` reads
    its last token with the others in the cache: the price of one more token.

    The metric is ``latency_ms``, with what differs from the defaults behind it
    (``latency_ms[batch=256,dtype=float16]``): the median in milliseconds a batch. Low and high hold
    the median of another run with 95 % probability; p10, p90 and every sample are in the detail.
    On a GPU every round has the weights at another place in memory, and its own capture; where
    they do not fit twice they stay, and ``places`` in the detail is 1.
    Rounds that were disturbed do not count; where too few are left, the detail says so under
    ``disturbed``.

    Args:
        device: where to measure.
        batch: images or sequences a forward pass.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        mode: one of :data:`MODES`; by default a graph on a GPU with warm caches, else eager.
        cache: ``"warm"``, or ``"cold"``: nothing of the last pass is in the last-level cache.
        policy: how long and how often to time; :func:`default_policy` by default. Its cache gives
            way to the one above, its mode to the one above where that is given.
        phase: of a decoder: ``prefill`` or ``decode``; by default a pass without a cache.
        tokens: of a decoder's sequence; 0: as many as its input has.

    Raises:
        EvaluationError: the mode is unknown, or a graph is asked for where there can be none.
    """

    slot: Slot = "measurement"

    def __init__(
        self,
        device: Device,
        *,
        batch: int = 1,
        dtype: str = "float32",
        mode: str = "",
        cache: str = "warm",
        policy: TimingPolicy | None = None,
        phase: str = "",
        tokens: int = 0,
    ) -> None:
        chosen = policy or default_policy(device)
        run = mode or _default_mode(chosen, cache)
        _check_mode(run, device, cache)
        replayed = "eager" if cache == "cold" or device.kind == "cpu" or run == "eager" else "graph"
        chosen = replace(chosen, mode=replayed, cache=cache)  # type: ignore[arg-type]
        self.device, self.batch, self.dtype, self.mode = device, batch, dtype, run
        self.policy, self.phase, self.tokens = chosen, phase, tokens
        name = metric_name(
            "latency_ms",
            batch=batch,
            dtype=dtype,
            mode=mode,
            cache=cache,
            phase=phase,
            tokens=tokens,
        )
        self.metrics: tuple[str, ...] = (name,)

    def cache_key(self, architecture: Architecture) -> str:
        """See :class:`evaluators.protocol.Evaluator`."""
        return measure_key(
            architecture,
            self.device,
            batch=self.batch,
            dtype=self.dtype,
            layout=layout_of(self.device, self.dtype),
            cache=self.policy.cache,
            mode=self.mode,
            threads=self.policy.threads,
            phase=self.phase,
            tokens=self.tokens,
            versions=key_versions(architecture),
        )

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Build the network with random weights and time it, alone on the device.

        Raises:
            EvaluationError: it cannot be built, run or measured; the message is the reason.
        """
        return [self.measure(architecture)]

    def measure(
        self, architecture: Architecture, weights: Mapping[str, torch.Tensor] | None = None
    ) -> Measured:
        """Build the network and time it, alone on the device.

        Args:
            architecture: the network.
            weights: trained ones, see :func:`evaluators.latency.subject.prepare`.

        Raises:
            EvaluationError: it cannot be built, run or measured; the message is the reason.
        """
        with exclusive(self.device), faults(self.device), _same_kernels(), torch.inference_mode():
            subject = prepare(
                architecture,
                self.device,
                batch=self.batch,
                dtype=self.dtype,
                phase=self.phase,
                tokens=self.tokens,
                weights=weights,
            )
            run, prepared = self._made_ready(subject)
            moved: list[bool] = []
            work = {_NETWORK: self._movable(subject, run, moved)}
            timings, watch = self._timed(work, self.policy)
            about = {
                **prepared,
                "layout": subject.layout,
                "input": list(subject.inputs.shape),
                "places": max(1, sum(moved)),
            }
        return self._measured(timings[_NETWORK], watch, about)

    def _made_ready(self, subject: Subject) -> tuple[Callable[[], object], dict[str, float]]:
        """Return what is timed, and the seconds that compiling took."""
        seconds: dict[str, float] = {}
        if self.mode == "compile":
            begin = time.perf_counter()
            run = subject.call(torch.compile(subject.module))
            run()
            seconds["compile_s"] = time.perf_counter() - begin
        else:
            run = subject.call(subject.module)
        return run, seconds

    def _movable(self, subject: Subject, run: Call, moved: list[bool]) -> Call | Movable:
        """Have a GPU's rounds at other places; whether there was room is noted each time."""
        if self.device.kind == "cpu":
            return run
        generator = Random(self.policy.seed)
        return Movable(run, lambda: moved.append(subject.move(generator)))

    def _timed(
        self, calls: Mapping[str, Call | Movable], policy: TimingPolicy
    ) -> tuple[dict[str, Timing], Watch]:
        """Time functions beside the reference, under watch; only rounds that count are kept."""
        cpu = self.device.kind == "cpu"
        if cpu and policy.cpus is None and hasattr(os, "sched_setaffinity"):
            policy = replace(policy, cpus=(_quiet_core(),))
        telemetry = Telemetry(self.device, policy.cpus)
        known = KnownReference(self.device, f"{policy.mode} {policy.calls_per_graph}")
        tolerance = CPU_TOLERANCE if cpu else GPU_TOLERANCE
        watch = Watch(telemetry, len(policy.cpus or ()), tolerance, known.best_us())
        try:
            work = {**calls, REFERENCE: reference_work(self.device)}
            timings = time_interleaved(work, device=self.device, policy=policy, observer=watch)
        finally:
            telemetry.close()
        counted = set(range(len(watch.states))) - watch.disturbed().keys()
        if counted:
            known.learn(watch.steady_us)
        if len(counted) >= _MIN_ROUNDS:
            timings = {name: timing.only(counted) for name, timing in timings.items()}
        del timings[REFERENCE]
        return timings, watch

    def time_all(
        self, calls: Mapping[str, Call], *, calls_per_graph: int = 0
    ) -> tuple[dict[str, Timing], list[str]]:
        """Time several functions side by side, each where it lies.

        Args:
            calls: by name; the caller holds the device.
            calls_per_graph: 0: as many as of a network. Layers are short beside the pause between
                two graphs, and need :data:`kernels.timing.CALLS_PER_GRAPH`.

        Returns:
            Their timings, and why these are not to be trusted; empty where they are.
        """
        most = calls_per_graph or self.policy.calls_per_graph
        # Nothing settles: with so many in turn none has the clocks to itself.
        policy = replace(self.policy, calls_per_graph=most, settle_seconds=0.0)
        timings, watch = self._timed(calls, policy)
        rounds = sorted({index for timing in timings.values() for index in timing.round_index})
        return timings, _flags(watch, rounds)

    def _measured(self, timing: Timing, watch: Watch, about: Mapping[str, Any]) -> Measured:
        rounds = sorted(set(timing.round_index))
        medians = [timing.only([index]).median_us for index in rounds]
        between = BETWEEN_RUN[self.device.kind]
        low, high = interval(medians, timing.median_us, between)
        detail = {
            **timing.to_dict(),
            **about,
            "p10_us": timing.p10_us,
            "p90_us": timing.p90_us,
            "mad_us": timing.mad_us,
            "drift": timing.drift,
            "between_run": between,
            "disturbed": _flags(watch, rounds),
            "rounds_taken": len(watch.states),
            "rounds_disturbed": {str(k): v for k, v in watch.disturbed().items()},
            "reference_us": watch.reference_us,
            "states": [[first.to_dict(), last.to_dict()] for first, last in watch.states],
            "batch": self.batch,
            "dtype": self.dtype,
            "mode": self.mode,
            "phase": self.phase,
            **provenance(self.device),
        }
        return Measured(self.metrics[0], timing.median_us / 1e3, low / 1e3, high / 1e3, detail)


def _default_mode(policy: TimingPolicy, cache: str) -> str:
    """Return how a network is run where nothing is said; a graph cannot have cold caches."""
    return "eager" if cache == "cold" else policy.mode


def _check_mode(mode: str, device: Device, cache: str) -> None:
    """Refuse a mode that would be recorded but could not be had."""
    if mode not in MODES:
        raise EvaluationError(f"Unknown mode {mode!r}; known: {', '.join(MODES)}.")
    if mode == "graph" and device.kind == "cpu":
        raise EvaluationError(f"CUDA graphs need a GPU. On {device} leave the mode out.")
    if mode == "graph" and cache == "cold":
        raise EvaluationError("A CUDA graph cannot have cold caches. Choose mode=eager, or warm.")


@contextmanager
def _same_kernels() -> Iterator[None]:
    """Have cuDNN choose by its heuristics, which is torch's default, and not by trials.

    Trials choose anew in every process: medians of 29 networks in two processes differed by 1.5 %
    in the middle and 7 % at worst, by the heuristics by 0.03 % and 0.4 % (H200).
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _flags(watch: Watch, counted: list[int]) -> list[str]:
    """Return why a result is not to be trusted; empty where it is."""
    flags = []
    disturbed = watch.disturbed()
    if disturbed.keys() & set(counted):
        share = f"{len(disturbed)} of {len(watch.states)} rounds were disturbed"
        flags.append(f"{share}: {'; '.join(_worst(disturbed.values()))}")
    slow = watch.slow_throughout()
    return [*flags, slow] if slow else flags


def _worst(reasons: Iterable[list[str]]) -> list[str]:
    """Return one reason of each kind, that with the largest figure."""
    worst: dict[str, tuple[int, str]] = {}
    for text in (text for some in reasons for text in some):
        figure = int(re.sub(r"\D", "", text) or 0)
        kind = re.sub(r"\d+", "", text)
        worst[kind] = max(worst.get(kind, (-1, "")), (figure, text))
    return sorted(text for _, text in worst.values())


def _quiet_core() -> int:
    """Return the core that was used least just now, of those this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    here = Device("cpu", 0, "", None, len(cores), 0)
    readers = {core: Telemetry(here, [core]) for core in cores}
    before = {core: reader.state().busy_s or 0.0 for core, reader in readers.items()}
    time.sleep(_PROBE_SECONDS)
    busy = {core: (reader.state().busy_s or 0.0) - before[core] for core, reader in readers.items()}
    return min(reversed(cores), key=lambda core: busy[core])
