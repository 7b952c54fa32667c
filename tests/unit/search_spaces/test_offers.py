"""Variants are asked for where something offers them, and nowhere else."""

from __future__ import annotations

import random

import pytest
import torch
import torchvision

from kernels.errors import UnknownNameError
from kernels.registry import Registry
from search_spaces import offers as offering
from search_spaces import scope, variants
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.builder import NetworkBuilder
from search_spaces.choose import Decisions
from search_spaces.errors import SpaceError
from search_spaces.offers import BY_BLOCK, DENSE, everywhere, of_kinds, offered, variant_space
from search_spaces.ops import Op, Shape, parse_op
from search_spaces.space import EXAMPLES, DataSpec, Space
from search_spaces.trace import trace
from search_spaces.variants import realise
from search_spaces.zoo import load_space
from tests.networks import gpt2

TEXT = DataSpec((16,), 50, 50)


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two systems, as those to come: one for wide layers, one for all linear ones."""

    class Sparse:
        def offers(self, op: Op, inputs: tuple[Shape, ...]) -> list[str]:
            wide = op.kind == "linear" and inputs[0][-1] >= 64
            return ["sparse(density=0.25)", "sparse(density=0.5)"] if wide else []

    class Low:
        def offers(self, op: Op, inputs: tuple[Shape, ...]) -> list[str]:
            return ["w1a2"] if op.kind == "linear" else []

    registry: Registry[object] = Registry("variant")
    registry.add("sparse", Sparse())
    registry.add("low", Low())
    registry.add("silent", object())  # executes variants, and offers none to spaces
    monkeypatch.setattr(variants, "VARIANTS", registry)


def network(width: int = 32) -> Architecture:
    return gpt2(16, width=width, depth=2, heads=2, words=50)


def test_systems_offer_what_suits_the_size_of_a_weight() -> None:
    def kinds(text: str, *shape: int) -> set[str]:
        return {item.partition("(")[0] for item in offered(parse_op(text), (shape,))}

    assert {"shfl_bw", "fp32_emulated"} <= kinds("linear 384", 16, 384)
    assert "shfl_bw" in kinds("conv 128 k3", 128, 8, 8)
    assert "shfl_bw" not in kinds("conv 128 k3 g2", 128, 8, 8)
    assert "fp32_emulated" not in kinds("conv 128 k3", 128, 8, 8)
    assert not {"shfl_bw", "fp32_emulated"} & kinds("linear 10", 384)
    layer = parse_op("linear 384")
    assert offered(layer, ((16, 384),), ["fp32_emulated"]) == ["fp32_emulated"]
    assert {"w8a8", "w4a4", "w2a2", "w1a2"} <= kinds("linear 384", 16, 384)
    assert offered(layer, ((16, 384),), ["w4a4", "w2a2"]) == ["w4a4", "w2a2"]
    with pytest.raises(UnknownNameError, match=r"'shfl'.*shfl_bw"):
        offered(layer, ((16, 384),), ["shfl"])


@pytest.mark.parametrize("text", offered(parse_op("linear 384"), ((16, 384),)))
def test_what_is_offered_can_be_built(text: str) -> None:
    net = Architecture.parse("input 384; linear 384; linear 10").with_variant([1], text)
    module = build(realise(net, "packed").architecture).eval()
    assert module(torch.zeros(2, 384)).shape == (2, 10)


@pytest.mark.usefixtures("offers")
@pytest.mark.parametrize("seed", range(12))
def test_each_role_is_a_question_and_may_become_one_of_each_block(seed: int) -> None:
    space = variant_space("variants of it", network())
    found = space.sample(random.Random(seed), TEXT)
    assert space.reads == "text"
    roles = {name: answer for name, answer in found.decisions.items() if "*" in name}
    assert len(roles) == 4  # the unembedding is no linear layer
    blocks = dict(found.decisions.items() - roles.items())
    assert all(name.endswith("/variant") for name in found.decisions)
    assert sorted(blocks) == sorted(
        name.replace("*", number)
        for name, answer in roles.items()
        for number in "01"
        if answer == BY_BLOCK
    )
    assert found.architecture.topology_key == network().key
    assert found.architecture.weights is None
    regions = found.architecture.regions
    chosen = set(found.decisions.values()) - {DENSE, BY_BLOCK}
    assert {str(region.variant) for region in regions} == chosen
    assert all(len(region.nodes) == 1 for region in regions)
    again = space.replay(found.decisions, TEXT)
    assert again.architecture.key == found.architecture.key


@pytest.mark.usefixtures("offers")
def test_a_role_has_one_variant_in_all_blocks_or_each_block_its_own() -> None:
    space = variant_space("variants of it", network(64))
    met = set()
    for seed in range(60):
        decisions = space.sample(random.Random(seed), TEXT).decisions
        given = given_by_block(space, decisions)
        for name, answer in decisions.items():
            if "*" in name and answer not in {DENSE, BY_BLOCK}:
                role = name.split("/")[-2]
                assert given[0][role] == given[1][role] == {answer}
        met.add((BY_BLOCK in decisions.values(), given[0] == given[1]))
    assert met >= {(False, True), (True, False)}
    assert (False, False) not in met


def given_by_block(space: Space, decisions: Decisions) -> list[dict[str, set[str]]]:
    """Return the variants of each block's layers by role."""
    found: list[dict[str, set[str]]] = [{}, {}]
    architecture = space.replay(decisions, TEXT).architecture
    for region in architecture.regions:
        (node,) = (architecture.nodes[item] for item in region.nodes)
        *outer, last = node.scope.split("/")
        block = found[int("block1" in outer)]
        block.setdefault(offering.ROLES[last], set()).add(str(region.variant))
    return found


@pytest.mark.usefixtures("offers")
def test_what_is_offered_depends_on_the_shape_of_every_layer_of_a_role() -> None:
    """Of a network 32 wide only the way down reads 64 features or more; all three of qkv do not."""
    seen: dict[str, set[str]] = {}
    space = variant_space("variants of it", network())
    for seed in range(60):
        for name, answer in space.sample(random.Random(seed), TEXT).decisions.items():
            seen.setdefault(name.split("/")[-2], set()).add(str(answer))
    sparse = {"sparse(density=0.25)", "sparse(density=0.5)"}
    assert seen["down"] == {DENSE, "w1a2", BY_BLOCK} | sparse
    assert seen["qkv"] == seen["out"] == seen["up"] == {DENSE, "w1a2", BY_BLOCK}


@pytest.mark.usefixtures("offers")
@pytest.mark.parametrize("name", ["vit", "decoder-lm"])
def test_spaces_offer_them_too_where_that_is_asked_for(name: str) -> None:
    plain, space = load_space(name), load_space(f"{name}-variants")
    data = EXAMPLES[space.reads]
    assert not any("/variant" in item for item in plain.sample(random.Random(0), data).decisions)
    found = space.sample(random.Random(0), data)
    asked = [item for item in found.decisions if item.endswith("/variant")]
    assert any("block*/attention/qkv" in item for item in asked)
    assert any("block*/mlp/down" in item for item in asked)


@pytest.mark.usefixtures("offers")
def test_a_traced_model_is_a_space_of_its_variants() -> None:
    module = torchvision.models.VisionTransformer(16, 4, 1, 2, 32, 48, num_classes=5)
    architecture = trace(module, (3, 16, 16))
    assert architecture.weights
    space = variant_space("variants of vit", architecture)
    found = space.sample(random.Random(0), DataSpec((3, 16, 16), 5))
    roles = {name.split("/")[-2] for name in found.decisions}
    assert {"qkv", "out"} <= roles
    assert found.architecture.dense() == architecture


def test_roles_read_the_names_that_libraries_use() -> None:
    roles = offering.ROLES
    assert roles["q_proj"] == roles["query"] == "qkv"
    assert roles["gate_proj"] == roles["up_proj"] == roles["c_fc"] == "up"


@pytest.mark.usefixtures("offers")
@pytest.mark.parametrize("width", [32, 64])
def test_each_variant_in_all_layers_that_can_have_it(width: int) -> None:
    space = variant_space("variants of it", network(width))
    found = dict(everywhere(space, TEXT))
    assert set(found) == {DENSE, "w1a2", "sparse(density=0.25)", "sparse(density=0.5)"}
    assert found[DENSE].architecture.key == network(width).topology_key
    (linear,) = (
        sorted(n for region in item.architecture.regions for n in region.nodes)
        for variant, item in found.items()
        if variant == "w1a2"
    )
    assert len(linear) == 2 * 6, "query, key, value, out, up, down"
    for variant, candidate in found.items():
        answers = candidate.decisions.values()
        assert set(answers) <= {variant, DENSE, BY_BLOCK}
        assert space.replay(candidate.decisions, TEXT).architecture == candidate.architecture
        given = [node for region in candidate.architecture.regions for node in region.nodes]
        if variant.startswith("sparse"):
            assert len(given) == (12 if width == 64 else 2), "where 64 features or more are read"


def test_a_space_is_narrowed_to_some_kinds() -> None:
    space = of_kinds(load_space("decoder-lm-variants"), ["w8a8", "fp32_emulated"], TEXT)
    met = set()
    for seed in range(20):
        regions = space.sample(random.Random(seed), TEXT).architecture.regions
        met |= {region.variant.kind for region in regions}
    assert met == {"w8a8", "fp32_emulated"}
    with pytest.raises(SpaceError, match="decoder-lm asks for no variant of the kinds w8a8"):
        of_kinds(load_space("decoder-lm"), ["w8a8"], TEXT)
    with pytest.raises(UnknownNameError, match="w9a9"):
        of_kinds(load_space("decoder-lm-variants"), ["w9a9"], TEXT)


def test_a_variant_that_some_blocks_alone_can_have_is_given_to_those(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wide:
        def offers(self, op: Op, inputs: tuple[Shape, ...]) -> list[str]:
            wide = op.kind == "conv" and inputs[0][0] >= 16
            return ["w1a2", "wide"] if wide else ["w1a2"]

    registry: Registry[object] = Registry("variant")
    registry.add("wide", Wide())
    monkeypatch.setattr(variants, "VARIANTS", registry)
    net = NetworkBuilder((3, 8, 8))
    x = net.input
    for number, channels in enumerate((8, 16, 16)):
        with scope.inside(f"block{number}"):
            x = net.conv(x, channels, kernel=3, name="conv")
    space = variant_space("of it", Architecture.freeze(net.classifier(x, 5)))
    found = dict(everywhere(space, DataSpec((3, 8, 8), 5)))
    assert found["wide"].decisions == {
        "block*/conv/variant": BY_BLOCK,
        "block0/conv/variant": DENSE,
        "block1/conv/variant": DENSE,
        "block2/conv/variant": "wide",
        "classifier/variant": DENSE,
    }
    assert found["w1a2"].decisions == {
        "block*/conv/variant": "w1a2",
        "classifier/variant": "w1a2",
    }
