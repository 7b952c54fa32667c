import shutil
import statistics
import time
from dataclasses import dataclass

import pytest

from evaluators.protocol import Measured
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.front import front
from studies.manage import show_study
from studies.storage import Repository, TrialState
from studies.workspace import Workspace
from tests.unit.studies.storage.records import OBJECTIVES, SAMPLER, bulk_study, found

LARGE = 100_000


@dataclass(frozen=True)
class Costs:
    """Seconds; of a trial, the median over 100."""

    trial: float
    rows: float
    front_and_summary: float


def begin_to_end(repository, study, number):
    """Record a trial as a driver does: an inline evaluator, a measurement, a training."""
    net = Architecture.parse(f"input 1x8x8; conv {number % 97 + 1} k3; gap; flatten; linear 10")
    candidate = Candidate(net, {f"stage{place}/width": 16 for place in range(30)})
    samples = {"samples": [0.5] * 100}
    evaluations = [
        found(*[Measured(name, 1.5) for name in (*OBJECTIVES, "depth", "layers")]),
        found(Measured("latency_ms", 1.0, 0.5, 2.0, samples), key=f"latency-{study.id}-{number}"),
        found(Measured("accuracy", 0.5, 0.4, 0.6, samples), key=f"accuracy-{study.id}-{number}"),
    ]
    start = time.perf_counter()
    trial = repository.add_trial(study.id, number, candidate, origin=SAMPLER)
    for evaluation in evaluations:
        repository.add_evaluation(trial, evaluation)
    repository.finish_trial(trial, TrialState.COMPLETE)
    return time.perf_counter() - start


def costs(path, size):
    with Repository.open(path) as repository:
        study = repository.study("big")
        trials = [begin_to_end(repository, study, size + number) for number in range(100)]
    place = Workspace(path.parent, f"sqlite:///{path}")
    start = time.perf_counter()
    front(place, "big")
    assert show_study(place, "big").line.counts[TrialState.COMPLETE] == size + 100
    both = time.perf_counter() - start
    with Repository.open(path) as repository:
        start = time.perf_counter()
        ids, _, values = repository.objective_rows(study.id, OBJECTIVES)
        rows = time.perf_counter() - start
    assert (ids.shape, values.shape) == ((size + 100,), (size + 100, len(OBJECTIVES)))
    return Costs(statistics.median(trials), rows, both)


def best_of(path, size, tries=3):
    """Other processes share the machine: the best of some tries is what the code takes."""
    every = []
    for attempt in range(tries):
        copy = path.with_name(f"{attempt}.db")
        shutil.copy(path, copy)
        every.append(costs(copy, size))
        copy.unlink()
    return Costs(
        min(item.trial for item in every),
        min(item.rows for item in every),
        min(item.front_and_summary for item in every),
    )


def test_a_study_of_2000_trials_is_written_and_read_fast(tmp_path):
    bulk_study(tmp_path / "record.db", 2000)
    found_costs = best_of(tmp_path / "record.db", 2000)
    assert found_costs.trial <= 0.003 * 2, found_costs  # twice: several test runs share a core
    assert found_costs.rows <= 0.1, found_costs
    assert found_costs.front_and_summary <= 0.3, found_costs


@pytest.mark.slow
def test_a_study_of_100000_trials_costs_no_more_a_trial(tmp_path):
    small, large = tmp_path / "small.db", tmp_path / "large.db"
    bulk_study(small, 2000)
    bulk_study(large, LARGE)
    little, much = best_of(small, 2000), best_of(large, LARGE)
    assert much.trial <= 0.003, much
    assert much.trial <= 2 * little.trial, (little, much)
    assert much.rows <= 0.8, much
    assert much.front_and_summary <= 2, much


@pytest.mark.slow
def test_all_of_100000_trials_are_read_in_seconds(tmp_path):
    path = tmp_path / "record.db"
    bulk_study(path, LARGE)
    with Repository.open(path) as repository:
        start = time.perf_counter()
        assert len(repository.trials(1)) == LARGE
        assert time.perf_counter() - start <= 15
