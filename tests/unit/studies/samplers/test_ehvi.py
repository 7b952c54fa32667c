"""The sampler ``ehvi``: its parts against closed forms, and what it does in odd studies."""

import logging
import random
import time

import numpy as np
import pytest
from scipy.optimize import check_grad
from threadpoolctl import threadpool_info, threadpool_limits

from evaluators.cost import analytic_cost
from search_spaces.builder import NetworkBuilder
from search_spaces.space import EXAMPLES, space
from search_spaces.zoo import load_space
from search_spaces.zoo.mobile_cnn import mobile_cnn_small
from studies.pareto import hypervolume
from studies.samplers import Free, Lesson, make_sampler
from studies.samplers.ehvi.answers import columns_of, encode, stack
from studies.samplers.ehvi.boxes import Boxes
from studies.samplers.ehvi.design import order_by_news
from studies.samplers.ehvi.graph import COUNTS, graph_features
from studies.samplers.ehvi.kernel import Block, Pairs, decays
from studies.samplers.ehvi.model import Known, find_parameters
from studies.samplers.ehvi.process import Prior, Process, _Likelihood, covariance
from studies.samplers.ehvi.runs import Runs
from studies.samplers.ehvi.scale import UNITS, Scale
from tests.unit.studies.samplers.cases import DIGITS, branching

_log = logging.getLogger(__name__)


def volume(points, reference):
    return hypervolume(points.tolist(), reference.tolist(), ["min"] * len(reference))


class TestBoxes:
    @pytest.mark.parametrize("objectives", [1, 2, 3, 4])
    def test_what_is_certain_makes_the_front_grow_by_its_hypervolume(self, objectives):
        rng = np.random.default_rng(objectives)
        reference = np.full(objectives, 1.0)
        front = rng.random((9, objectives)) * 1.1  # some lie beyond the reference
        points = rng.random((40, objectives)) * 1.2 - 0.1
        found = Boxes.of(front, reference).expected(points, np.full(points.shape, 1e-9))
        inside = front[(front < reference).all(axis=1)]
        for point, growth in zip(points, found, strict=True):
            more = np.vstack([inside, point[None]]) if (point < reference).all() else inside
            exact = volume(more, reference) - volume(inside, reference)
            assert growth == pytest.approx(exact, abs=1e-7)

    def test_what_is_uncertain_grows_by_the_mean_over_draws(self):
        rng = np.random.default_rng(0)
        reference, front = np.ones(2), np.array([[0.1, 0.8], [0.5, 0.4], [0.7, 0.2]])
        mean, deviation = np.array([[0.4, 0.5]]), np.array([[0.2, 0.1]])
        draws = mean + deviation * rng.standard_normal((20_000, 2))
        grown = [
            volume(np.vstack([front, draw]), reference) - volume(front, reference)
            for draw in np.minimum(draws, 1.0 - 1e-12)
        ]
        error = np.std(grown) / np.sqrt(len(grown))
        found = Boxes.of(front, reference).expected(mean, deviation)
        assert abs(found[0] - np.mean(grown)) < 4 * error

    def test_a_front_grows_by_what_its_coordinates_count(self):
        rng = np.random.default_rng(0)
        reference, front = np.ones(2), np.array([[0.1, 0.8], [0.5, 0.4], [0.7, 0.2]])
        counts = [lambda x: np.interp(x, [-4.0, 0.5, 1.0], [-9.0, 0.0, 0.25]), np.asarray]
        mean, deviation = np.array([[0.4, 0.5]]), np.array([[0.2, 0.1]])

        def counted(rows):
            return np.column_stack([count(rows[:, place]) for place, count in enumerate(counts)])

        draws = np.minimum(mean + deviation * rng.standard_normal((20_000, 2)), 1.0 - 1e-12)
        known, limit = counted(front), counted(reference[None])[0]
        grown = [
            volume(np.vstack([known, draw]), limit) - volume(known, limit)
            for draw in counted(draws)
        ]
        error = np.std(grown) / np.sqrt(len(grown))
        found = Boxes.of(front, reference, counts).expected(mean, deviation)
        assert abs(found[0] - np.mean(grown)) < 4 * error
        assert found[0] > 1.5 * Boxes.of(front, reference).expected(mean, deviation)[0]

    def test_without_a_front_all_up_to_the_reference_is_new(self):
        found = Boxes.of(np.empty((0, 2)), np.ones(2)).expected(
            np.array([[0.5, 0.25]]), np.full((1, 2), 1e-9)
        )
        assert found == pytest.approx([0.5 * 0.75])


def blocks_of(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Block.apart(rng.standard_normal((count, 2)), 0.3, linear=True),
        Block.of(rng.standard_normal((count, 3)), 0.5),
    ]


class TestProcess:
    def test_the_gradient_of_its_plausibility_is_right(self):
        blocks = blocks_of(12)
        pairs = Pairs.of(blocks, blocks)
        figures = np.random.default_rng(1).standard_normal(12)
        prior = Prior.of(decays(blocks), len(pairs.products))
        likelihood = _Likelihood(pairs, figures, prior)
        at = prior.mean + 0.3
        error = check_grad(lambda x: likelihood(x)[0], lambda x: likelihood(x)[1], at)
        assert error < 1e-4 * np.linalg.norm(likelihood(at)[1])

    def test_it_predicts_what_the_normal_distribution_says(self):
        blocks = blocks_of(8)
        pairs = Pairs.of(blocks, blocks)
        parameters = Prior.of(decays(blocks), len(pairs.products)).mean
        known, other = np.arange(6), np.arange(6, 8)
        figures = np.array([3.0, 5.0, 4.0, 9.0, 2.0, 7.0])
        process = Process.of(parameters, pairs.take(known, known), figures)
        own = np.array([item.diagonal()[other] for item in pairs.products])
        mean, deviation = process.predict(pairs.take(other, known), own)
        every = covariance(parameters, pairs)
        noise = np.exp(parameters[-1]) * np.eye(6)
        weights = every[6:, :6] @ np.linalg.inv(every[:6, :6] + noise)
        assert mean == pytest.approx(figures.mean() + weights @ (figures - figures.mean()))
        left = every[6:, 6:] - weights @ every[:6, 6:]
        assert deviation == pytest.approx(figures.std() * np.sqrt(np.diag(left)))
        assert process.noise == pytest.approx(figures.std() * np.sqrt(noise[0, 0]))

    def test_points_that_are_the_same_are_no_trouble(self):
        block = [Block.of(np.zeros((5, 2)), 1.0)]
        pairs = Pairs.of(block, block)
        parameters = np.array([0.0, 0.0, -60.0])  # no noise: the covariance is singular
        process = Process.of(parameters, pairs, np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
        mean, _ = process.predict(pairs, np.empty((0, 5)))
        assert mean == pytest.approx(np.full(5, 3.0), abs=1e-2)


def test_the_scale_is_the_same_in_all_units():
    rng = np.random.default_rng(0)
    values, factor, offset = rng.random((30, 2)) * [1, 50], [1e3, 1e-2], [-7.0, 300.0]
    plain = Scale.of(values, values[:10]).apply(values)
    other = values * factor + offset
    assert Scale.of(other, other[:10]).apply(other) == pytest.approx(plain)
    assert plain.min(axis=0) == pytest.approx([0.0, 0.0])


def test_the_scale_of_an_objective_goes_by_the_figures_that_are_known_of_it():
    values, unknown = np.array([[1.0, 5.0], [2.0, 3.0]]), np.nan
    sample = np.array([[unknown, 7.0], [unknown, 9.0], [unknown, 11.0], [4.0, unknown]])
    scale = Scale.of(values, sample)
    assert scale.best.tolist() == [1.0, 3.0]
    assert scale.span.tolist() == [3.0, 6.0]


@pytest.mark.parametrize("unit", UNITS)
def test_growth_on_the_scale_is_the_logarithm_of_spans_whatever_the_unit(unit):
    values = np.linspace(10.0, 14.0, 9)[:, None]
    scale = Scale.of(values, values).with_unit(0, unit)
    found = scale.growth(0, scale.apply(values)[:, 0])
    assert found == pytest.approx(np.log1p((values[:, 0] - 10.0) / 2.0))
    near = 1e-4
    stretched = scale.apply(values + near) - scale.apply(values - near)
    steps = stretched / (2 * near / scale.span)
    assert scale.stretch(values) == pytest.approx(np.log(steps), abs=1e-6)


@pytest.mark.parametrize(("proportional", "expected"), [(True, 0.1), (False, 1.0)])
def test_the_unit_found_is_that_with_which_errors_are_alike(proportional, expected):
    """Two answers tell most; what they leave open grows with the distance from the best, or not."""
    rng = np.random.default_rng(0)
    domain = ehvi()._drafter._search._domain
    points = domain.sample_points[:120]
    size = np.array([sum(float(v.sum() ** 2 + v[0]) for v in p.answers.values()) for p in points])
    rank = np.argsort(np.argsort(size)) / len(points)
    noise = rng.standard_normal(len(points))
    plain = np.exp(5.0 * rank + 0.4 * noise) if proportional else 4.0 * rank + 0.2 * noise
    values = np.column_stack([plain, plain])
    known = Known(points, values, {}, Scale.of(values, values))
    assert find_parameters(domain, known)["objective 0"].unit == expected


def test_answers_differ_by_one_and_numbers_by_how_far_they_are_apart():
    def apart(options, first, second):
        difference = encode(first, options) - encode(second, options)
        return 0.5 * difference @ difference

    assert apart(["a", "b", "c"], 0, 2) == pytest.approx(1.0)
    assert apart([8, 2, 4], 1, 0) == pytest.approx(1.0)  # the smallest and the largest
    assert apart([8, 2, 4], 1, 2) == pytest.approx(0.75)


def test_questions_that_were_not_asked_are_zeros():
    points = [{"a": np.ones(2)}, {"a": np.zeros(2), "b": np.ones(1)}]
    rows, lengths = stack([*points, {"c": np.ones(3)}], columns_of(points))
    assert rows.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert lengths.tolist() == [2, 1, 3]


def test_the_first_points_stand_for_many_others():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.eye(3) * 3, [30, 20, 10], axis=0)
    lonely = np.array([[9.0, 9.0, 9.0]])
    rows = np.vstack([groups + 0.1 * rng.standard_normal(groups.shape), lonely])
    order = order_by_news([Block.of(rows, 1.0)], 4)
    assert [sum(place >= limit for limit in (30, 50, 60)) for place in order] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["nas-bench-201", "mobile-cnn", "decoder-lm", "vit"])
def test_every_node_has_one_neighbourhood(name):
    of = load_space(name)
    data = EXAMPLES[of.reads]
    for seed in range(3):
        architecture = of.sample(random.Random(seed), data).architecture
        features = graph_features(architecture)
        assert np.isfinite(features).all()
        counts = np.expm1(features[COUNTS])
        assert counts.sum() == pytest.approx(len(architecture.nodes))


def test_runs_are_the_functions_own_and_remembered():
    calls = []
    runs = Runs(branching, DIGITS, lambda candidate, *_: calls.append(1) or candidate)
    from search_spaces.choose import ReplayDecider

    for seed in range(30):
        candidate = branching.sample(random.Random(seed), DIGITS)
        for _ in range(2):
            found = runs.run(ReplayDecider(candidate.decisions))
            assert found.decisions == candidate.decisions
            assert found.architecture.key == candidate.architecture.key
    assert len(calls) <= 30


def run(sampler, worth, count, *, ahead=0, violations=lambda candidate: {}):
    """Ask and tell; return the candidates."""
    found, told = [], 0
    for number in range(count):
        while number - told > ahead:
            candidate = found[told]
            key = candidate.architecture.key
            values = worth(candidate)
            sampler.tell(Lesson(told, key, candidate.decisions, values, violations(candidate)))
            told += 1
        pending = [item.decisions for item in found[told:]]
        found.append(sampler.ask(number, pending).candidate)
    return found


def ehvi(of=mobile_cnn_small, *, objectives=2, seed=0, constraints=(), free=None):
    directions = ["min"] * objectives
    return make_sampler(
        "ehvi",
        of,
        DIGITS,
        directions=directions,
        constraints=constraints,
        seed=seed,
        free=free,
    )


def costs(candidate):
    cost = analytic_cost(candidate.architecture)
    return (float(cost.macs), -float(cost.params))


def keys(candidates):
    return [candidate.architecture.key for candidate in candidates]


@pytest.mark.parametrize(
    "worth",
    [
        lambda _: (1.0, 1.0),
        lambda _: None,
        lambda item: (costs(item)[0], 2.0),
        lambda _: (1e300,) * 2,
    ],
    ids=["equal", "failing", "one equal", "huge"],
)
def test_odd_figures_stop_nothing_and_repeat_nothing(worth):
    found = keys(run(ehvi(), worth, 30))
    assert len(set(found)) == 30


@space("alike", version=1)
def alike(choose, data):
    """27 members, all with the same costs and scores."""
    net = NetworkBuilder(data.input_shape)
    x = net.input
    for _, layer in choose.scopes("layer", 3):
        x = net.conv(x, 8, kernel=3, act=layer("act", ["relu", "tanh", "silu"]))
    return net.classifier(x, data.classes)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_space_whose_members_all_cost_the_same_is_searched_to_its_end():
    def smooth(candidate):
        text = candidate.architecture.text
        return (float(text.count("tanh")), float(text.count("relu")))

    found = keys(run(ehvi(alike), smooth, 27))
    assert len(set(found)) == 27


def test_sixty_four_in_flight_are_all_different():
    found = keys(run(ehvi(), costs, 100, ahead=64))
    assert len(set(found)) == 100


@space("vast", version=1)
def vast(choose, data):
    """10^30 members: 30 questions with ten answers each."""
    net = NetworkBuilder(data.input_shape)
    x = net.input
    for _, layer in choose.scopes("layer", 30):
        x = net.conv(x, layer("width", list(range(1, 11))), kernel=1)
    return net.classifier(x, data.classes)


def test_a_space_of_10_to_the_30_is_searched():
    found = run(ehvi(vast), costs, 60)
    assert len(set(keys(found))) == 60
    first, last = (np.mean([costs(item)[0] for item in part]) for part in (found[:10], found[-10:]))
    assert last != first


def test_what_is_known_to_break_a_constraint_is_not_proposed():
    bound = 6000

    def free(candidate):
        params = analytic_cost(candidate.architecture).params
        return Free((np.nan, np.nan), allowed=params <= bound)

    sampler = ehvi(constraints=["params <= 6000"], free=free)
    found = run(sampler, costs, 40)
    assert max(analytic_cost(item.architecture).params for item in found) <= bound


def test_what_is_free_is_known_exactly():
    def luck(candidate):  # nothing predicts it
        return (float(int(candidate.architecture.key[:6], 16)),)

    def median(free):
        found = run(ehvi(objectives=1, free=free), luck, 25)
        return np.median([luck(item)[0] for item in found[10:]])

    assert median(lambda candidate: Free(luck(candidate))) < 0.2 * median(None)


def test_a_free_objective_is_of_interest_as_far_as_it_usually_goes():
    """Although all that was paid for first happens to be cheap."""
    sampler = ehvi(free=lambda candidate: Free((np.nan, costs(candidate)[0])))
    drafter = sampler._drafter
    points = sorted(drafter._domain.sample_points, key=lambda point: point.known[1])
    for number, point in enumerate(points[:10]):
        values = (float(number), point.known[1])
        sampler.tell(Lesson(number, point.key, point.decisions, values))
    memory = drafter._search._memory
    scale = memory.known(memory.moment()).scale
    usual = np.median([point.known[1] for point in points])
    assert scale.best[1] + scale.span[1] == pytest.approx(usual)
    assert scale.span[0] == pytest.approx(4.5)


def test_an_ask_keeps_linear_algebra_to_one_thread():
    found = set()

    def free(candidate):
        pools = threadpool_info()
        found.update(pool["num_threads"] for pool in pools if pool["user_api"] == "blas")
        return Free((np.nan, np.nan))

    with threadpool_limits(2, user_api="blas"):
        run(ehvi(free=free), costs, 12)
        usual = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    assert found == {1}
    assert usual == {2}


def test_constraints_that_grow_are_weighed_as_they_were_when_told():
    """A sampler that is told all at once weighs them as one that was asked in between."""

    def violations(candidate):
        return {"params": analytic_cost(candidate.architecture).params - 5000.0}

    whole = run(ehvi(constraints=["params"]), costs, 40, violations=violations)
    sampler = ehvi(constraints=["params"])
    for number, item in enumerate(whole[:39]):
        lesson = Lesson(number, keys([item])[0], item.decisions, costs(item), violations(item))
        sampler.tell(lesson)
    assert sampler.ask(39, []).candidate == whole[39]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "limit_ms"),
    [("nas-bench-201", 1_000, 100), ("mobile-cnn", 1_000, 100), ("mobile-cnn", 10_000, 500)],
)
def test_a_suggestion_takes_no_longer_after_many_trials(name, count, limit_ms):
    of, rng, sampler = load_space(name), random.Random(0), ehvi(load_space(name))
    luck = np.random.default_rng(0)

    def worth(candidate):
        macs, params = costs(candidate)
        return (macs**0.7 * luck.uniform(0.9, 1.1), luck.normal(0.05, 0.01) * params)

    met: set[str] = set()
    while len(met) < count:
        candidate = of.sample(rng, DIGITS)
        if (key := candidate.architecture.key) not in met:
            sampler.tell(Lesson(len(met), key, candidate.decisions, worth(candidate)))
            met.add(key)
    times = []
    for number in range(count, count + 25):
        begin = time.perf_counter()
        candidate = sampler.ask(number, []).candidate
        times.append(1e3 * (time.perf_counter() - begin))
        lesson = Lesson(number, keys([candidate])[0], candidate.decisions, worth(candidate))
        sampler.tell(lesson)
    _log.info("%s, %d trials: median %.0f ms of %s", name, count, np.median(times), sorted(times))
    assert np.median(times) <= limit_ms
