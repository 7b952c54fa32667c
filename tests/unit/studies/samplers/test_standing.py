"""Where candidates stand among random ones, and what ``ehvi`` makes of it."""

import random

import numpy as np
import pytest

from evaluators.analytic import described
from evaluators.proxies.fusion import DESCRIPTION, Reference
from search_spaces.architecture import Architecture
from search_spaces.space import EXAMPLES
from search_spaces.zoo import load_space
from studies.samplers.ehvi.graph import SCORES, graph_features
from studies.samplers.ehvi.kernel import Block, Pairs, own_products
from studies.samplers.ehvi.model import Known, find_parameters
from studies.samplers.ehvi.process import covariance
from studies.samplers.ehvi.scale import Scale
from studies.samplers.ehvi.space_domain import SpaceDomain
from studies.samplers.ehvi.standing import Standing
from tests.unit.studies.samplers.cases import DIGITS
from tests.unit.studies.samplers.test_ehvi import alike

DEAD = Architecture.parse("input 3x32x32; zero 16x32x32; gap; flatten; linear 10")


def drawn(count, seed=0):
    of = load_space("nas-bench-201")
    rng = random.Random(seed)
    return [of.sample(rng, EXAMPLES[of.reads]).architecture for _ in range(count)]


def scores_of(architectures):
    return np.array([graph_features(item)[SCORES] for item in architectures])


def domain_of(of, data, objectives=2):
    directions = ["min"] * objectives
    key = lambda candidate: candidate.architecture.key  # noqa: E731 - one line
    return SpaceDomain(of, data, directions=directions, seed=0, identify=key, free=None)


def test_the_joint_score_is_the_joint_ranking_by_the_description():
    sample, others = drawn(60), drawn(40, seed=1)
    found = Standing.of(scores_of(sample)).joint(scores_of(others))
    rows = [described(item) for item in sample if item.live]
    reference = Reference.of({n: [row[n] for row in rows] for n in DESCRIPTION}, DESCRIPTION)
    expected = np.array([reference.score(described(item)) for item in others])
    own = np.array([reference.score(row) for row in rows])
    assert found == pytest.approx((expected - own.mean()) / own.std())


def test_shares_are_at_most_one_and_finite_for_what_nothing_passes_through():
    standing = Standing.of(scores_of([*drawn(60), DEAD]))
    assert np.isfinite(standing.sample).all()
    shares = standing.shares(scores_of([DEAD, *drawn(40, seed=1)]))
    assert np.isfinite(shares).all()
    assert shares.max() <= 1
    worst = [n for n, name in enumerate(DESCRIPTION) if name.startswith("path")]
    assert (shares[0, worst] <= shares[1:, worst].min(axis=0)).all()


def test_where_all_stand_alike_no_block_says_so():
    varied = domain_of(load_space("nas-bench-201"), EXAMPLES["images"])
    same = domain_of(alike, DIGITS)
    spare = []
    for domain in (varied, same):
        blocks = domain.blocks(domain.sample_points[:5], {})
        spare.append(sum(not len(block.decay) for block in blocks))
    assert spare == [2, 0]


def test_products_that_may_be_done_without_are_the_last():
    rng = np.random.default_rng(0)
    blocks = [Block.apart(rng.random((5, 3)), 0.1, linear=True), Block.spare(rng.random((5, 4)))]
    pairs = Pairs.of(blocks, blocks)
    assert pairs.distances.shape[0] == 3
    assert pairs.spare == pairs.take(np.arange(3), np.arange(3)).spare == 1
    assert pairs.products[1] == pytest.approx(blocks[1].rows @ blocks[1].rows.T / 4)
    assert own_products(blocks)[1] == pytest.approx(pairs.products[1].diagonal())
    parameters = np.zeros(3 + 2 + 2)
    without = parameters.copy()
    without[-3] = -30.0
    assert covariance(without, pairs) == pytest.approx(covariance(parameters, pairs.bare()))


@pytest.mark.parametrize("seed", range(3))
def test_a_process_does_without_what_makes_its_figures_no_more_plausible(seed):
    domain = domain_of(load_space("nas-bench-201"), EXAMPLES["images"])
    points = domain.sample_points[:100]
    noise = np.random.default_rng(seed).standard_normal((2, len(points)))
    standing = Standing.of(np.array([p.graph[SCORES] for p in domain.sample_points]))
    joint = standing.joint(np.array([point.graph[SCORES] for point in points]))
    values = np.column_stack([0.2 * noise[0] - joint, noise[1]])
    found = find_parameters(domain, Known(points, values, {}, Scale.of(values, values)))
    joined, random_figures = (found[f"objective {n}"].parameters[-4:-2] for n in (0, 1))
    assert joined.max() > -10
    assert (random_figures == -30).all()
