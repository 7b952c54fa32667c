"""The sampler ``ehvi`` as an ordinary Optuna sampler: the contract that Optuna ships."""

import pickle

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from studies.samplers.ehvi.optuna_sampler import EhviSampler


class TestContract(BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return EhviSampler


def study_of(directions=("minimize", "minimize"), **settings):
    return optuna.create_study(sampler=EhviSampler(seed=0, **settings), directions=directions)


def test_a_space_of_three_is_tried_whole_and_its_end_is_said(caplog):
    study = study_of()
    study.optimize(lambda trial: (trial.suggest_categorical("x", "abc") == "a", 1.0), n_trials=3)
    assert {trial.params["x"] for trial in study.trials} == set("abc")
    assert "were tried" not in caplog.text
    study.optimize(lambda trial: (trial.suggest_categorical("x", "abc") == "a", 1.0), n_trials=2)
    assert caplog.text.count("were tried") == 1
    assert len(study.trials) == 5


def test_no_combination_is_left_out_before_one_repeats():
    study = study_of()

    def objective(trial):
        x, y = trial.suggest_int("x", 0, 9), trial.suggest_categorical("y", [1, 2, 4, 8])
        return x * y, (x - 9) ** 2

    study.optimize(objective, n_trials=40)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 40


def test_constraints_by_name_are_kept():
    study = study_of()

    def objective(trial):
        total = sum(trial.suggest_int(f"x{place}", 0, 5) for place in range(6))
        trial.set_constraint("at most", total - 12)
        trial.set_constraint("at least", 8 - total)
        return -total, trial.params["x0"]

    study.optimize(objective, n_trials=60)
    kept = [all(value <= 0 for value in trial.constraints.values()) for trial in study.trials]
    assert sum(kept[-20:]) >= 15
    assert sum(kept[-20:]) > sum(kept[:20])


def test_trials_that_fail_are_not_tried_again_nor_those_that_run():
    study = study_of()
    running = [study.ask() for _ in range(12)]
    for trial in running:
        trial.suggest_int("x", 0, 99), trial.suggest_int("y", 0, 99)

    def objective(trial):
        x, y = trial.suggest_int("x", 0, 99), trial.suggest_int("y", 0, 99)
        if (x + y) % 3 == 0:
            raise ValueError("as it happens")
        return x, y

    study.optimize(objective, n_trials=30, catch=ValueError)
    tried = [tuple(trial.params.values()) for trial in study.trials]
    assert len(set(tried[1:])) == len(tried) - 1


def test_a_copy_and_a_sampler_that_joins_later_propose_the_same():
    study = study_of()

    def objective(trial):
        kind = trial.suggest_categorical("kind", ["a", "b"])
        size = trial.suggest_int(f"size of {kind}", 1, 12)
        return size + 3 * (kind == "b"), (size - 7) ** 2

    study.optimize(objective, n_trials=15)
    copy = pickle.loads(pickle.dumps(study.sampler))
    proposals = []
    for sampler in (study.sampler, copy, EhviSampler(seed=0)):
        other = study_of()
        other.add_trials(study.trials)
        other.sampler = sampler
        proposals.append(other.ask({"kind": CategoricalDistribution(["a", "b"])}).params)
    assert proposals[0] == proposals[1] == proposals[2]


def test_features_are_made_use_of():
    """What the objective depends on cannot be seen from single parameters."""

    def feature(params):
        return [float(sum(value * 3**place for place, value in enumerate(params.values())) % 17)]

    def best(features):
        study = study_of(["minimize"], features=features)

        def objective(trial):
            params = {name: trial.suggest_int(name, 0, 2) for name in "abcdef"}
            return feature(params)[0] + 0.01 * params["a"]

        study.optimize(objective, n_trials=30)
        return np.mean([trial.value for trial in study.trials[15:]])

    assert best(feature) < best(None)
