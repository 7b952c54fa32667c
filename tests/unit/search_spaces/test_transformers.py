"""Transformers in the description: published sizes, costs, and decoding from a cache."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from evaluators.cost import analytic_cost
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.builder import NetworkBuilder
from search_spaces.errors import ArchitectureError, SpaceError
from search_spaces.ops.layers import Cache
from search_spaces.space import EXAMPLES, DataSpec
from search_spaces.zoo import load_space
from tests.networks import gpt2, llama_1b, vit_b_16

SPACES = ("vit", "vit-small", "decoder-lm", "decoder-lm-small")


# Published sizes, and costs.


@pytest.mark.parametrize(
    ("network", "params"),
    [
        pytest.param(vit_b_16, 86_567_656, id="torchvision ViT-B/16"),
        pytest.param(gpt2, 124_439_808, id="GPT-2 small, tied"),
        pytest.param(llama_1b, 1_235_814_400, id="Llama 3.2 1B, tied"),
    ],
)
def test_parameters_of_published_models(network, params: int) -> None:
    architecture = network()
    assert architecture.params == analytic_cost(architecture).params == params
    with torch.device("meta"):
        module = build(architecture)
    assert sum(item.numel() for item in module.parameters()) == params


def _flops(architecture: Architecture) -> int:
    with torch.device("meta"):
        module = build(architecture).eval()
        source = architecture.inputs[0]
        kind = torch.int64 if source.op.vocabulary else torch.float32
        x = torch.empty(1, *source.shape, dtype=kind)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("network", [vit_b_16, gpt2, llama_1b])
def test_macs_of_published_models_are_half_of_what_torch_counts(network) -> None:
    architecture = network()
    assert 2 * architecture.macs == _flops(architecture)


@pytest.mark.parametrize("name", SPACES)
def test_macs_and_parameters_of_random_candidates(name: str) -> None:
    space, rng = load_space(name), random.Random(1)
    for _ in range(6):
        architecture = space.sample(rng, EXAMPLES[space.reads]).architecture
        assert 2 * architecture.macs == _flops(architecture)
        with torch.device("meta"):
            module = build(architecture)
        assert architecture.params == sum(item.numel() for item in module.parameters())
        assert Architecture.parse(architecture.text) == architecture
        assert Architecture.from_json(architecture.to_json()).key == architecture.key


def test_what_a_decoder_keeps_is_counted() -> None:
    """GPT-2 keeps a key and a value of 768 features in each of 12 layers for each token."""
    cost = analytic_cost(gpt2(256))
    assert cost.kv_cache_bytes == 12 * 2 * 768 * 256 * 4
    assert cost.body_params == 124_439_808 - 768 * (50257 + 1024)
    net = NetworkBuilder((64,), 9)
    x = net.embedding(net.input, 32)
    x = net.self_attention(x, heads=4, kv_heads=2, causal=True, window=16)
    assert analytic_cost(net.freeze(x)).kv_cache_bytes == 2 * 16 * 16 * 4
    assert analytic_cost(vit_b_16()).kv_cache_bytes == 0


def test_a_lookup_reads_its_rows_alone() -> None:
    net = NetworkBuilder((8,), 1000)
    cost = analytic_cost(net.freeze(net.embedding(net.input, 16)))
    assert cost.params == 16_000
    assert cost.bytes_moved == 4 * (8 + 8 * 16 + 8 * 16)


# Tied embeddings.


def test_tied_embeddings_are_one_parameter_in_every_form() -> None:
    architecture = gpt2(16, width=32, depth=1, heads=2, words=50)
    assert architecture.text.endswith("unembedding 50 ~1")
    module = build(architecture)
    assert sum(tensor.shape == (50, 32) for tensor in module.state_dict().values()) == 1
    loose = Architecture.parse(architecture.text.removesuffix(" ~1"))
    assert loose.params == architecture.params + 50 * 32
    assert loose.key != architecture.key


def test_what_cannot_share_is_refused() -> None:
    net = NetworkBuilder((8,), 9)
    x = net.embedding(net.input, 16)
    with pytest.raises(ArchitectureError, match="cannot share"):
        net.unembedding(net.linear(x, 12), x)
    with pytest.raises(ArchitectureError, match="needs token ids"):
        net.embedding(x, 16)
    with pytest.raises(ArchitectureError, match="block/attention: 5 heads do not divide 16"):
        net.self_attention(x, heads=5, name="block/attention")


# A decoder with a cache.


@st.composite
def decoders(draw: st.DrawFn) -> Architecture:
    """Draw a small language model with everything that depends on places."""
    net = NetworkBuilder((12,), 11)
    embedding = x = net.embedding(net.input, 16)
    if draw(st.booleans()):
        x = net.positions(x)
    for _ in range(draw(st.integers(1, 2))):
        y = net.self_attention(
            net.norm(x, draw(st.sampled_from(["ln", "rms"]))),
            heads=4,
            kv_heads=draw(st.sampled_from([1, 2, 4])),
            causal=True,
            window=draw(st.sampled_from([0, 1, 2, 5, 12, 40])),
            theta=draw(st.sampled_from([0.0, 100.0])),
        )
        x = net.add(x, y)
        x = net.add(x, net.mlp(x, 24, kind=draw(st.sampled_from(["relu", "gelu", "swiglu"]))))
    tied = draw(st.booleans())
    return net.freeze(net.unembedding(x, embedding) if tied else net.linear(x, 11))


@settings(max_examples=60, deadline=None)
@given(decoders(), st.lists(st.integers(1, 12), max_size=6), st.integers(0, 1000))
def test_any_split_of_the_tokens_gives_the_outputs_of_all_at_once(
    architecture: Architecture, steps: list[int], seed: int
) -> None:
    assert architecture.decodes
    torch.manual_seed(seed)
    module = build(architecture).double().eval()
    ids = torch.randint(0, 11, (2, 12))
    with torch.no_grad():
        whole = module(ids)
        cache, found, start = Cache(12), [], 0
        for step in [*steps, *[1] * 12]:
            part = ids[:, start : start + step]
            if part.shape[1]:
                found.append(module(part, cache))
            start += step
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-9, atol=1e-9)
    widths = [
        node.op.cached(tuple(architecture.nodes[i].shape for i in node.inputs))
        for node in architecture.nodes
        if node.op.kind == "attention"
    ]
    kept = [2 * key[0].numel() for key, _ in cache.kept.values()]
    assert kept == widths


def test_a_full_cache_says_so() -> None:
    module = build(gpt2(8, width=16, depth=1, heads=2, words=9)).eval()
    cache = Cache(8)
    module(torch.zeros(1, 8, dtype=torch.int64), cache)
    with pytest.raises(ValueError, match="no room for 9 tokens, only 8"):
        module(torch.zeros(1, 1, dtype=torch.int64), cache)


@pytest.mark.parametrize(
    "text",
    [
        "input 8; linear 4",  # no ids
        "input 8 ids9; embedding 9 d4; attention h2 @1,1,1",  # not causal
        "input 8 ids9; embedding 9 d4; tokenpool last",
        "input 8 ids9; embedding 9 d4; classtoken; linear 4",
        "input 8 ids9",
    ],
)
def test_what_is_no_decoder_has_no_cache(text: str) -> None:
    architecture = Architecture.parse(text)
    assert not architecture.decodes
    build(architecture)


# Spaces.


def test_spaces_say_what_they_read() -> None:
    text, images = EXAMPLES["text"], EXAMPLES["images"]
    with pytest.raises(SpaceError, match="decoder-lm reads text, the data has images"):
        load_space("decoder-lm").sample(random.Random(0), images)
    with pytest.raises(SpaceError, match="mobile-cnn reads images, the data has text"):
        load_space("mobile-cnn").sample(random.Random(0), text)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 64, 64), (3, 224, 224), (1, 28, 28)])
def test_patches_cut_every_image_into_a_fitting_number_of_tokens(shape) -> None:
    for name, (least, most) in (("vit", (16, 256)), ("vit-small", (4, 64))):
        rng = random.Random(0)
        for _ in range(10):
            found = load_space(name).sample(rng, DataSpec(shape, 7))
            (embedded,) = [n for n in found.architecture.nodes if n.op.kind == "tokens"]
            assert least <= embedded.shape[0] <= most
            assert found.architecture.output.shape == (7,)


def test_decisions_of_every_kind_occur_and_depend_on_one_another() -> None:
    rng, seen = random.Random(0), {}
    for _ in range(300):
        found = load_space("decoder-lm").sample(rng, EXAMPLES["text"])
        for name, value in found.decisions.items():
            seen.setdefault(name.rpartition("/")[2], set()).add(value)
        for block in range(found.decisions["blocks"]):
            heads, group = (found.decisions[f"block{block}/{item}"] for item in ("heads", "group"))
            assert heads % group == 0
    assert seen["positions"] == {"learned", "rotary"}
    assert seen["mlp"] == {"gelu", "relu", "swiglu"}
    assert seen["window"] == {0, 32, 64}
    assert seen["tied"] == {True, False}
    assert len(seen["blocks"]) == 11
    assert seen["dropout"] == {0.0, 0.1, 0.2}
    assert not any("variant" in name for name in seen)
