"""Normalisation never changes outputs, and two ways to write one network give one key."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import networkx as nx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networkx.algorithms.isomorphism import DiGraphMatcher

from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value, share_parameters
from search_spaces.architecture.node import Node
from search_spaces.build import build
from search_spaces.builder import NetworkBuilder
from search_spaces.errors import ArchitectureError
from search_spaces.ops import Activation, Add, Attention, Concat, Conv, Input, Multiply, Zero
from tests.networks import Interpreter, raw_graphs, rewritten

thorough = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


# Outputs.


def _same_outputs(output: Value, seed: int) -> Architecture:
    raw = Interpreter(output, seed)
    raw.attach()
    frozen = Architecture.freeze(output)
    module = build(frozen).double()
    generator = torch.Generator().manual_seed(seed)
    shape = next((v.shape for v in raw.order if isinstance(v.op, Input)), (4, 5, 5))
    x = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    for training in (False, True, False):  # the last time with the statistics of the second
        expected, got = raw.train(training)(x), module.train(training)(x)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    return frozen


@thorough
@given(raw_graphs(), st.integers(0, 2**16))
def test_outputs_are_those_of_the_raw_graph(output: Value, seed: int) -> None:
    _same_outputs(output, seed)


@thorough
@given(raw_graphs())
def test_freezing_again_changes_nothing(output: Value) -> None:
    frozen = Architecture.freeze(output)
    again = Architecture.parse(frozen.text)
    assert again.text == frozen.text
    assert again.key == frozen.key
    strip = [node._replace(scope="") for node in frozen.nodes]
    assert [node._replace(scope="") for node in again.nodes] == strip


@thorough
@given(raw_graphs(), st.randoms(use_true_random=False))
def test_keys_do_not_see_order_names_or_dead_branches(output: Value, rng: random.Random) -> None:
    assert Architecture.freeze(rewritten(output, rng)).key == Architecture.freeze(output).key


@thorough
@given(raw_graphs())
def test_nothing_removable_is_left(output: Value) -> None:
    frozen = Architecture.freeze(output)
    readers: dict[int, list[Node]] = defaultdict(list)
    for node in frozen.nodes:
        for source in node.inputs:
            readers[source].append(node)
    calls = []
    for number, node in enumerate(frozen.nodes):
        last = number == len(frozen.nodes) - 1
        assert last or readers[number], "a dead node"
        shapes = tuple(frozen.nodes[item].shape for item in node.inputs)
        assert not shapes or not node.op.is_identity(shapes)
        zeros = [isinstance(frozen.nodes[item].op, Zero) for item in node.inputs]
        assert not zeros or not all(zeros)
        if isinstance(node.op, Zero):
            assert last or all(isinstance(reader.op, Concat) for reader in readers[number])
        if node.op.commutative:
            assert not any(zeros)
        if not node.facts.params and node.inputs and node.op.kind != "dropout":
            calls.append((node.op.text, node.inputs))
    assert len(calls) == len(set(calls))


# Rules one by one, in the texts that result.


def _text(output: Value) -> str:
    return Architecture.freeze(output).text


def test_convolution_takes_norm_and_activation_that_alone_read_it() -> None:
    net = NetworkBuilder((3, 8, 8))
    x = net.conv(net.input, 4, norm=None, act=None)
    assert _text(net.activation(net.norm(x))) == "input 3x8x8; conv 4 bn relu"
    assert _text(net.norm(net.activation(x))) == "input 3x8x8; conv 4 relu; norm bn"
    both = net.add(net.norm(x), x)
    assert _text(both) == "input 3x8x8; conv 4; norm bn; add @1,2"
    act = net.activation(x)
    assert _text(net.add(act, net.activation(x))) == "input 3x8x8; conv 4 relu; add @1,1"
    assert _text(net.norm(net.norm(x))) == "input 3x8x8; conv 4 bn; norm bn"
    assert _text(net.activation(act, "tanh")) == "input 3x8x8; conv 4 relu; act tanh"
    linear = net.linear(net.flatten(net.input), 5)
    assert _text(net.activation(linear, "gelu")) == "input 3x8x8; flatten; linear 5 gelu"


def test_norm_settings_survive_being_merged() -> None:
    net = NetworkBuilder((3, 8, 8))
    x = net.conv(net.input, 4, norm=None, act=None, bias=True)
    text = _text(net.norm(x, eps=1e-3, momentum=0.01))
    assert text == "input 3x8x8; conv 4 bias bn eps0.001 mom0.01"


def test_absent_values_leave_sums_and_empty_what_reads_them() -> None:
    net = NetworkBuilder((4, 8, 8))
    x, zero = net.input, net.zero((4, 8, 8))
    conv = net.conv(zero, 4, kernel=3)
    assert (
        _text(net.add(x, conv, net.avg_pool(zero, kernel=3, stride=1, padding=1))) == "input 4x8x8"
    )
    assert _text(net.multiply(x, conv)) == "zero 4x8x8"
    assert _text(net.concat([conv, conv])) == "zero 8x8x8"
    assert _text(net.concat([x, conv])) == "input 4x8x8; zero 4x8x8; concat @0,1"
    assert not Architecture.freeze(conv).live


@pytest.mark.parametrize("act", ["sigmoid", "hardsigmoid"])
def test_a_gate_of_an_absent_value_is_refused(act: str) -> None:
    """sigmoid(0) is a half: the product would still carry the input."""
    net = NetworkBuilder((4, 5, 5))
    zero = net.zero((4, 5, 5))
    gate = net.activation(zero, act, name="gate")
    with pytest.raises(ArchitectureError, match=f"^gate: {act} of an absent value"):
        Architecture.freeze(net.multiply(net.conv(net.input, 4), gate))
    gate = net.conv(net.global_pool(zero), 4, norm=None, act=act, name="gate")
    with pytest.raises(ArchitectureError, match=f"^gate: {act} of an absent value"):
        Architecture.freeze(net.multiply(net.conv(net.input, 4), gate))


def test_attention_over_an_absent_query_is_refused_and_over_absent_values_is_absent() -> None:
    net = NetworkBuilder((5, 8))
    x, zero = net.input, net.zero((5, 8))
    with pytest.raises(ArchitectureError, match="attention with an absent query or key"):
        Architecture.freeze(net.attention(zero, x, x, heads=2))
    assert not Architecture.freeze(net.attention(x, x, zero, heads=2)).live


def test_a_bias_on_an_absent_value_is_dropped() -> None:
    """The one stated exception: a constant that no information passes."""
    net = NetworkBuilder((4, 5, 5))
    biased = net.conv(net.zero((4, 5, 5)), 4, norm=None, act=None, bias=True)
    assert _text(net.add(net.conv(net.input, 4), biased)) == "input 4x5x5; conv 4 bn relu"


def test_a_shared_node_is_not_two_equal_nodes_is_not_two_tied_nodes() -> None:
    def network(how: str) -> Architecture:
        net = NetworkBuilder((4, 8, 8))
        a = net.conv(net.input, 4, kernel=3)
        b = a if how == "one" else net.conv(net.input, 4, kernel=3)
        if how == "tied":
            net.share(b, a)
        c, d = net.max_pool(a, kernel=2, stride=2), net.avg_pool(b, kernel=2, stride=2)
        return net.freeze(net.add(c, d))

    found = {how: network(how) for how in ("one", "two", "tied")}
    assert len({item.key for item in found.values()}) == 3
    assert found["one"].params == found["tied"].params == found["two"].params // 2
    twice = [
        "input 4x8x8; conv 4 k3; add @1,1",
        "input 4x8x8; conv 4 k3; conv 4 k3 @0; add @1,2",
        "input 4x8x8; conv 4 k3; conv 4 k3 @0 ~1; add @1,2",
    ]
    assert len({Architecture.parse(text).key for text in twice}) == 3


@pytest.mark.parametrize("seed", [0, 1])
def test_tied_values_carry_their_weights_along(seed: int) -> None:
    net = NetworkBuilder((4, 5, 5))
    a = net.conv(net.input, 4, kernel=3)
    b = net.conv(net.activation(a, "tanh"), 4, kernel=3)
    net.share(b, a)
    assert _same_outputs(net.add(a, b), seed).nodes[3].tie == 1


def test_a_tie_whose_partner_is_dead_is_no_tie() -> None:
    """Dead branches change nothing, also where they share weights with a living one."""
    net = NetworkBuilder((4, 5, 5))
    living = net.conv(net.input, 4, norm=None, act=None)
    plain = Architecture.freeze(net.norm(living))
    net.share(net.conv(net.input, 4, norm=None, act=None), living)
    tied = Architecture.freeze(net.norm(living))
    assert tied.text == plain.text == "input 4x5x5; conv 4 bn"
    assert Architecture.parse(tied.text) == tied


def test_three_ways_of_tying_three_values_are_one() -> None:
    texts = set()
    for pairs in ([(0, 1), (0, 2)], [(0, 1), (1, 2)], [(1, 0), (2, 0)], [(2, 1), (0, 2)]):
        net = NetworkBuilder((4, 5, 5))
        x, convs = net.input, []
        for _ in range(3):
            x = net.conv(x, 4)
            convs.append(x)
        for first, second in pairs:
            net.share(convs[first], convs[second])
        architecture = net.freeze(x)
        texts.add(architecture.text)
        assert architecture.params == convs[0].facts.params
    assert texts == {"input 4x5x5; conv 4 bn relu; conv 4 bn relu ~1; conv 4 bn relu ~1"}


def test_repeats_are_one_whatever_else_the_network_holds() -> None:
    """Equal attention on equal inputs: merged or not, but not only where something else is odd."""

    def network(*, identity: bool) -> str:
        x = Value(Input.of(shape=(5, 8)), (), "in")
        first, second = (Value(Attention.of(heads=2), (x, x, x), "") for _ in range(2))
        total = Value(Add.of(), (first, second), "")
        return _text(Value(Add.of(), (total,), "") if identity else total)

    assert network(identity=True) == network(identity=False)


# Keys and isomorphism.


def _conv(x: Value) -> Value:
    return Value(Conv.of(4), (x,), "")


def test_ties_of_depth_that_hang_together_have_one_order() -> None:
    """Which of two twins comes first must not be chosen anew at every join."""
    keys = set()
    for p, q in ((0, 1), (1, 0)):
        for r, s in ((0, 1), (1, 0)):
            x = Value(Input.of(shape=(4, 3, 3)), (), "in")
            twins = [_conv(x), _conv(x)]
            heirs = [_conv(twin) for twin in twins]
            low = Value(Add.of(), (twins[p], twins[q]), "")
            high = Value(Add.of(), (heirs[r], heirs[s]), "")
            keys.add(Architecture.freeze(Value(Concat.of(), (low, high), "")).key)
    assert len(keys) == 1


def test_which_twins_are_tied_does_not_depend_on_the_order_of_a_sum() -> None:
    keys = set()
    for pair in combinations(range(3), 2):
        x = Value(Input.of(shape=(4, 3, 3)), (), "in")
        convs = [_conv(x) for _ in range(3)]
        share_parameters(convs[pair[0]], convs[pair[1]])
        keys.add(Architecture.freeze(Value(Add.of(), tuple(convs), "")).key)
    assert len(keys) == 1


def test_a_variant_on_one_of_equal_branches_leaves_the_topology() -> None:
    """Their weights differ once trained, so which of them has the variant is part of ``key``."""
    topologies = set()
    for chosen in range(3):
        net = NetworkBuilder((4, 3, 3))
        convs = [net.conv(net.input, 4) for _ in range(3)]
        net.variant([convs[chosen]], "w1a2")
        topologies.add(net.freeze(net.add(*convs)).topology_key)
    assert len(topologies) == 1


def _rings(sizes: Sequence[int], seed: int) -> Value:
    """Sums of neighbours on rings of convolutions: alike to any local look, not the same."""
    rng = random.Random(seed)
    x = Value(Input.of(shape=(4, 3, 3)), (), "in")
    sums = []
    for size in sizes:
        ring = [_conv(x) for _ in range(size)]
        for i in range(size):
            pair = [ring[i], ring[(i + 1) % size]]
            rng.shuffle(pair)
            sums.append(Value(Activation.of(act="relu"), (Value(Add.of(), tuple(pair), ""),), ""))
    rng.shuffle(sums)
    return Value(Add.of(), tuple(sums), "")


def test_rings_have_one_key_each() -> None:
    keys = {
        sizes: {Architecture.freeze(_rings(sizes, seed)).key for seed in range(6)}
        for sizes in ((6,), (3, 3), (4, 4), (8,), (3, 5), (3, 3, 6))
    }
    assert all(len(found) == 1 for found in keys.values()), {k: len(v) for k, v in keys.items()}
    assert len(set.union(*keys.values())) == len(keys)


def _small(rng: random.Random) -> Value:
    """A random graph of at most 6 inner nodes, of few kinds, so that many pairs look alike."""
    values = [Value(Input.of(shape=(4, 3, 3)), (), "in")]
    for _ in range(rng.randint(2, 6)):
        kind = rng.choice(["conv", "conv", "conv", "tied", "add", "add", "mul", "relu"])
        x, y = rng.choice(values), rng.choice(values)
        convs = [value for value in values if isinstance(value.op, Conv)]
        if kind == "tied" and convs:
            made = _conv(x)
            share_parameters(made, rng.choice(convs))
        elif kind in ("conv", "tied"):
            made = _conv(x)
        elif kind == "relu":
            made = Value(Activation.of(act="relu"), (x,), "")
        else:
            made = Value((Add if kind == "add" else Multiply).of(), (x, y), "")
        values.append(made)
    loose = [v for v in values[1:] if not any(v in other.inputs for other in values)]
    return loose[0] if len(loose) == 1 else Value(Add.of(), tuple(loose), "")


def _graph(architecture: Architecture) -> nx.DiGraph:
    """The network for a general isomorphism check: multiplicities on edges, ties as nodes."""
    graph = nx.DiGraph()
    nodes = architecture.nodes
    for number, node in enumerate(nodes):
        graph.add_node(number, label=(node.op.text, number == len(nodes) - 1))
        for slot, source in enumerate(node.inputs):
            slots = [*graph.get_edge_data(source, number, {"slots": []})["slots"]]
            slots.append(-1 if node.op.commutative else slot)
            graph.add_edge(source, number, slots=sorted(slots))
        if node.tie is not None:
            graph.add_node(("tie", node.tie), label="tie")
            for member in (number, node.tie):
                graph.add_edge(("tie", node.tie), member, slots=["tie"])
    return graph


def _isomorphic(first: nx.DiGraph, second: nx.DiGraph) -> bool:
    return DiGraphMatcher(
        first,
        second,
        node_match=lambda a, b: a["label"] == b["label"],
        edge_match=lambda a, b: a["slots"] == b["slots"],
    ).is_isomorphic()


def test_equal_keys_are_isomorphic_networks() -> None:
    rng = random.Random(0)
    raw = [_small(rng) for _ in range(1500)]
    by_key: dict[str, nx.DiGraph] = {}
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for output in raw:
        architecture = Architecture.freeze(output)
        graph = _graph(architecture)
        if architecture.key in by_key:
            assert _isomorphic(graph, by_key[architecture.key])
            continue
        by_key[architecture.key] = graph
        alike[tuple(sorted(str(label) for _, label in graph.nodes(data="label")))].append(
            architecture.key
        )
    pairs = [pair for keys in alike.values() for pair in combinations(keys, 2)]
    assert len(by_key) > 400
    assert len(pairs) > 1000  # the check below has something to do
    for first, second in pairs:
        assert not _isomorphic(by_key[first], by_key[second]), (first, second)


def test_isomorphic_networks_have_equal_keys() -> None:
    rng = random.Random(1)
    for _ in range(800):
        output = _small(rng)
        key = Architecture.freeze(output).key
        for _ in range(3):
            again = Architecture.freeze(rewritten(output, rng))
            assert again.key == key, (again.text, Architecture.freeze(output).text)
