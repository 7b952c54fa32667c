"""Lines about work that goes on: what a log file and a pipe get."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nas.figures import duration, number
from nas.output import progress
from studies.flight import Progress
from studies.presets import BASELINE

if TYPE_CHECKING:
    from evaluators.accuracy.training import Epoch

SAY_SECONDS = 10.0
"""Between two lines about a training that goes on."""


def progress_line(item: Progress, objectives: tuple[str, ...]) -> str:
    """Say how a trial ended."""
    trial = item.trial
    head = f"[{item.complete}/{item.trials}] trial {trial.number} {trial.key[:8]}"
    if trial.origin.get("by") == BASELINE:
        head += f" {trial.origin['name']}"
    if trial.reason is not None:
        return f"{head} {trial.state}: {trial.reason}"
    return f"{head} {', '.join(f'{n} {number(n, trial.values[n].value)}' for n in objectives)}"


class Teller:
    """Says every now and then how a training goes on.

    Args:
        head: begins each line.
        epochs: how many there will be.
    """

    def __init__(self, head: str, epochs: int) -> None:
        self._head, self._epochs = head, epochs
        self._said = time.monotonic()
        self._first: tuple[int, float] | None = None

    def __call__(self, epoch: Epoch) -> None:
        """Note an epoch that ended."""
        now = time.monotonic()
        if self._first is None:  # it may be far on already, from a checkpoint
            self._first = (epoch.number, now)
        if now - self._said < SAY_SECONDS or epoch.number == self._epochs:
            return
        self._said = now
        first, since = self._first
        left = ""
        if epoch.number > first:
            pace = (now - since) / (epoch.number - first)
            left = f", about {duration(pace * (self._epochs - epoch.number))} left"
        judged = epoch.validation.figures[0]
        progress(
            f"{self._head}: epoch {epoch.number}/{self._epochs}, loss {epoch.train_loss:.3f}, "
            f"validation {number(judged.metric, judged.value)}{left}"
        )
