"""The stage-level organiser: the worked example of the notes, and brute force on small networks."""

from __future__ import annotations

from itertools import product

import pytest

from evaluators.cost import analytic_cost
from evaluators.proxies.organise import Budget, budget_of, organise
from evaluators.proxies.receptive_field import receptive_field
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.blocks import chain_of
from tests.networks import mobilenet, resnet18, resnet50, vgg


def layers_of(depths: tuple[int, ...]) -> tuple[int, ...]:
    """Return the layers of a VGG's stages; all but the last begin with one that sets widths."""
    return (*(depth + 1 for depth in depths[:-1]), depths[-1])


def test_worked_example_at_the_same_depth() -> None:
    found = organise(vgg(), Budget(14_710_464, 313_196_544, 13, 13), results=200)
    assert len(found) == 103
    best = found[0]
    assert (best.params, f"{best.gain:.3f}") == (13_936_320, "74.244")
    tied = [layers_of(item.depths) for item in found if f"{item.gain:.3f}" == "74.244"]
    assert {(1, 1, 6, 1, 4), (1, 1, 6, 2, 3)} <= set(tied)


def test_worked_example_of_free_depth() -> None:
    best = organise(vgg(), Budget(14_710_464, 313_196_544, 20))[0]
    assert layers_of(best.depths) == (1, 5, 2, 1, 5)
    assert (best.params, f"{best.gain:.3f}") == (14_526_144, "77.996")
    network = chain_of(vgg()).with_depths(best.depths)
    assert network == vgg((1, 5, 2, 1, 5))


@pytest.mark.parametrize(
    ("network", "depths"),
    [
        (vgg(), (1, 1, 2, 2, 3)),
        (vgg((1, 1, 2, 2, 2)), (0, 0, 1, 1, 2)),
        (resnet18(64), (2, 1, 1, 1)),
        (resnet50(stride_on=3, size=64), (2, 3, 5, 2)),
        (mobilenet(), (0, 1, 1, 5, 1)),  # the stem too may be repeated
    ],
    ids=["vgg16", "vgg11", "resnet18", "resnet50", "mobilenet"],
)
def test_depths_of_the_classics(network: Architecture, depths: tuple[int, ...]) -> None:
    chain = chain_of(network)
    assert chain.depths == depths
    assert chain.with_depths(depths) == network


@pytest.mark.parametrize("network", [resnet18(32), mobilenet(), vgg((1, 1, 1, 1, 1))])
def test_what_is_found_is_the_best_there_is(network: Architecture) -> None:
    """Against brute force over up to three blocks a stage, with figures of the whole network."""
    chain = chain_of(network, most=3)
    budget = budget_of(network)
    ranges = [range(item.least, item.most + 1) for item in chain.stretches if item.repeats]
    scored = []
    for depths in product(*ranges):
        made = chain.with_depths(depths)
        cost = analytic_cost(made)
        if cost.params <= budget.params and cost.macs <= budget.macs:
            gain = receptive_field(made).gain
            scored.append((-round(gain, 9), cost.params, depths, cost.macs))
    scored.sort()
    found = organise(network, budget, results=5, most=3)
    assert [
        (-round(item.gain, 9), item.params, item.depths, item.macs) for item in found
    ] == scored[:5]


def test_budgets_that_nothing_keeps() -> None:
    with pytest.raises(NasError, match="keeps the budget"):
        organise(vgg(), Budget(params=1000))


def test_a_network_without_blocks() -> None:
    with pytest.raises(NasError, match="can be repeated"):
        organise(Architecture.parse("input 3x8x8; conv 8 k3 s2; gap; flatten; linear 10"), Budget())
