"""A line for each trial that ends: what a log file and a pipe get."""

from __future__ import annotations

from nas.figures import number
from studies.flight import Progress
from studies.presets import BASELINE


def progress_line(progress: Progress, objectives: tuple[str, ...]) -> str:
    """Say how a trial ended."""
    trial = progress.trial
    head = f"[{progress.complete}/{progress.trials}] trial {trial.number} {trial.key[:8]}"
    if trial.origin.get("by") == BASELINE:
        head += f" {trial.origin['name']}"
    if trial.reason is not None:
        return f"{head} {trial.state}: {trial.reason}"
    return f"{head} {', '.join(f'{n} {number(n, trial.values[n].value)}' for n in objectives)}"
