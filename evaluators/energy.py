"""Energy of a forward pass, from the device's own counter over some seconds of passes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from evaluators.keys import measure_key
from evaluators.latency.conditions import metric_name
from evaluators.latency.latency import HARNESS_VERSION
from evaluators.latency.subject import faults, layout_of, prepare
from evaluators.protocol import EvaluationError, Measured, Slot
from kernels.device import Device
from kernels.exclusive import exclusive
from kernels.telemetry import Telemetry
from kernels.timing import Call, captured, run_for
from search_spaces.architecture import Architecture

_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
_IDLE_SECONDS = 1.0
_PASSES_PER_GRAPH = 8


class EnergyEvaluator:
    """Millijoules a batch, everything the device drew meanwhile included.

    On a GPU by NVML's total energy counter over replays of a CUDA graph, on a CPU by the package's
    RAPL counter where it can be read. What an idle device would have drawn is in the detail.

    Args:
        device: where to measure.
        batch: images a forward pass.
        dtype: element type.
        seconds: how long passes follow each other; the counters step a few times a second.
    """

    slot: Slot = "measurement"

    def __init__(
        self, device: Device, *, batch: int = 1, dtype: str = "float32", seconds: float = 3.0
    ) -> None:
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
            versions={"torch": torch.__version__, "harness": f"{HARNESS_VERSION}.0"},
        )

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Run passes for some seconds and read the counter before and after.

        Raises:
            EvaluationError: the device has no counter, or the network cannot be measured.
        """
        with exclusive(self.device), faults(self.device), torch.inference_mode():
            counter = _Counter(self.device)
            try:
                subject = prepare(architecture, self.device, batch=self.batch, dtype=self.dtype)
                passes = 1
                run: Call = subject.run
                if self.device.kind == "cuda":
                    passes = _PASSES_PER_GRAPH
                    run = captured(subject.run, device=self.device, calls=passes)
                idle_w = counter.idle_watts()
                run_for(run, 0.3, device=self.device)  # clocks and heat settle
                before = counter.read_mj()
                calls, seconds = run_for(run, self.seconds, device=self.device)
                spent_mj = counter.read_mj() - before
            finally:
                counter.close()
        count = calls * passes
        detail: dict[str, Any] = {
            "passes": count,
            "seconds": seconds,
            "idle_w": idle_w,
            "mean_w": spent_mj / 1e3 / seconds,
            "above_idle_mj": (spent_mj - 1e3 * idle_w * seconds) / count,
            "counter": counter.name,
            "batch": self.batch,
            "dtype": self.dtype,
            "torch": torch.__version__,
            "driver": self.device.driver,
        }
        if spent_mj <= 0:
            raise EvaluationError(f"The counter of {counter.name} did not move in {seconds:.1f} s.")
        return [Measured(self.metrics[0], spent_mj / count, None, None, detail)]


class _Counter:
    """The energy counter of a device, in millijoules."""

    def __init__(self, device: Device) -> None:
        self._telemetry = Telemetry(device) if device.kind == "cuda" else None
        self.name = "NVML" if self._telemetry else "RAPL"
        self.read_mj()

    def read_mj(self) -> float:
        """Return the count.

        Raises:
            EvaluationError: there is no such counter.
        """
        if self._telemetry is not None:
            state = self._telemetry.state()
            if state.energy_mj is None:
                why = state.problem or "this card does not count it"
                raise EvaluationError(f"Energy is unsupported here: {why}.")
            return float(state.energy_mj)
        try:
            return int(_RAPL.read_text()) / 1e3
        except (OSError, ValueError):
            raise EvaluationError(
                f"Energy is unsupported on this CPU: its counter {_RAPL} cannot be read."
            ) from None

    def idle_watts(self) -> float:
        """Return what the device draws while nothing runs."""
        before, begin = self.read_mj(), time.perf_counter()
        time.sleep(_IDLE_SECONDS)
        return (self.read_mj() - before) / 1e3 / (time.perf_counter() - begin)

    def close(self) -> None:
        """Give NVML back."""
        if self._telemetry is not None:
            self._telemetry.close()
