"""Watches the rounds of a measurement and says which were disturbed, and by what."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernels.telemetry import DeviceState, Telemetry, foreign_share, waiting_share

REFERENCE = "reference"
"""Name of the reference work among what is timed."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a round may differ by and still count.

    Attributes:
        reference: how much slower its reference may be than in the fastest round, relative.
        known: how much slower the fastest round's reference may be than the best ever seen here.
        lucky: share of the rounds that may have been faster by luck: none of these is that fastest.
        waiting: share of a round in which the measuring thread had to wait for its core.
        foreign: share of the measured core's time that others used.
    """

    reference: float
    known: float
    lucky: float = 0.0
    waiting: float = 0.02
    foreign: float = 0.10


# Quiet repetitions on an H200 keep the reference within 1 %, on a shared two-core machine within
# 5 %, where neighbours on the host come and go. One round of 629 on an H100 had a reference 5 %
# faster than any other beside it, and the network was not: no reason against the others.
GPU_TOLERANCE = Tolerance(reference=0.03, known=0.08, lucky=0.2)
CPU_TOLERANCE = Tolerance(reference=0.08, known=0.5)


class Watch:
    """A :class:`kernels.timing.RoundObserver` that judges rounds.

    Args:
        telemetry: of the measured device.
        cores: how many cores it watches; 0 on a GPU.
        tolerance: what still counts.
        known_us: the best reference ever seen on this device.
    """

    def __init__(
        self, telemetry: Telemetry, cores: int, tolerance: Tolerance, known_us: float | None
    ) -> None:
        self._telemetry, self._cores = telemetry, cores
        self._tolerance, self._known_us = tolerance, known_us
        self.states: list[tuple[DeviceState, DeviceState]] = []
        self.reference_us: list[float] = []
        self._begun: DeviceState | None = None

    def before(self, index: int) -> None:
        """See :class:`kernels.timing.RoundObserver`."""
        self._begun = self._telemetry.state()

    def after(self, index: int, samples_us: Mapping[str, Sequence[float]]) -> None:
        """See :class:`kernels.timing.RoundObserver`."""
        assert self._begun is not None, "a round begins before it ends"
        self.states.append((self._begun, self._telemetry.state()))
        self.reference_us.append(statistics.median(samples_us[REFERENCE]))

    def repeats(self) -> int:
        """See :class:`kernels.timing.RoundObserver`."""
        return len(self.disturbed())

    def disturbed(self) -> dict[int, list[str]]:
        """Return the reasons against each round that does not count."""
        found = {index: self._reasons(index) for index in range(len(self.states))}
        return {index: reasons for index, reasons in found.items() if reasons}

    @property
    def steady_us(self) -> float:
        """The reference of the fastest round that was not lucky, in microseconds."""
        lucky = int(self._tolerance.lucky * len(self.reference_us))
        return sorted(self.reference_us)[lucky]

    def slow_throughout(self) -> str | None:
        """Return why even the fastest round is not to be trusted; None where it is."""
        if not self.reference_us:
            return None
        seen = [*self.reference_us, *([self._known_us] if self._known_us else [])]
        ratio = self.steady_us / min(seen)
        if ratio <= 1 + self._tolerance.known:
            return None
        return f"the reference took {ratio:.2f} times the best seen on this device throughout"

    def _reasons(self, index: int) -> list[str]:
        limit = self._tolerance
        reasons = []
        slower = self.reference_us[index] / self.steady_us - 1
        if slower > limit.reference:
            reasons.append(f"the reference was {100 * slower:.0f} % slower")
        first, last = self.states[index]
        new = set(last.throttle) - set(self.states[0][0].throttle)
        reasons += sorted(f"throttled: {item}" for item in new)
        waited = waiting_share(first, last)
        if self._cores and waited is not None and waited > limit.waiting:
            reasons.append(f"waited for the core {100 * waited:.0f} % of the time")
        foreign = foreign_share(first, last, self._cores) if self._cores else None
        if foreign is not None and foreign > limit.foreign + _tick_share(first, last):
            reasons.append(f"others used {100 * foreign:.0f} % of the core")
        return reasons


def _tick_share(first: DeviceState, last: DeviceState) -> float:
    """Return what the kernel's count of busy time may be off by, at its 10 ms steps."""
    return 0.02 / max(1e-6, last.time_s - first.time_s)
