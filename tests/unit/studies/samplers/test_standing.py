"""Where candidates stand among random ones, and what ``ehvi`` makes of it."""

import random

import numpy as np
import pytest

from evaluators.analytic import described
from evaluators.proxies.fusion import DESCRIPTION, Reference
from search_spaces.architecture import Architecture
from search_spaces.space import EXAMPLES
from search_spaces.zoo import load_space
from studies.samplers.drafts import network_key
from studies.samplers.ehvi.graph import SCORES, graph_features
from studies.samplers.ehvi.kernel import Pairs, decays, own_products
from studies.samplers.ehvi.process import Prior, Process, fit
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


def domain_of(of, data=DIGITS):
    return SpaceDomain(of, data, directions=["min"], seed=0, identify=network_key, free=None)


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
    varied, same = domain_of(load_space("nas-bench-201"), EXAMPLES["images"]), domain_of(alike)
    blocks = varied.blocks(varied.sample_points, {})
    joint, shares = blocks[-2:]
    live = [np.isfinite(point.graph[SCORES]).all() for point in varied.sample_points]
    assert joint.rows[live].std() == pytest.approx(1)
    assert shares.rows.shape == (len(varied.sample_points), len(DESCRIPTION))
    assert all(block.linear for block in (joint, shares))
    assert len(same.blocks(same.sample_points, {})) == 2


@pytest.mark.parametrize("seed", range(3))
def test_figures_that_follow_the_joint_ranking_are_predicted_from_a_few(seed):
    domain = domain_of(load_space("nas-bench-201"), EXAMPLES["images"])
    points = domain.sample_points
    joint = domain.blocks(points, {})[-2].rows[:, 0]
    luck = 0.1 * np.random.default_rng(seed).standard_normal(len(points))
    told, others = np.arange(30), np.arange(30, len(points))
    errors = []
    for blocks in (domain.blocks(points, {}), domain.blocks(points, {})[:-2]):
        pairs = Pairs.of(blocks, blocks)
        prior = Prior.of(decays(blocks), len(pairs.products))
        figures = (luck - joint)[told]
        scaled = (figures - figures.mean()) / figures.std()
        parameters, _ = fit(pairs.take(told, told), scaled, prior)
        process = Process.of(parameters, pairs.take(told, told), figures)
        mean, _ = process.predict(pairs.take(others, told), own_products(blocks)[:, others])
        errors.append(np.sqrt(np.mean((mean + joint[others]) ** 2)))
    with_standing, without = errors
    assert with_standing < 0.2
    assert with_standing < 0.7 * without
