"""Whether a sampler finds candidates as fast as its workers evaluate them."""

from __future__ import annotations

import time

_SECONDS = 20.0
"""How long to look before anything is said."""
_SHARE = 0.1
"""Share of the workers' time without anything to do that is too much."""


class Pace:
    """Whether a sampler keeps its workers busy.

    Args:
        sampler: its name.
    """

    def __init__(self, sampler: str) -> None:
        self._sampler = sampler
        self._begun = self._last = time.monotonic()
        self._idle = self._all = 0.0
        self._asks, self._asking = 0, 0.0
        self._said = False

    def see(self, *, slots: int, busy: int, asking: bool) -> None:
        """Count the time since it was called last: what workers had to do, and whether one asked.

        Args:
            slots: how many evaluations can run at once.
            busy: how many are given out.
            asking: whether a proposal is being worked out.
        """
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        self._all += slots * seconds
        if asking:
            self._asking += seconds
            self._idle += max(0, slots - busy) * seconds

    def proposed(self) -> None:
        """Count a proposal."""
        self._asks += 1

    def complaint(self) -> str | None:
        """Say once that the sampler cannot keep up; None while it does."""
        old = time.monotonic() - self._begun > _SECONDS
        if self._said or not old or self._idle <= _SHARE * self._all:
            return None
        self._said = True
        share = self._idle / self._all
        each = self._asking / max(1, self._asks)
        return (
            f"The sampler {self._sampler!r} cannot keep up: it takes {each:.2g} s a proposal, and "
            f"for {100 * share:.0f} % of their time workers had nothing to do. Use fewer workers, "
            "or another sampler."
        )
