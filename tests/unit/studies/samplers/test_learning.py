"""Samplers find what is good, and what is allowed."""

import math
import statistics

import pytest

from evaluators.cost import analytic_cost
from evaluators.proxies.receptive_field import receptive_field
from search_spaces.space import DataSpec
from search_spaces.zoo.mobile_cnn import mobile_cnn_small
from search_spaces.zoo.nas_bench_201 import nas_bench_201
from studies.pareto import hypervolume
from studies.samplers import Lesson, make_sampler
from tests.unit.studies.samplers.cases import DIGITS, FAST

ONE_CELL = nas_bench_201.preset("one-cell", cells=1)
BOUND = "params <= 6000"


@pytest.mark.parametrize("name", [name for name in FAST if name != "random"])
def test_what_is_told_is_learnt(name):
    sampler = make_sampler(
        name, mobile_cnn_small, DIGITS, directions=["min"], constraints=[], seed=3
    )
    sizes = []
    for number in range(100):
        candidate = sampler.ask(number, []).candidate
        sizes.append(candidate.architecture.macs)
        key = candidate.architecture.key
        sampler.tell(Lesson(number, key, candidate.decisions, (sizes[-1],)))  # whole numbers
    assert statistics.median(sizes[-20:]) < 0.5 * statistics.median(sizes[:20])


def infeasible_share(name, *, dropped, trials, seed=0, space=mobile_cnn_small, bound=6000.0):
    """Make networks large under a bound on their size; return the infeasible among the last 30.

    Args:
        name: of the sampler.
        dropped: whether infeasible networks have no values, and are held against one bound only.
        trials: how many.
        seed: of the study.
        space: the space.
        bound: most parameters.
    """
    sampler = make_sampler(
        name,
        space,
        DIGITS,
        directions=["max", "min"],
        constraints=[BOUND, "macs <= 1e9"],
        seed=seed,
    )
    violations = []
    for number in range(trials):
        candidate = sampler.ask(number, []).candidate
        cost = analytic_cost(candidate.architecture)
        violations.append(cost.params - bound)
        values = (float(cost.params), float(cost.depth))
        told = {BOUND: violations[-1]}
        if not (dropped and violations[-1] > 0):
            told["macs <= 1e9"] = cost.macs - 1e9
        sampler.tell(
            Lesson(
                number,
                candidate.architecture.key,
                candidate.decisions,
                None if dropped and violations[-1] > 0 else values,
                told,
            )
        )
    return sum(item > 0 for item in violations[-30:]) / 30


@pytest.mark.parametrize("dropped", [False, True], ids=["known", "dropped"])
@pytest.mark.parametrize("name", [name for name in FAST if name != "random"])
def test_constraints_are_learnt_although_the_best_break_them(name, dropped):
    share = statistics.mean(
        infeasible_share(name, dropped=dropped, trials=130, seed=seed) for seed in range(2)
    )
    by_chance = infeasible_share("random", dropped=dropped, trials=130)
    assert by_chance > 0.7
    assert share < by_chance - 0.2


@pytest.mark.slow
def test_gaussian_processes_learn_constraints_from_what_was_dropped():
    settings = {"dropped": True, "trials": 45, "space": ONE_CELL, "bound": 80_000.0}
    by_chance = infeasible_share("random", **settings)
    assert by_chance > 0.5
    assert infeasible_share("gp", **settings) < by_chance - 0.2


def front_volume(name, seed, trials=120):
    """Return the volume of the front of parameters and gain in receptive field."""
    data = DataSpec((3, 32, 32), 10)
    sampler = make_sampler(
        name, ONE_CELL, data, directions=["min", "max"], constraints=[], seed=seed
    )
    points = []
    for number in range(trials):
        candidate = sampler.ask(number, []).candidate
        gain = receptive_field(candidate.architecture).gain
        size = math.log1p(candidate.architecture.params)
        values = (size, gain) if math.isfinite(gain) else None
        sampler.tell(Lesson(number, candidate.architecture.key, candidate.decisions, values))
        if values is not None:
            points.append(values)
    return hypervolume(points, (14.0, -5.0), ["min", "max"])


def test_evolution_beats_random_search_at_equal_trials():
    for seed in range(5):
        assert front_volume("evolution", seed) > front_volume("random", seed)
