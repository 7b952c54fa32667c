"""Evaluators that note when they begin and end, so that what was paid for can be counted."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

from evaluators.protocol import Measured, Slot
from search_spaces.architecture import Architecture


class Paid:
    """Gives a function of the network's key, after a while that is one too.

    Args:
        folder: of the diary; one file for all, each line written at once.
        metric: what it gives.
        seconds: the mean of how long it takes; 0 takes no time and notes nothing.
        slot: where it runs.
    """

    steps = 4

    def __init__(self, folder: Path, metric: str, seconds: float, slot: Slot) -> None:
        self.folder, self.seconds = folder, seconds
        self.metrics: tuple[str, ...] = (metric,)
        self.slot: Slot = slot

    def until(self, step: int, metrics: tuple[str, ...]) -> Paid:
        return Paid(self.folder, metrics[0], self.seconds * step / self.steps, self.slot)

    def state_files(self, architecture: Architecture) -> tuple[Path, ...]:
        return ()

    def cache_key(self, architecture: Architecture) -> str:
        return f"paid-{self.metrics[0]}-{architecture.key}"

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        rng = Random(self.cache_key(architecture))
        value = rng.random()
        if self.seconds:
            self._note("begin", architecture)
            time.sleep(min(6 * self.seconds, rng.expovariate(1 / self.seconds)))
            self._note("end", architecture)
        return [Measured(self.metrics[0], value, value - 0.01, value + 0.01)]

    def _note(self, word: str, architecture: Architecture) -> None:
        line = f"{word} {self.cache_key(architecture)} {time.time()} {os.getpid()}\n"
        file = os.open(self.folder / "diary", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, line.encode())
        os.close(file)
