"""Energy counters of devices: NVML's of a GPU, RAPL's of the processor packages."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from evaluators.protocol import EvaluationError
from kernels.device import Device
from kernels.telemetry import DeviceState, Telemetry

_POWERCAP = Path("/sys/class/powercap")


class EnergyCounter(Protocol):
    """What a device drew.

    Attributes:
        name: of the counter, in words.
    """

    name: str

    def read_mj(self) -> float:
        """Return the millijoules so far, from any origin that stays.

        Raises:
            EvaluationError: the counter cannot be read.
        """
        ...

    def state(self) -> DeviceState:
        """Return the state of the device now."""
        ...

    def close(self) -> None:
        """Give back what reading needs."""
        ...


def energy_counter(device: Device) -> EnergyCounter:
    """Return the counter of a device.

    Raises:
        EvaluationError: it has none that can be read here; the message is the reason.
    """
    return _Rapl(device) if device.kind == "cpu" else _Nvml(device)


class _Nvml:
    name = "NVML"

    def __init__(self, device: Device) -> None:
        self._telemetry = Telemetry(device)
        try:
            self.read_mj()
        except EvaluationError:
            self.close()
            raise

    def read_mj(self) -> float:
        state = self.state()
        if state.energy_mj is None:
            why = state.problem or "this card does not count it"
            raise EvaluationError(f"Energy is unsupported here: {why}.")
        return float(state.energy_mj)

    def state(self) -> DeviceState:
        return self._telemetry.state()

    def close(self) -> None:
        self._telemetry.close()


class _Rapl:
    """All packages together, as a process may run on any of them; a full counter begins again."""

    name = "RAPL"

    def __init__(self, device: Device) -> None:
        self._telemetry = Telemetry(device)
        self._packages = _packages()
        if not self._packages:
            raise EvaluationError(
                f"Energy is unsupported on this CPU: {_POWERCAP} has no counter of a package."
            )
        self._total_uj = 0
        self._last_uj = [_read_uj(package / "energy_uj") for package in self._packages]

    def read_mj(self) -> float:
        for index, package in enumerate(self._packages):
            now = _read_uj(package / "energy_uj")
            rise = now - self._last_uj[index]
            if rise < 0:
                rise += _read_uj(package / "max_energy_range_uj")
            self._total_uj += rise
            self._last_uj[index] = now
        return self._total_uj / 1e3

    def state(self) -> DeviceState:
        return self._telemetry.state()

    def close(self) -> None:
        self._telemetry.close()


def _packages() -> list[Path]:
    """Return the folders of the packages; parts of them and of the board are counted in others."""
    found = []
    for zone in sorted(_POWERCAP.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
        except OSError:
            continue
        if zone.name.count(":") == 1 and name.startswith("package"):
            found.append(zone)
    return found


def _read_uj(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "no number"
        raise EvaluationError(
            f"Energy is unsupported on this CPU: its counter {path} cannot be read ({reason})."
        ) from None
