"""The frozen description itself: immutability, scopes, regions, sharing, speed of its keys."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys

import pytest

from search_spaces import scope
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.builder import NetworkBuilder
from search_spaces.choose import Chooser
from search_spaces.errors import ArchitectureError
from search_spaces.space import DataSpec, space
from search_spaces.zoo import load_space
from tests.networks import resnet18, resnet50

CIFAR = DataSpec((3, 32, 32), 10)


def test_nodes_stand_behind_their_inputs_and_the_output_is_last() -> None:
    rng = random.Random(0)
    for name in ("mobile-cnn", "nas-bench-201"):
        for _ in range(10):
            architecture = load_space(name).sample(rng, CIFAR).architecture
            read = set()
            for number, node in enumerate(architecture.nodes):
                assert all(item < number for item in node.inputs)
                read |= set(node.inputs)
            assert read == set(range(len(architecture.nodes) - 1))
            assert architecture.output is architecture.nodes[-1]


def test_equal_architectures_are_one_key_of_a_dictionary() -> None:
    first, second = resnet18(), resnet18()
    assert first == second
    assert len({first, second, resnet50(stride_on=1), resnet50(stride_on=3)}) == 3
    assert first != first.text
    assert pickle.loads(pickle.dumps(first)) == first


def test_keys_are_those_of_another_process() -> None:
    """No hash seed enters: another interpreter with another seed gives the same keys."""
    code = (
        "from search_spaces.zoo import load_space; from search_spaces.space import DataSpec\n"
        "import random; rng = random.Random(5); s = load_space('nas-bench-201')\n"
        "for _ in range(5): print(s.sample(rng, DataSpec((3, 32, 32), 10)).architecture.key)"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    rng, found = random.Random(5), load_space("nas-bench-201")
    here = [found.sample(rng, CIFAR).architecture.key for _ in range(5)]
    assert outputs[0].split() == outputs[1].split() == here


def test_regions_follow_what_normalisation_does_to_their_values() -> None:
    net = NetworkBuilder((4, 8, 8))
    conv = net.conv(net.input, 8, norm=None, act=None)
    norm = net.norm(conv)
    out = net.activation(norm)
    lost = net.conv(net.input, 8)
    net.variant([norm], "w1a2")
    net.variant([lost], "shfl_bw(V=64)")
    architecture = net.freeze(out)
    assert architecture.text == "input 4x8x8; conv 8 bn relu | w1a2 on 1"
    net.variant([conv], "w2a2")
    apart = net.freeze(out)
    assert apart.text == "input 4x8x8; conv 8; norm bn relu | w2a2 on 1 | w1a2 on 2"
    with pytest.raises(ArchitectureError, match="conv: has the variant w2a2 already"):
        net.variant([conv], "w1a2")


def test_a_repeat_with_another_execution_is_no_repeat() -> None:
    net = NetworkBuilder((4, 8, 8))
    x = net.conv(net.input, 4)
    first, second = (net.avg_pool(x, kernel=3, stride=1, padding=1) for _ in range(2))
    net.variant([second], "w1a2")
    architecture = net.freeze(net.add(first, second))
    assert architecture.dense().text == (
        "input 4x8x8; conv 4 bn relu; avgpool k3 p1; avgpool k3 p1 @1; add @2,3"
    )
    assert [str(region.variant) for region in architecture.regions] == ["w1a2"]


def test_a_variant_set_in_a_space_reaches_the_candidate() -> None:
    @space("varied", version=1)
    def varied(choose: Chooser, data: DataSpec) -> Value:
        net = NetworkBuilder(data.input_shape)
        x = net.conv(net.input, choose("width", (4, 8)), kernel=3)
        net.variant([x], "shfl_bw(V=64)")
        return net.classifier(x, data.classes)

    for candidate in varied.enumerate(DataSpec((3, 8, 8), 10)):
        assert [region.nodes for region in candidate.architecture.regions] == [(1,)]


def test_sharing_needs_equal_operators_with_parameters() -> None:
    net = NetworkBuilder((4, 8, 8))
    a, b = net.conv(net.input, 4), net.conv(net.input, 8)
    for first, second in ((a, b), (net.activation(a), net.activation(a)), (a, net.conv(b, 4))):
        with pytest.raises(ArchitectureError, match="cannot share the parameters"):
            net.share(first, second)


def test_scopes_nest_and_are_left_after_an_error() -> None:
    net = NetworkBuilder((4, 8, 8))
    with scope.inside("mobile"), scope.inside("stage2"):
        assert net.conv(net.input, 4, name="c").scope == "mobile/stage2/c"
        refused = pytest.raises(ArchitectureError, match=r"^mobile/stage2/block0/conv: groups 3")
        with refused, scope.inside("block0"):
            net.conv(net.input, 8, groups=3)
        assert scope.current() == "mobile/stage2"
    assert scope.current() == ""


def test_inputs_and_liveness() -> None:
    two = Architecture.parse("input 4x5x5; input 2x5x5; concat @0,1")
    assert [node.shape for node in two.inputs] == [(4, 5, 5), (2, 5, 5)]
    assert two.live
    assert not Architecture.parse("zero 4x5x5").live
    assert Architecture.parse("zero 4x5x5").inputs == ()


def test_conv_blocks_by_hand() -> None:
    net = NetworkBuilder((8, 16, 16))
    texts = {
        kind: net.freeze(net.conv_block(net.input, 12, kind=kind, stride=2, kernel=5)).text
        for kind in ("standard", "separable", "sliding")
    }
    assert texts == {
        "standard": "input 8x16x16; conv 12 k5 s2 bn relu",
        "separable": "input 8x16x16; conv 8 k5 s2 g8 bn relu; conv 12 bn relu",
        "sliding": "input 8x16x16; conv 8 k5 s2 g8 bn relu; sliding 12 bn relu",
    }
    with pytest.raises(ArchitectureError, match="got 'dense'"):
        net.conv_block(net.input, 12, kind="dense")
