"""Costs by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch.utils.flop_counter import FlopCounterMode

from evaluators.cost import Cost, analytic_cost
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.build import build
from search_spaces.builder import NetworkBuilder
from tests.networks import chain, mobilenet, raw_graphs, resnet18, resnet50


def test_closed_forms_of_a_chain() -> None:
    cost = analytic_cost(chain((3, 10, 12), "conv 8 k3 s2 bn relu", "gap", "flatten", "linear 5"))
    maps = 8 * 5 * 6
    params = (8 * 3 * 9 + 16, 8 * 5 + 5)
    assert cost == Cost(
        params=sum(params),
        macs=maps * 27 + 8 * 5,
        bytes_moved=4 * ((360 + params[0] + maps) + (maps + 8) + (8 + 8) + (8 + params[1] + 5)),
        peak_activation_bytes=4 * (360 + maps),
        layers=2,
        depth=2,
        kv_cache_bytes=0,
        body_params=sum(params),
    )


@pytest.mark.parametrize(
    ("architecture", "params", "macs"),
    [
        (resnet18(), 11_689_512, 1_814_073_344),
        (resnet50(stride_on=3), 25_557_032, 4_089_184_256),
        (mobilenet(), 3_217_226, 46_354_432),
    ],
    ids=["resnet18", "resnet50", "mobilenet"],
)
def test_published_networks(architecture: Architecture, params: int, macs: int) -> None:
    cost = analytic_cost(architecture)
    assert (cost.params, cost.macs) == (params, macs)
    assert (architecture.params, architecture.macs) == (params, macs)
    with torch.device("meta"):
        module = build(architecture).eval()
        x = torch.empty(1, *architecture.nodes[0].shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    assert counter.get_total_flops() == 2 * macs
    assert sum(p.numel() for p in module.parameters()) == params


def test_depth_and_layers_of_the_classics() -> None:
    """A shortcut's convolution is a layer, but on no longest path."""
    assert analytic_cost(resnet18())[4:6] == (21, 18)
    assert analytic_cost(resnet50(stride_on=3))[4:6] == (54, 50)
    assert analytic_cost(mobilenet())[4:6] == (28, 28)


def _branchy() -> NetworkBuilder:
    return NetworkBuilder((2, 4, 4))


def test_peak_and_bytes_of_a_branchy_network_by_hand() -> None:
    """input 32 elements -> a (4,4,4) 64 -> b (8,4,4) 128; c from the input 128; add 128."""
    net = _branchy()
    a = net.conv(net.input, 4, norm=None, act=None)  # 8 weights
    b = net.conv(a, 8, norm=None, act=None)  # 32
    c = net.conv(net.input, 8, norm=None, act=None)  # 16
    architecture = net.freeze(net.add(b, c))
    assert architecture.text == "input 2x4x4; conv 8; conv 4 @0; conv 8; add @1,3"
    # input 32 | c: 32 + 128 = 160 | a: 160 + 64 = 224, the input ends: 192 | b: 192 + 128 = 320,
    # a ends: 256 | sum: 256 + 128 = 384.
    moved = (32 + 16 + 128) + (32 + 8 + 64) + (64 + 32 + 128) + (256 + 128)
    assert analytic_cost(architecture) == Cost(
        params=56,
        macs=16 * 56,
        bytes_moved=4 * moved,
        peak_activation_bytes=4 * 384,
        layers=3,
        depth=2,
        kv_cache_bytes=0,
        body_params=56,
    )


def test_a_value_read_twice_by_one_node_ends_once() -> None:
    once = analytic_cost(Architecture.parse("input 2x4x4; conv 2; add @1,1; conv 2"))
    # input 32 | conv 64, then 32 | add 64, then 32 | conv 64
    assert once.peak_activation_bytes == 4 * 64
    assert once.bytes_moved == 4 * ((32 + 4 + 32) + (64 + 32) + (32 + 4 + 32))


def test_a_skip_keeps_its_value_alive() -> None:
    text = "input 2x4x4; conv 2; conv 2; conv 2; add @1,3"
    assert analytic_cost(Architecture.parse(text)).peak_activation_bytes == 4 * 96


def test_tied_parameters_count_once_but_are_read_and_used_twice() -> None:
    tied = analytic_cost(Architecture.parse("input 4x8x8; conv 4 k3 bn; conv 4 k3 bn ~1"))
    free = analytic_cost(Architecture.parse("input 4x8x8; conv 4 k3 bn; conv 4 k3 bn"))
    assert tied.params == 152
    assert tied == free._replace(params=152, body_params=152)
    assert free.params == 304


def test_a_dead_network_costs_nothing_but_its_output() -> None:
    net = NetworkBuilder((3, 8, 8))
    dead = net.freeze(net.classifier(net.zero((3, 8, 8)), 10))
    assert analytic_cost(dead) == Cost(0, 0, 40, 40, 0, 0, 0, 0)


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(raw_graphs())
def test_random_graphs_agree_with_their_modules(output: Value) -> None:
    architecture = Architecture.freeze(output)
    cost = analytic_cost(architecture)
    assert (cost.params, cost.macs) == (architecture.params, architecture.macs)
    assert cost.params == sum(p.numel() for p in build(architecture).parameters())
    assert cost.depth <= cost.layers
    elements = [node.facts.elements for node in architecture.nodes]
    assert max(elements) <= cost.peak_activation_bytes / 4 <= sum(elements)
