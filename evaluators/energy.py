"""Energy of a forward pass, from the device's own counter over some seconds of passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch

from evaluators.counters import EnergyCounter, energy_counter
from evaluators.keys import measure_key
from evaluators.latency.conditions import metric_name
from evaluators.latency.provenance import key_versions, provenance
from evaluators.latency.subject import faults, layout_of, prepare
from evaluators.protocol import EvaluationError, Measured, Slot
from kernels.device import Device
from kernels.errors import NasError
from kernels.exclusive import exclusive
from kernels.timing import Call, captured, run_for
from search_spaces.architecture import Architecture

_IDLE_SECONDS = 1.0
_SETTLE_SECONDS = 0.3
_MIN_SECONDS = 0.05
_PASSES_PER_GRAPH = 8
_CPU_THREADS = 1  # as latency is measured


class EnergyEvaluator:
    """Millijoules a batch, everything the device drew meanwhile included.

    On a GPU by NVML's total energy counter over replays of a CUDA graph, on a CPU by the RAPL
    counters of its packages, where they can be read, on one thread. What an idle device would
    have drawn is in the detail.

    Args:
        device: where to measure.
        batch: images a forward pass.
        dtype: element type.
        seconds: how long passes follow each other; the counters step a few times a second.

    Raises:
        NasError: there is no time for a pass.
    """

    slot: Slot = "measurement"

    def __init__(
        self, device: Device, *, batch: int = 1, dtype: str = "float32", seconds: float = 3.0
    ) -> None:
        if not seconds >= _MIN_SECONDS:
            raise NasError(f"Energy needs at least {_MIN_SECONDS} s of passes, got {seconds} s.")
        self.device, self.batch, self.dtype, self.seconds = device, batch, dtype, seconds
        self.metrics: tuple[str, ...] = (metric_name("energy_mj", batch=batch, dtype=dtype),)

    def cache_key(self, architecture: Architecture) -> str:
        """See :class:`evaluators.protocol.Evaluator`."""
        return measure_key(
            architecture,
            self.device,
            batch=self.batch,
            dtype=self.dtype,
            layout=layout_of(self.device, self.dtype),
            mode="energy",
            threads=_threads(self.device),
            versions=key_versions(architecture),
        )

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Run passes for some seconds and read the counter before and after.

        Raises:
            EvaluationError: the device has no counter, or the network cannot be measured.
        """
        with (
            exclusive(self.device),
            faults(self.device),
            closing(energy_counter(self.device)) as counter,
            _threads_set(_threads(self.device)),
            torch.inference_mode(),
        ):
            subject = prepare(architecture, self.device, batch=self.batch, dtype=self.dtype)
            passes = 1
            run: Call = subject.run
            if self.device.kind == "cuda":
                passes = _PASSES_PER_GRAPH
                run = captured(subject.run, device=self.device, calls=passes)
            idle_w = _idle_watts(counter)
            run_for(run, _SETTLE_SECONDS, device=self.device)  # clocks and heat
            first, before = counter.state(), counter.read_mj()
            calls, seconds = run_for(run, self.seconds, device=self.device)
            spent_mj, last = counter.read_mj() - before, counter.state()
        if spent_mj <= 0:
            raise EvaluationError(f"The counter of {counter.name} did not move in {seconds:.1f} s.")
        count = calls * passes
        detail: dict[str, Any] = {
            "passes": count,
            "seconds": seconds,
            "idle_w": idle_w,
            "mean_w": spent_mj / 1e3 / seconds,
            "above_idle_mj": (spent_mj - 1e3 * idle_w * seconds) / count,
            "counter": counter.name,
            "states": [first.to_dict(), last.to_dict()],
            "batch": self.batch,
            "dtype": self.dtype,
            "threads": _threads(self.device),
            **provenance(self.device),
        }
        return [Measured(self.metrics[0], spent_mj / count, None, None, detail)]


def _threads(device: Device) -> int | None:
    return _CPU_THREADS if device.kind == "cpu" else None


@contextmanager
def _threads_set(threads: int | None) -> Iterator[None]:
    """Have torch use that many CPU threads meanwhile; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if threads is None else threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _idle_watts(counter: EnergyCounter) -> float:
    """Return what the device draws while nothing of ours runs."""
    before, begin = counter.read_mj(), time.perf_counter()
    time.sleep(_IDLE_SECONDS)
    return (counter.read_mj() - before) / 1e3 / (time.perf_counter() - begin)
