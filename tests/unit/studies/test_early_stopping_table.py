"""Early stopping on the NAS-Bench-201 table: what it saves, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest

from studies.config import StudyConfig
from studies.pareto import hypervolume
from studies.search import run_study
from studies.storage import TrialState
from studies.workspace import Workspace
from tests.unit.studies.table import (
    EARLY,
    EPOCHS,
    FOLDER,
    TableAccuracy,
    TableCost,
    table,
    table_space,
)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no table in {FOLDER}")


def run(place, *, seed, cost, candidates, sampler, rungs=(), control=0.1):
    config = StudyConfig(
        name="nb",
        space="nb201-table",
        data="digits",
        objectives=("accuracy", f"{cost}:min"),
        trials=10**6,
        candidates=candidates,
        rungs=rungs,
        control=control,
        sampler=sampler,
        seed=seed,
        workers=0,
        max_drops=10**6,
        max_repeats=10**6,
        device="cpu",
    )
    run_study(config, place, space=table_space, evaluators=[TableCost(cost), TableAccuracy()])
    with Workspace.of(place).open() as repository:
        return repository.trials(repository.study("nb").id)


def epochs(trials):
    """Trained by a study."""
    total = 0
    for trial in trials:
        if trial.state is TrialState.COMPLETE:
            total += EPOCHS
        elif f"accuracy[epoch={EARLY}]" in trial.values and trial.state is TrialState.DROPPED:
            total += EARLY
    return total


def volume(trials, cost):
    """Of the final front; each objective is scaled over the table, whose worst is the reference."""
    rows = table().values()
    worst = np.array(
        [100 - min(row["cifar10_test_200"] for row in rows), max(row[cost] for row in rows)]
    )
    best = np.array(
        [100 - max(row["cifar10_test_200"] for row in rows), min(row[cost] for row in rows)]
    )
    points = [
        [100 - 100 * trial.values["accuracy"].value, trial.values[cost].value]
        for trial in trials
        if trial.state is TrialState.COMPLETE
    ]
    scaled = (np.array(points) - best) / (worst - best)
    return hypervolume(scaled.tolist(), [1.0, 1.0], ["min", "min"])


def compare(folder, *, seeds, candidates, sampler, cost, keep):
    saved, lost = [], []
    for seed in seeds:
        same = {"seed": seed, "cost": cost, "candidates": candidates, "sampler": sampler}
        full = run(folder / f"full-{seed}", **same)
        part = run(folder / f"part-{seed}", **same, rungs=[f"{EARLY}:{keep}"])
        begun = sum(trial.state is not TrialState.REPEAT for trial in part)
        saved.append(1 - epochs(part) / (EPOCHS * begun))
        lost.append(1 - volume(part, cost) / volume(full, cost))
    return np.array(saved), np.array(lost)


def test_two_seeds_save_epochs_and_lose_next_to_nothing(tmp_path):
    saved, lost = compare(
        tmp_path, seeds=range(2), candidates=120, sampler="random", cost="flops", keep=0.33
    )
    assert saved.mean() >= 0.4, saved
    assert lost.mean() <= 0.01, lost


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "evolution"])
@pytest.mark.parametrize("cost", ["flops", "titan_rtx_256"])
@pytest.mark.parametrize(("keep", "least"), [(0.5, 0.35), (0.33, 0.4)])
def test_ten_seeds(tmp_path, sampler, cost, keep, least):
    saved, lost = compare(
        tmp_path, seeds=range(10), candidates=300, sampler=sampler, cost=cost, keep=keep
    )
    row = f"{sampler} {cost} keep {keep}: saved {saved.mean():.3f}, lost {lost.mean():.5f}"
    print(f"\n{row} (worst {lost.max():.5f})")  # noqa: T201
    assert saved.mean() >= least, row  # by default a third goes on
    assert lost.mean() <= 0.01, row
