"""How many candidates a space has: exact, or an interval that covers the truth."""

from __future__ import annotations

import random

import pytest

from search_spaces.architecture.graph import Value
from search_spaces.builder import NetworkBuilder
from search_spaces.choose import Chooser
from search_spaces.errors import SpaceError
from search_spaces.space import DataSpec, Space, space
from search_spaces.zoo import load_space

DATA = DataSpec((3, 8, 8), 10)


def _network(data: DataSpec) -> Value:
    net = NetworkBuilder(data.input_shape)
    return net.classifier(net.input, data.classes)


@space("impossible", version=1)
def impossible(choose: Chooser, data: DataSpec) -> Value:
    choose.require(choose("a", (1, 2)) == 3, "never")
    return _network(data)


def test_size_of_an_empty_space() -> None:
    size = impossible.size(DATA)
    assert (size.count, size.exact) == (0, True)


@space("deep", version=1)
def deep(choose: Chooser, data: DataSpec) -> Value:
    """Depth is a decision, so uniform probes are lopsided; its size has a closed form."""
    for _, stage in choose.scopes("stage", 3):
        for _, block in stage.repeat("block", 1, 4):
            if block("kind", ("a", "b", "c")) == "c":
                block("extra", (1, 2))
    return _CONSTANT[0]


_CONSTANT = [_network(DATA)]
_DEEP = sum(4**n for n in range(1, 5)) ** 3
"""A block is a, b, c1 or c2; a stage has one to four; three stages."""


@space("ruled", version=1)
def ruled(choose: Chooser, data: DataSpec) -> Value:
    """Half of the leaves break a rule, known only at the end."""
    answers = [choose(f"q{i}", range(4)) for i in range(12)]
    choose.require(sum(answers) % 2 == 0, "even")
    return _CONSTANT[0]


@pytest.mark.parametrize(("found", "truth"), [(deep, _DEEP), (ruled, 4**12 // 2)])
def test_estimated_size_covers_the_truth_as_often_as_it_says(found: Space, truth: int) -> None:
    sizes = [found.size(DATA, limit=1000, probes=600, seed=seed) for seed in range(60)]
    assert not any(size.exact for size in sizes)
    assert all(size.low <= size.count <= size.high for size in sizes)
    covered = sum(size.low <= truth <= size.high for size in sizes)
    assert covered >= 51  # of 60 at 95 %: fewer has probability 0.3 %
    mean = sum(size.count for size in sizes) / len(sizes)
    assert mean == pytest.approx(truth, rel=0.1)  # no bias


def test_estimate_is_useful_where_depth_is_a_decision() -> None:
    size = deep.size(DATA, limit=1000, probes=2000)
    assert size.high / size.low < 2
    assert str(size).startswith("about ")
    assert deep.size(DATA, limit=1000, seed=3) == deep.size(DATA, limit=1000, seed=3)


def test_an_estimate_below_the_limit_is_never_given() -> None:
    """What was enumerated beyond the limit bounds the interval from below."""
    for seed in range(20):
        size = deep.size(DATA, limit=100, probes=8, seed=seed)
        assert 100 <= size.low <= size.high


def test_a_needle_in_a_haystack_is_one_error() -> None:
    """All probes rejected: no size is claimed, and nobody walks through 10^9 leaves."""

    @space("needle", version=1)
    def needle(choose: Chooser, data: DataSpec) -> Value:
        answers = [choose(f"q{i}", range(10)) for i in range(9)]
        choose.require(sum(answers) == 81, "all nines")
        return _network(data)

    with pytest.raises(SpaceError, match="all nines") as caught:
        needle.sample(random.Random(0), DATA)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_size_of_nas_bench_201_is_exact() -> None:
    found = load_space("nas-bench-201").preset("tiny", cells=1)
    assert str(found.size(DataSpec((3, 4, 4), 2))) == "15,625 (exact)"


def test_size_of_mobile_cnn_small_covers_its_closed_form() -> None:
    # A block: kinds standard and separable, 2 kernels, 3 expansions; sliding times 2 cg times 2 co.
    # All widths divide by 4, so no draw is rejected. A stage: 3 widths, residual or not, 1-2 deep.
    block = 2 * 2 * 3 + 2 * 3 * 2 * 2
    truth = 3 * (3 * 2 * (block + block**2)) ** 3 * 2
    size = load_space("mobile-cnn-small").size(DataSpec((3, 32, 32), 10), probes=1200)
    assert not size.exact
    assert size.low / 1.2 <= truth <= size.high * 1.2
    assert size.high / size.low < 2
