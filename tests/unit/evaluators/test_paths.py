"""Scores of paths, against values worked out by hand, and the joint ranking."""

from __future__ import annotations

import csv
import gzip
from math import inf, log
from pathlib import Path

import numpy as np
import pytest

from evaluators.analytic import AnalyticEvaluator
from evaluators.proxies.fusion import DESCRIPTION, Reference, fuse
from evaluators.proxies.paths import DEAD, path_scores
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.space import DataSpec
from search_spaces.zoo.nas_bench_201 import from_string, nas_bench_201

HEAD = "gap; flatten; linear 10"
TABLE = Path("../shared/data/nas/nb201.csv.gz")
CIFAR = DataSpec((3, 32, 32), 10)


def scores(body: str) -> tuple[float, ...]:
    return tuple(path_scores(Architecture.parse(f"input 4x8x8; {body}; {HEAD}")))[:4]


def test_a_chain_is_one_path() -> None:
    local = log(9 * 4) + log(4) + log(8)
    assert scores("conv 4 k3; maxpool k2 s2; conv 8 bn relu") == pytest.approx(
        (local, log(9), 4, 1)
    )


def test_a_shortcut_takes_its_share_of_the_signal() -> None:
    # The input has power 1, the branch behind its normalisation 1: halves.
    assert scores("conv 4 k3 bn; add @0,1")[0] == pytest.approx(log(36) / 2 + log(4))
    # Rectified, the branch has power 1/2: a third.
    assert scores("conv 4 k3 bn relu; add @0,1")[0] == pytest.approx(log(36) / 3 + log(4))
    assert scores("conv 4 k3 bn; add @0,1")[1:] == (pytest.approx(log(9) / 2), 1, 0)


def test_a_concatenation_shares_by_channels() -> None:
    # Eight channels of the branch beside four of the input, all of power 1.
    local = scores("conv 8 k3 bn; concat @0,1")[0]
    assert local == pytest.approx(2 / 3 * log(36) + log(12))


def test_paths_of_pooling_count_alike() -> None:
    # Of the three paths, one has a window and one has two.
    body = "avgpool k3 p1; conv 4 bn; avgpool k3 p1 @1; add @0,2,3"
    assert scores(body)[2:] == (1, pytest.approx(1.0))


def test_bottlenecks_are_what_all_paths_pass() -> None:
    line = Architecture.parse(f"input 4x8x8; conv 4 k3; conv 4; {HEAD}")
    assert path_scores(line).bottlenecks == 6  # all: input, two layers, pool, flatten, linear
    beside = Architecture.parse(f"input 4x8x8; conv 4 k3; conv 4; add @0,2; {HEAD}")
    assert path_scores(beside).bottlenecks == 5  # the two layers have a way around, the sum has not


def test_more_paths_than_a_float_can_count() -> None:
    block = "; ".join(f"conv 4 bn @{2 * i}; add @{2 * i},{2 * i + 1}" for i in range(1100))
    local, _, shortest, pools = scores(block)
    # Block i adds a branch of power 1 to a signal of power i.
    harmonic = sum(1 / (i + 1) for i in range(1, 1101))
    assert (local, shortest, pools) == (pytest.approx(log(4) * (harmonic + 1)), 1, 0)


def test_nothing_reaches_the_output_of_a_dead_network() -> None:
    dead = nas_bench_201.replay(
        from_string("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"), CIFAR
    ).architecture
    assert path_scores(dead) == DEAD == (-inf, -inf, inf, inf, inf)


def test_ranks_are_joined_by_their_logarithms() -> None:
    columns = {"a": [3.0, 1.0, 2.0], "b": [5.0, 5.0, 9.0]}
    joint = fuse(columns, {"a": "max", "b": "min"})
    # Ranks of a: 3, 1, 2; of b, where less is better: 2.5, 2.5, 1.
    assert joint == pytest.approx(np.log([3 * 2.5 / 9, 1 * 2.5 / 9, 2 * 1 / 9]))


def test_what_is_no_number_ranks_last() -> None:
    assert np.argmin(fuse({"a": [1.0, float("nan"), 0.0]}, {"a": "max"})) == 1
    assert np.argmin(fuse({"a": [1.0, float("nan"), 0.0]}, {"a": "min"})) == 1


def test_a_missing_score_is_named() -> None:
    with pytest.raises(NasError, match="shortest_path"):
        fuse({"params": [1], "macs": [1], "rf_gain": [1], "depth": [1], "path_local": [1]})


def test_a_reference_ranks_single_candidates() -> None:
    reference = Reference.of({"a": [1, 2, 3, 4]}, {"a": "max"})
    assert reference.score({"a": 2.5}) == pytest.approx(log(2.5 / 5))
    assert reference.score({"a": 3}) == pytest.approx(log(3 / 5))
    assert reference.score({"a": 9}) > reference.score({"a": 4}) > reference.score({"a": -inf})
    less = Reference.of({"a": [1, 2, 3, 4]}, {"a": "min"})
    assert less.score({"a": 0}) > less.score({"a": 5}) == less.score({"a": float("nan")})


@pytest.mark.skipif(not TABLE.exists(), reason="needs the table of NAS-Bench-201")
def test_the_joint_ranking_of_nas_bench_201() -> None:
    """Every 40th network: enough to tell the joint ranking from the best of its parts."""
    from scipy.stats import kendalltau

    with gzip.open(TABLE, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::40]
    evaluator = AnalyticEvaluator()
    found, truth = [], []
    for row in rows:
        network = nas_bench_201.replay(from_string(row["arch_str"]), CIFAR).architecture
        if network.live:
            found.append({item.metric: item.value for item in evaluator.evaluate(network)})
            truth.append(float(row["cifar10_test_200"]))
    columns = {name: [item[name] for item in found] for name in found[0]}
    assert kendalltau(fuse(columns), truth)[0] > 0.75
    for name, way in DESCRIPTION.items():
        single = kendalltau(columns[name], truth)[0] * (1 if way == "max" else -1)
        assert single < 0.7


def test_a_candidate_is_ranked_among_others_of_its_space() -> None:
    from random import Random

    from evaluators.joint import JointEvaluator
    from search_spaces.zoo import load_space

    space = load_space("mobile-cnn-small")
    evaluator = JointEvaluator(space, CIFAR)
    nets = [space.sample(Random(seed), CIFAR).architecture for seed in range(40)]
    found = [evaluator.evaluate(net)[0].value for net in nets]
    columns: dict[str, list[float]] = {name: [] for name in DESCRIPTION}
    for net in nets:
        for item in AnalyticEvaluator().evaluate(net):
            if item.metric in columns:
                columns[item.metric].append(item.value)
    ranks = np.argsort(np.argsort(found)), np.argsort(np.argsort(fuse(columns)))
    assert np.corrcoef(*ranks)[0, 1] > 0.9
    assert all(value < 0 for value in found)


def test_a_candidate_is_ranked_with_its_fresh_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from random import Random

    from evaluators import joint
    from evaluators.proxies.fusion import PROBED
    from evaluators.proxies.untrained import UntrainedEvaluator
    from search_spaces.zoo import load_space

    monkeypatch.setattr(joint, "_PROBED_SAMPLE", 8)
    digits = DataSpec((1, 8, 8), 10)
    space = load_space("mobile-cnn-small")
    evaluator = joint.ProbedJointEvaluator("mobile-cnn-small", digits, seed=3, device="cpu")
    rng = Random(0)
    sample = [space.sample(rng, digits).architecture for _ in range(8)]
    net = space.sample(Random(9), digits).architecture
    fresh = UntrainedEvaluator(("trainability", "narrowest"), seed=3)
    rows = [
        {**{item.metric: item.value for item in AnalyticEvaluator().evaluate(item)}, **scores}
        for item, scores in [(item, fresh.scores(item)) for item in (*sample, net)]
    ]
    columns = {name: [row[name] for row in rows[:-1]] for name in PROBED}
    expected = Reference.of(columns, PROBED).score(rows[-1])
    assert evaluator.evaluate(net)[0].value == pytest.approx(expected)
    assert evaluator.cache_key(net) != evaluator.cache_key(sample[0]) != ""
