"""What processes do that race for a record; imports little, as each process imports it anew."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from evaluators.protocol import Measured
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.storage import Evaluation, Owner, Repository, StudyBusyError

NET = Architecture.parse("input 1x8x8; gap; flatten; linear 10")


def take_all(target: Path | str, keys: list[str], results: Queue[Any], ready: Barrier) -> None:
    """Take what is free of some claims and the lease of the first study."""
    with Repository.open(target) as repository:
        me = Owner.here()
        ready.wait()
        won = [key for key in keys if repository.claim(key, me, 60)]
        try:
            repository.take_lease(1, me, 60)
            won.append("lease")
        except StudyBusyError:
            pass
        results.put(won)
        ready.wait()  # alive until all have tried


def write_all(target: Path | str, trials: int, results: Queue[Any], ready: Barrier) -> None:
    """Open a record that may not exist, and give trials the figures of shared keys."""
    with Repository.open(target) as repository:
        ready.wait()
        for number in range(trials):
            name = f"{os.getpid()}-{number}"
            study = repository.add_study(name, {}, conditions={}, versions={})
            trial = repository.add_trial(study.id, 0, Candidate(NET, {}), origin={})
            if repository.reuse(trial, f"k{number}", ["x"]) is None:
                now = datetime.now(UTC)
                figures = (Measured("x", float(os.getpid())),)
                evaluation = Evaluation("e", f"k{number}", figures, now, now)
                repository.add_evaluation(trial, evaluation)
        results.put(os.getpid())
