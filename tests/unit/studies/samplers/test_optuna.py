"""Optuna's samplers on a shelf, and samplers of the user."""

import random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from kernels.errors import NasError
from studies.samplers import Lesson, make_sampler
from studies.samplers.encoding import Encoding
from studies.samplers.genetic import Genetic
from studies.samplers.guided import Problem
from studies.samplers.models import Gp, Tpe
from studies.samplers.questions import answers_of
from studies.samplers.shelf import STUDY, Shelf, make_trial
from tests.unit.studies.samplers.cases import BOUND, DIGITS, branching, sampler_of, study, worth

DISTRIBUTIONS = {name: CategoricalDistribution(range(5)) for name in "abc"}


def some_trials(count):
    rng = random.Random(0)
    trials = []
    for number in range(count):
        trials.append(
            make_trial(
                number,
                TrialState.COMPLETE,
                values=[rng.random(), rng.random()],
                params={name: rng.randrange(5) for name in "abc"},
                distributions=DISTRIBUTIONS,
            )
        )
        trials[-1].set_constraint("c", rng.random() - 0.7)
    return trials


def suggested(study_):
    trial = study_.ask()
    return [trial.suggest_categorical(name, range(5)) for name in "abc"]


@pytest.mark.parametrize("seed", range(5))
def test_a_shelf_serves_samplers_like_optunas_own_storage(seed):
    ordinary = optuna.create_study(
        directions=["minimize", "maximize"], sampler=TPESampler(multivariate=True, seed=seed)
    )
    ordinary.add_trials(some_trials(40))
    shelf = Shelf([StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE], some_trials(40))
    other = optuna.Study(STUDY, shelf, TPESampler(multivariate=True, seed=seed))
    assert [suggested(other) for _ in range(3)] == [suggested(ordinary) for _ in range(3)]


def test_a_shelf_is_filled_once():
    shelf = Shelf([StudyDirection.MINIMIZE], [])
    for refused in (
        lambda: shelf.create_new_study([StudyDirection.MINIMIZE]),
        lambda: shelf.delete_study(0),
        lambda: shelf.create_new_trial(0, make_trial(0, TrialState.RUNNING)),
        shelf.get_all_studies,
    ):
        with pytest.raises(NotImplementedError):
            refused()


def test_a_shelf_leaves_its_trials_as_they_were():
    trials = some_trials(3)
    running = make_trial(3, TrialState.RUNNING)
    shelf = Shelf([StudyDirection.MINIMIZE], [*trials, running])
    shelf.set_trial_param(3, "a", 1.0, DISTRIBUTIONS["a"])
    shelf.set_trial_system_attr(3, "x", 1)
    shelf.set_trial_user_attr(3, "y", 2)
    shelf.set_trial_intermediate_value(3, 0, 0.5)
    shelf.set_trial_state_values(3, TrialState.COMPLETE, [1.0])
    assert (running.params, running.system_attrs, running.state) == ({}, {}, TrialState.RUNNING)
    changed = shelf.get_trial(3)
    assert (changed.params, changed.values, changed.user_attrs) == ({"a": 1}, [1.0], {"y": 2})
    assert (changed.system_attrs, changed.intermediate_values) == ({"x": 1}, {0: 0.5})
    assert [trial.number for trial in shelf.get_all_trials(0)] == [0, 1, 2, 3]


def test_every_candidate_is_a_vector_of_one_length():
    rng = random.Random(0)
    answers = [
        answers_of(branching.sample(rng, DIGITS).decisions, branching, DIGITS) for _ in range(40)
    ]
    encoding = Encoding(answers)
    for item in answers:
        params = encoding.params(item)
        assert list(params) == list(encoding.distributions)
        for name, value in params.items():
            choices = encoding.distributions[name].choices
            assert value in choices
            assert (value == item.positions.get(name)) or value == encoding.sizes[name]
    assert len(encoding.distributions["blocks[1, 2, 3]"].choices) == 3  # always asked
    assert len(encoding.distributions["block2/kernel[1, 3, 5]"].choices) == 4


def constrained_lessons(count):
    """Half the lessons are infeasible, by different amounts, and have no values."""
    rng = random.Random(4)
    for number in range(count):
        candidate = branching.sample(rng, DIGITS)
        values = None if number % 2 else worth(candidate)
        excess = 1.0 + number if number % 2 else -1.0
        key = f"{candidate.architecture.key}-{number}"
        yield Lesson(number, key, candidate.decisions, values, {BOUND: excess})


@pytest.mark.parametrize(("kind", "name"), [(Tpe, "tpe"), (Genetic, "nsga2")])
def test_the_placeholder_of_an_infeasible_lesson_says_nothing(kind, name):
    def proposals(placeholder):
        class Other(kind):
            def placeholder(self, entries):
                return placeholder

        drafter = Other(name, Problem(branching, DIGITS, ("min", "max"), (BOUND,), 0))
        for lesson in constrained_lessons(65):
            drafter.learn(lesson)
        return [next(drafter.drafts(random.Random(0), n, [])) for n in range(65, 70)]

    assert proposals((0.0, 0.0)) == proposals((-1e9, 1e9))


def test_gaussian_processes_take_the_mean_where_a_value_is_not_known():
    drafter = Gp("gp", Problem(branching, DIGITS, ("min", "max"), (BOUND,), 0))
    drafter.learn(Lesson(0, "a", {}, (1.0, 10.0)))
    drafter.learn(Lesson(1, "b", {}, (3.0, 30.0)))
    drafter.learn(Lesson(2, "c", {}, None, {BOUND: 1.0}))
    assert drafter.placeholder(drafter.considered()) == (2.0, 20.0)


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_pending_trials_are_taken_into_account(name):
    sampler = sampler_of(name)
    study(sampler, 15)
    first = sampler.ask(15, [])
    pending = [branching.sample(random.Random(seed), DIGITS).decisions for seed in range(12)]
    assert first.origin["kind"] == name
    assert first.candidate.decisions not in pending
    assert sampler.ask(15, pending) != first


def test_a_record_that_no_longer_fits_is_left_out_and_said(caplog):
    sampler = sampler_of("tpe")
    sampler.tell(Lesson(7, "k", {"stem": 4, "blocks": 9}, (1.0, 2.0)))
    assert sampler.ask(8, []).candidate.architecture.params > 0
    assert "Trial 7 no longer fits" in caplog.text


SAMPLER_FILE = """
import optuna

class Own(optuna.samplers.RandomSampler):
    pass

def broken(seed):
    raise ValueError("no luck")

def number(seed):
    return seed

def genetic(seed):
    return optuna.samplers.NSGAIISampler(seed=seed)

def without_seed():
    return optuna.samplers.RandomSampler()

class Failing(optuna.samplers.RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        raise RuntimeError("lost the thread")

constant = 3
"""


@pytest.fixture
def sampler_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SAMPLER_FILE)
    return str(path)


def test_a_sampler_of_the_user_from_a_module_or_a_file(sampler_file):
    for reference in ("optuna.samplers:TPESampler", f"{sampler_file}:Own"):
        whole = study(sampler_of(reference), 20)
        assert whole[0][0].origin == {"by": "sampler", "kind": reference}
        assert study(sampler_of(reference), 20, told=whole[:9]) == whole


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("no.such.module:Name", "Cannot import .no.such.module. for the sampler"),
        ("missing.py:Name", "There is no Python file .*missing.py"),
        ("FILE:Owm", "Did you mean 'Own'"),
        ("FILE:constant", "is no sampler"),
        ("FILE:broken", "failed: ValueError: no luck"),
        ("FILE:number", "gives int"),
        ("FILE:without_seed", "failed: TypeError"),
        ("FILE:genetic", "counts generations"),
    ],
)
def test_a_sampler_that_cannot_be_made_is_one_line(reference, words, sampler_file):
    with pytest.raises(NasError, match=words) as caught:
        make_sampler(
            reference.replace("FILE", sampler_file),
            branching,
            DIGITS,
            directions=["min"],
            constraints=[],
            seed=0,
        )
    assert "\n" not in str(caught.value)


def test_a_sampler_that_fails_when_asked_says_which(sampler_file):
    with pytest.raises(NasError, match=r"Failing failed: RuntimeError: lost the thread"):
        sampler_of(f"{sampler_file}:Failing").ask(0, [])


def test_a_file_that_cannot_be_read_as_python_is_one_line(tmp_path):
    (tmp_path / "bad.py").write_text("def (")
    with pytest.raises(NasError, match="SyntaxError"):
        sampler_of(f"{tmp_path / 'bad.py'}:Name")
