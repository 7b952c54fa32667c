"""The state of a device around a measurement: clocks, heat, power, and who else is on it.

On a GPU from NVML, on a CPU from the kernel's own counts. What cannot be read is None; nothing
here ever raises, as a measurement without telemetry is still a measurement.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from kernels.device import Device

_T = TypeVar("_T")

_SLOWING = {
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "HwThermalSlowdown": "thermal slowdown (hardware)",
    "HwPowerBrakeSlowdown": "power brake",
    "SwThermalSlowdown": "thermal slowdown (software)",
}
"""NVML's clock event reasons that mean a card is slower than it could be, in words."""
_STAT = Path("/proc/stat")
_SCHEDSTAT = Path("/proc/thread-self/schedstat")
_TICK_S = 1.0 / (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """A device at one moment; None where a figure cannot be had.

    Attributes:
        time_s: when, on the clock of ``time.perf_counter``.
        sm_clock_mhz: of a GPU's multiprocessors.
        memory_clock_mhz: of a GPU's memory.
        temperature_c: of a GPU.
        power_w: drawn by a GPU.
        throttle: what slows a GPU just now, in words.
        other_processes: compute processes on a GPU besides this one.
        energy_mj: a GPU's energy since its driver was loaded, in millijoules.
        busy_s: processor time that anybody spent on the watched cores so far.
        own_s: processor time of this process so far.
        waited_s: how long this thread was ready to run, and another ran instead, so far.
        frequency_mhz: of the watched cores, their mean.
        problem: why there are no figures of a GPU at all.
    """

    time_s: float
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    throttle: tuple[str, ...] = ()
    other_processes: int | None = None
    energy_mj: int | None = None
    busy_s: float | None = None
    own_s: float | None = None
    waited_s: float | None = None
    frequency_mhz: float | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures that are known, as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value is not None and value != ()
        }


class Telemetry:
    """Reads the state of one device.

    Args:
        device: which.
        cpus: cores to watch on a CPU; None watches none.
    """

    def __init__(self, device: Device, cpus: Sequence[int] | None = None) -> None:
        self._cpus = tuple(cpus or ())
        self._nvml: ModuleType | None = None
        self._handle: Any = None
        self._problem: str | None = None
        if device.kind == "cuda":
            self._open(device)

    def state(self) -> DeviceState:
        """Return the state now."""
        if self._nvml is not None:
            return self._gpu_state(self._nvml)
        return DeviceState(
            time_s=time.perf_counter(),
            busy_s=_busy_seconds(self._cpus),
            own_s=time.process_time(),
            waited_s=_waited_seconds(),
            frequency_mhz=_frequency_mhz(self._cpus),
            problem=self._problem,
        )

    def close(self) -> None:
        """Give NVML back."""
        if self._nvml is not None:
            _known(self._nvml.nvmlShutdown)
            self._nvml = None

    def _open(self, device: Device) -> None:
        try:
            import pynvml
        except ImportError:
            self._problem = "the package nvidia-ml-py is missing"
            return
        try:
            pynvml.nvmlInit()
        except Exception as problem:  # whatever NVML and its driver come up with
            self._problem = f"NVML: {problem}"
            return
        self._nvml = pynvml
        try:
            uuid = str(device.uuid or "")
            name = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        except Exception as problem:
            self._problem = f"NVML: {problem}"
            self.close()

    def _gpu_state(self, nvml: ModuleType) -> DeviceState:
        handle = self._handle
        problems: list[str] = []
        figures: dict[str, Any] = {
            name: _known(lambda read=read: read(nvml, handle), problems)  # type: ignore[misc]
            for name, read in _GPU_FIGURES.items()
        }
        lost = len(problems) == len(_GPU_FIGURES)
        figures["throttle"] = figures["throttle"] or ()
        return DeviceState(
            time_s=time.perf_counter(),
            problem=f"NVML: {problems[0]}" if lost else None,
            **figures,
        )


def foreign_share(before: DeviceState, after: DeviceState, cores: int) -> float | None:
    """Return the share of some cores' time that others used between two states, in 0..1.

    Args:
        before: the earlier state.
        after: the later state.
        cores: how many cores were watched; this process ran on no others.
    """
    if before.busy_s is None or after.busy_s is None or before.own_s is None or after.own_s is None:
        return None
    elapsed = (after.time_s - before.time_s) * cores
    foreign = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return min(1.0, max(0.0, foreign / elapsed)) if elapsed > 0 else 0.0


def waiting_share(before: DeviceState, after: DeviceState) -> float | None:
    """Return the share of the time between two states in which this thread had to wait, in 0..1."""
    if before.waited_s is None or after.waited_s is None:
        return None
    elapsed = after.time_s - before.time_s
    return min(1.0, (after.waited_s - before.waited_s) / elapsed) if elapsed > 0 else 0.0


def _known(read: Callable[[], _T], problems: list[str] | None = None) -> _T | None:
    """Return a reading; None where the card does not give it, with the reason in ``problems``."""
    try:
        return read()
    except Exception as problem:  # NVML: not supported, lost, no permission
        if problems is not None:
            problems.append(str(problem))
        return None


def _throttle(nvml: ModuleType, handle: Any) -> tuple[str, ...]:
    bits = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    found = []
    for name, words in _SLOWING.items():
        bit = getattr(nvml, f"nvmlClocksEventReason{name}", None) or getattr(
            nvml, f"nvmlClocksThrottleReason{name}", 0
        )
        if bits & bit:
            found.append(words)
    return tuple(found)


def _others(nvml: ModuleType, handle: Any) -> int:
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return sum(process.pid != os.getpid() for process in processes)


_GPU_FIGURES: dict[str, Callable[[ModuleType, Any], Any]] = {
    "sm_clock_mhz": lambda nvml, card: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM),
    "memory_clock_mhz": lambda nvml, card: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_MEM),
    "temperature_c": lambda nvml, card: nvml.nvmlDeviceGetTemperature(
        card, nvml.NVML_TEMPERATURE_GPU
    ),
    "power_w": lambda nvml, card: nvml.nvmlDeviceGetPowerUsage(card) / 1e3,
    "throttle": _throttle,
    "other_processes": _others,
    "energy_mj": lambda nvml, card: nvml.nvmlDeviceGetTotalEnergyConsumption(card),
}
"""How NVML gives each figure of a :class:`DeviceState`."""


def _busy_seconds(cpus: Sequence[int]) -> float | None:
    """Return the time the cores were not idle, by anyone; what a hypervisor took counts too."""
    if not cpus:
        return None
    wanted = {f"cpu{number}" for number in cpus}
    try:
        lines = [line.split() for line in _STAT.read_text().splitlines()]
    except OSError:
        return None
    rows = [[int(field) for field in line[1:9]] for line in lines if line and line[0] in wanted]
    # user nice system idle iowait irq softirq steal
    return sum(sum(row) - row[3] - row[4] for row in rows) * _TICK_S if rows else None


def _waited_seconds() -> float | None:
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def _frequency_mhz(cpus: Sequence[int]) -> float | None:
    found = []
    for number in cpus:
        path = Path(f"/sys/devices/system/cpu/cpu{number}/cpufreq/scaling_cur_freq")
        try:
            found.append(int(path.read_text()) / 1e3)
        except (OSError, ValueError):
            return None
    return sum(found) / len(found) if found else None
