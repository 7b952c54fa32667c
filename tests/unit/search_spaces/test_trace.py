"""Traced networks compute what the originals do; what is not understood is refused."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from evaluators.proxies.receptive_field import fields, receptive_field
from kernels.sliding_channel import module as native
from kernels.sliding_channel import plain
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.errors import ArchitectureError
from search_spaces.ops import Shape
from search_spaces.ops.layers import CausalAttention, StochasticDepth
from search_spaces.space import DataSpec
from search_spaces.trace import trace
from search_spaces.zoo.mobile_cnn import mobile_cnn_small
from search_spaces.zoo.nas_bench_201 import nas_bench_201

# Coarse nodes: by hand for ResNet-18 (input, 20 convolutions, 2 pools, 8 sums, 8 activations,
# flatten, linear) and VGG (input, 13 convolutions, 5 pools, flatten, 3 linear, 2 dropouts).
NODES = {
    "vgg16": 25,
    "vgg16_bn": 25,
    "resnet18": 41,
    "resnet50": 90,
    "mobilenet_v2": 67,
    "mobilenet_v3_small": 82,
    "efficientnet_b0": 136,
}
Traced = tuple[str, nn.Module, Architecture]
VGG_FIELDS = (3, 5, 6, 10, 14, 16, 24, 32, 40, 44, 60, 76, 92, 100, 132, 164, 196, 212)


def model(name: str, device: str = "cpu") -> nn.Module:
    with torch.device("meta"):
        module: nn.Module = getattr(torchvision.models, name)(weights=None)
    return module if device == "meta" else randomised(module.to_empty(device=device))


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw weights that keep the scale of signals, and norms far from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith(("num_batches_tracked", "starts")):
                tensor.zero_() if tensor.ndim == 0 else None
            elif tensor.ndim > 1:
                bound = (6 / tensor[0].numel()) ** 0.5
                tensor.uniform_(-bound, bound, generator=generator)
            elif name.endswith(("running_var", "weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            else:
                tensor.uniform_(-0.2, 0.2, generator=generator)
    return module


def state(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Return where each tensor stands and how often it was written."""
    tensors = module.state_dict(keep_vars=True)
    return {name: (tensor.data_ptr(), tensor._version) for name, tensor in tensors.items()}


def images(shape: Shape, batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def assert_same_outputs(module: nn.Module, twin: nn.Module, x: Tensor, *, tolerance: float) -> None:
    """Compare outputs, on the scale by which they differ between two samples."""
    with torch.no_grad():
        expected, got = module(x.clone()), twin(x.clone())
    scale = (expected[0] - expected[1]).abs().max()
    assert scale > 0
    assert (expected - got).abs().max() <= tolerance * scale


def assert_faithful(module: nn.Module, shape: Shape, *, train: bool = True) -> Architecture:
    """Compare a small module and its trace in float64, in both modes; return the architecture."""
    randomised(module)
    architecture = trace(module, shape)
    twin = build(architecture).double()
    module.double()
    assert sum(p.numel() for p in module.parameters()) == architecture.params
    assert Architecture.parse(architecture.text) == architecture
    for mode in (False, True) if train else (False,):
        module.train(mode)
        twin.train(mode)
        assert_same_outputs(module, twin, images(shape, dtype=torch.float64), tolerance=1e-12)
    return architecture


class Apply(nn.Module):
    """Two convolutions, and a function of their results and of the module."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.bn = nn.BatchNorm2d(4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@pytest.fixture(scope="module", params=sorted(NODES))
def traced(request: pytest.FixtureRequest) -> Traced:
    module = model(request.param).train()
    before = state(module)
    architecture = trace(module, (3, 224, 224))
    assert state(module) == before
    assert all(item.training for item in module.modules())
    return request.param, module, architecture


class TestModels:
    def test_size_and_written_forms(self, traced: Traced) -> None:
        name, module, architecture = traced
        assert len(architecture.nodes) == NODES[name]
        assert architecture.params == sum(p.numel() for p in module.parameters())
        assert Architecture.parse(architecture.text).key == architecture.key
        assert Architecture.from_json(architecture.to_json()).key == architecture.key

    def test_macs_are_half_of_the_flop_counter(self, traced: Traced) -> None:
        name, _, architecture = traced
        with FlopCounterMode(display=False) as counter:
            model(name, "meta").eval()(torch.empty(1, 3, 224, 224, device="meta"))
        assert 2 * architecture.macs == counter.get_total_flops()

    def test_outputs(self, traced: Traced) -> None:
        _, module, architecture = traced
        twin = build(architecture).eval()
        assert sum(p.numel() for p in twin.parameters()) == architecture.params
        assert_same_outputs(module.eval(), twin, images((3, 224, 224)), tolerance=1e-5)

    def test_outputs_at_an_odd_size(self, traced: Traced) -> None:
        _, module, _ = traced
        shape = (3, 75, 61)
        twin = build(trace(module, shape)).eval()
        assert_same_outputs(module.eval(), twin, images(shape), tolerance=1e-5)

    def test_weights_are_the_modules_own(self, traced: Traced) -> None:
        _, module, architecture = traced
        own = {tensor.data_ptr() for tensor in module.state_dict().values()}
        held = [t for roles in (architecture.weights or {}).values() for t in roles.values()]
        assert {tensor.data_ptr() for tensor in held} == own
        assert not any(tensor.requires_grad for tensor in held)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_batch_statistics_and_gradients_agree_in_float64(name: str) -> None:
    module = model(name)
    twin = build(trace(module, (3, 41, 33))).double().train()
    module.double().train()
    x = images((3, 41, 33), batch=4, dtype=torch.float64)
    expected, got = module(x), twin(x)
    assert torch.allclose(expected, got, rtol=1e-10, atol=1e-10 * expected.abs().max().item())
    for output in (expected, got):
        output.square().sum().backward()
    theirs, ours = (
        sorted(p.grad.norm().item() for p in net.parameters() if p.grad is not None)
        for net in (module, twin)
    )
    assert ours == pytest.approx(theirs, rel=1e-8)
    theirs, ours = (
        sorted(b.double().norm().item() for b in net.buffers()) for net in (module, twin)
    )
    assert ours == pytest.approx(theirs, rel=1e-10)


class TestReceptiveField:
    def test_vgg16_layer_by_layer(self) -> None:
        reached = fields(trace(model("vgg16", "meta"), (3, 224, 224)))[1 : 1 + len(VGG_FIELDS)]
        assert tuple(item.height for item in reached) == VGG_FIELDS
        assert reached[-1].jump == (32, 32)

    @pytest.mark.parametrize(("name", "field"), [("resnet18", 435), ("resnet50", 427)])
    def test_resnet(self, name: str, field: int) -> None:
        scores = receptive_field(trace(model(name, "meta"), (3, 224, 224)))
        assert (scores.height, scores.width) == (field, field)


def cell(module: Apply, x: Tensor) -> Tensor:
    return module.b(module.a(x))


# Each function, and the text of its network behind the input; None where it is of no interest.
FUNCTIONS: dict[str, tuple[Callable[[Apply, Tensor], Tensor], str | None]] = {
    "method relu": (lambda m, x: cell(m, x).relu(), "conv 4 k3 bias; conv 4 k3 bias relu"),
    "torch.sigmoid": (lambda m, x: torch.sigmoid(cell(m, x)), None),
    "silu": (lambda m, x: F.silu(cell(m, x)), None),
    "gelu": (lambda m, x: F.gelu(cell(m, x)), None),
    "hardswish": (lambda m, x: F.hardswish(cell(m, x)), None),
    "max pool with ceil": (lambda m, x: F.max_pool2d(cell(m, x), 2, ceil_mode=True), None),
    "average pool": (lambda m, x: F.avg_pool2d(cell(m, x), 3, 2, 1), None),
    "average pool, not counted": (
        lambda m, x: F.avg_pool2d(cell(m, x), 3, 2, 1, ceil_mode=True, count_include_pad=False),
        None,
    ),
    "average pool of the whole": (lambda m, x: F.avg_pool2d(cell(m, x), x.shape[2:]), None),
    "adaptive pool": (lambda m, x: F.adaptive_avg_pool2d(cell(m, x), (None, 3)), None),
    "adaptive pool and flatten": (
        lambda m, x: torch.flatten(F.adaptive_avg_pool2d(cell(m, x), (1, 1)), 1),
        "conv 4 k3 bias; conv 4 k3 bias; gap; flatten",
    ),
    "mean": (lambda m, x: cell(m, x).mean([2, 3]), "conv 4 k3 bias; conv 4 k3 bias; gap; flatten"),
    "mean, axes kept": (lambda m, x: torch.mean(cell(m, x), (-1, -2), keepdim=True), None),
    "view": (lambda m, x: cell(m, x).view(x.size(0), -1), None),
    "reshape": (lambda m, x: cell(m, x).reshape(-1, 4 * 9 * 7), None),
    "view of sizes": (
        lambda m, x: cell(m, x).view(x.shape[0], 4 * x.shape[2] * x.size(-1)),
        None,
    ),
    "channel shuffle": (lambda m, x: F.channel_shuffle(cell(m, x), 2), None),
    "cat": (lambda m, x: torch.cat([x, cell(m, x), x], dim=1), None),
    "cat along -3": (lambda m, x: torch.cat((x, cell(m, x)), -3), None),
    "squeeze and excitation": (
        lambda m, x: m.a(x) * cell(m, x).mean((2, 3), keepdim=True).sigmoid(),
        None,
    ),
    "square": (lambda m, x: cell(m, x) * m.a(x), None),
    "three terms": (
        lambda m, x: m.a(x) + cell(m, x) + m.relu(m.a(x)),
        None,
    ),
    "sum of a list": (lambda m, x: sum([x, x, x.relu()]), "act relu; add @0,0,1"),
    "zeros": (lambda m, x: cell(m, x) + x.new_zeros((x.shape[0], 4, 9, 7)), None),
    "dropout in evaluation": (
        lambda m, x: F.dropout(cell(m, x), 0.5, training=False),
        "conv 4 k3 bias; conv 4 k3 bias",
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    function, text = FUNCTIONS[name]
    module = Apply(function)
    architecture = trace(module, (3, 9, 7))
    twin = build(architecture)
    assert_same_outputs(module, twin, images((3, 9, 7)), tolerance=1e-5)
    assert text is None or architecture.text == f"input 3x9x7; {text}"


def renamed(m: Apply, x: Tensor) -> Tensor:
    t = m.a(x)
    old = t
    t += m.b(t)
    return old * t


def scaled(m: Apply, x: Tensor) -> Tensor:
    t = m.a(x)
    old = m.b(t)
    t *= t.mean([2, 3], keepdim=True).sigmoid()
    return old + t


def through_modules(m: Apply, x: Tensor) -> Tensor:
    t = m.a(x)
    y = m.relu(t)
    return m.b(t) + y


def result_ignored(m: Apply, x: Tensor) -> Tensor:
    t = m.a(x)
    F.relu(t, inplace=True)
    t.add_(m.bn(t))
    return m.b(t) + t


def copied(m: Apply, x: Tensor) -> Tensor:
    t = m.a(x)
    kept = t.clone()
    t.relu_()
    return kept + t


def chained(m: Apply, x: Tensor) -> Tensor:
    t = m.a(x) + m.b(m.a(x))
    t += m.a(x)
    return t


def on_the_input(m: Apply, x: Tensor) -> Tensor:
    x.relu_()
    return cell(m, x) * m.a(x)


class TestInPlace:
    @pytest.mark.parametrize(
        "function",
        [renamed, scaled, through_modules, result_ignored, copied, chained, on_the_input],
    )
    def test_other_names_see_the_change(self, function: Callable[[Apply, Tensor], Tensor]) -> None:
        module = randomised(Apply(function))
        twin = build(trace(module, (3, 9, 7)))
        assert_same_outputs(module.eval(), twin.eval(), images((3, 9, 7)), tolerance=1e-5)
        assert_same_outputs(module.train(), twin.train(), images((3, 9, 7)), tolerance=1e-5)

    def test_a_view_of_changed_memory_is_refused(self) -> None:
        def view(m: Apply, x: Tensor) -> Tensor:
            t = m.a(x)
            flat = t.view(t.size(0), -1)
            t.relu_()
            return flat

        with pytest.raises(ArchitectureError, match="'view', whose memory relu_ changed in place"):
            trace(Apply(view), (3, 9, 7))


class TestDropout:
    @pytest.mark.parametrize("mode", [True, False])
    def test_the_functional_form_follows_the_mode(self, mode: bool) -> None:
        module = Apply(lambda m, x: F.dropout(cell(m, x), 0.25, m.training)).train(mode)
        architecture = trace(module, (3, 9, 7))
        assert architecture.text == "input 3x9x7; conv 4 k3 bias; conv 4 k3 bias; dropout p0.25"
        assert module.training is mode
        assert module.bn.training is mode

    def test_stochastic_depth_draws_the_same_samples(self) -> None:
        theirs = torchvision.ops.StochasticDepth(0.5, "row").train()
        twin = build(trace(theirs, (2, 3, 3))).train()
        x = images((2, 3, 3), batch=64)
        torch.manual_seed(0)
        expected = theirs(x)
        torch.manual_seed(0)
        assert torch.equal(expected, twin(x))
        assert {0.0, 2.0} == set((expected / x).unique().tolist())

    def test_random_numbers_agree_in_training(self) -> None:
        module = model("efficientnet_b0").train()
        twin = build(trace(module, (3, 64, 64))).train()
        x = images((3, 64, 64), batch=8)
        results = []
        for net in (module, twin):
            torch.manual_seed(0)
            with torch.no_grad():
                results.append(net(x))
        assert torch.equal(*results)


class Shared(nn.Module):
    """One block applied twice, behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.block(self.block(x)) + self.block(F.max_pool2d(x, 3, 1, 1))


class TestSharing:
    def test_a_module_called_again_shares_its_parameters(self) -> None:
        # Training differs: batch statistics are those of each call, in both networks the same.
        architecture = assert_faithful(Shared(), (3, 8, 8))
        ties = [node.tie for node in architecture.nodes if node.tie is not None]
        assert len(ties) == 4
        assert not {n for n, node in enumerate(architecture.nodes) if node.tie is not None} & set(
            architecture.weights or {}
        )

    def test_layers_that_hold_the_same_parameters_are_tied(self) -> None:
        net = nn.Sequential(nn.Flatten(), *(nn.Linear(6, 6) for _ in range(2)))
        net[1].weight, net[1].bias = net[2].weight, net[2].bias
        assert assert_faithful(net, (6,)).text == "input 6; linear 6; linear 6 ~1"

    def test_part_of_a_layer_cannot_be_shared(self) -> None:
        net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
        net[1].weight = net[0].weight
        with pytest.raises(ArchitectureError, match=r"1 \(Linear\): shares some of its tensors"):
            trace(net, (6,))

    def test_two_input_shapes_are_refused(self) -> None:
        module = Apply(lambda m, x: m.b(m.b(F.max_pool2d(m.a(x), 2))) + F.max_pool2d(cell(m, x), 2))
        with pytest.raises(ArchitectureError, match=r"b \(Conv2d\): is called twice"):
            trace(module, (3, 8, 8))

    def test_layers_without_parameters_are_not(self) -> None:
        module = Apply(lambda m, x: m.relu(m.b(m.relu(m.a(x)))))
        text = trace(module, (3, 8, 8)).text
        assert text == "input 3x8x8; conv 4 k3 bias relu; conv 4 k3 bias relu"


class Own(nn.Conv2d):
    """A subclass that only changes how it is made."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding="same", dilation=2)


LAYERS: dict[str, tuple[nn.Module, Shape, str]] = {
    "same": (Own(3), (3, 9, 7), "conv 3 k3 d2 bias"),
    "valid": (nn.Conv2d(3, 4, (1, 3), padding="valid"), (3, 9, 7), "conv 4 k1x3 p0 bias"),
    "grouped": (nn.Conv2d(4, 8, 3, 2, 1, groups=2, bias=False), (4, 9, 7), "conv 8 k3 s2 g2"),
    "batch norm": (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-3, momentum=0.01), nn.ReLU6()),
        (3, 9, 7),
        "conv 4 bias bn eps0.001 mom0.01 relu6",
    ),
    "layer norm": (
        nn.Sequential(nn.Linear(6, 8, bias=False), nn.LayerNorm(8), nn.GELU(), nn.Identity()),
        (5, 6),
        "linear 8 nobias; norm ln gelu",
    ),
    "pools": (
        nn.Sequential(
            nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d((2, 3), 1, 1), nn.AvgPool2d(2)
        ),
        (3, 9, 8),
        "maxpool k3 s2 p1 ceil; avgpool k2x3 p1 padded; avgpool k2 s2",
    ),
    "flatten": (
        nn.Sequential(nn.ChannelShuffle(2), nn.AdaptiveAvgPool2d((None, 2)), nn.Flatten()),
        (4, 3, 5),
        "shuffle g2; gap 3x2; flatten",
    ),
    "torchvision SE": (
        torchvision.ops.SqueezeExcitation(4, 2, scale_activation=nn.Hardsigmoid),
        (4, 5, 5),
        "gap; conv 2 bias relu; conv 4 bias hardsigmoid; mul @0,3",
    ),
    "sliding": (
        native.SlidingChannelConv2d(8, 12, 2, 0.33, rule="shift", bias=True),
        (8, 3, 3),
        "sliding 12 co0.33 shift bias",
    ),
    "sliding, block order": (
        native.SlidingChannelConv2d(8, 8, 2, "1/3", order="block"),
        (8, 3, 3),
        "sliding 8 co1/3 block",
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    module, shape, text = LAYERS[name]
    assert assert_faithful(module, shape).text == f"input {'x'.join(map(str, shape))}; {text}"


@pytest.mark.parametrize("order", ["cyclic", "block"])
@pytest.mark.parametrize("rule", ["floor", "shift"])
@pytest.mark.parametrize("co", [0.0, 0.25, 0.5, 0.33])
def test_plain_sliding_channel_convolution(co: float, rule: str, order: str) -> None:
    """The plain layer keeps its windows alone; settings that give the same are found."""
    module = plain.SlidingChannelConv2d(12, 24, 3, co, rule=rule, order=order)
    architecture = assert_faithful(module, (12, 3, 3))
    if (rule, order) == ("floor", "cyclic") and co != 0.33:
        assert architecture == trace(native.SlidingChannelConv2d(12, 24, 3, co), (12, 3, 3))


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention(kv_heads: int) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            if kv_heads == 2:
                self.k, self.v = nn.Linear(8, 4), nn.Linear(8, 4)
            self.attention = CausalAttention(4, kv_heads)
            self.depth = StochasticDepth(0.0)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.depth(self.attention(self.q(x), self.k(x), self.v(x)))

    text = assert_faithful(Block(), (5, 8)).text
    assert f"attention h4{' kv2' if kv_heads == 2 else ''} causal @1,2,3" in text


class TestRoundTrip:
    """Tracing what was built gives the architecture again, and with its weights the same module."""

    @staticmethod
    def check(architecture: Architecture) -> None:
        module = randomised(build(architecture))
        again = trace(module, architecture.nodes[0].shape)
        assert again == architecture
        x = images(architecture.nodes[0].shape)
        with torch.no_grad():
            assert torch.equal(build(again).eval()(x), module.eval()(x))

    def test_mobile_cnn(self) -> None:
        rng = Random(0)
        for _ in range(20):
            self.check(mobile_cnn_small.sample(rng, DataSpec((1, 8, 8), 10)).architecture)

    def test_nas_bench_201(self) -> None:
        rng = Random(0)
        space = nas_bench_201.preset("one-cell", cells=1)
        for _ in range(20):
            architecture = space.sample(rng, DataSpec((3, 8, 8), 10)).architecture
            if architecture.live:
                self.check(architecture)

    def test_dead_network(self) -> None:
        dead = Architecture.parse("zero 10")
        assert trace(build(dead), (3, 8, 8)) == dead

    def test_zeros_in_a_concatenation(self) -> None:
        self.check(Architecture.parse("input 3x8x8; zero 2x8x8; concat @0,1; conv 4 k3 bn relu"))


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class ByMode(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.randn_like(x) if self.training else x


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


def with_override() -> nn.Module:
    module = nn.ReLU()
    module.forward = lambda x: x  # type: ignore[method-assign]
    return module


IMAGE = (4, 9, 9)
REFUSED: dict[str, tuple[nn.Module, Shape, str]] = {
    "unknown module": (
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.LeakyReLU()),
        IMAGE,
        r"^1 \(LeakyReLU\): this module is not supported. Supported .*Shuffle, .*Conv2d, ",
    ),
    "unknown root": (nn.MultiheadAttention(4, 1), (3, 4), "network"),
    "unknown function": (
        Apply(lambda m, x: torch.sin(m.a(x))),
        (3, 9, 9),
        r"^sin \(node 'sin'\): this function is not supported",
    ),
    "unknown method": (Apply(lambda m, x: m.a(x).abs()), (3, 9, 9), "method is not supported"),
    "control flow": (nn.Sequential(Branches()), IMAGE, r"^0 \(Branches\): torch.fx cannot trace"),
    "by mode": (nn.Sequential(ByMode()), IMAGE, "^0/.*differs between training and evaluation"),
    "two outputs": (Pair(), IMAGE, "must return one tensor"),
    "parameter": (Scaled(), IMAGE, r"gain.*uses a parameter or buffer directly"),
    "norm without affine": (
        nn.BatchNorm2d(4, affine=False),
        IMAGE,
        r"BatchNorm2d\): .*affine=True",
    ),
    "norm without statistics": (
        nn.BatchNorm2d(4, track_running_stats=False),
        IMAGE,
        "track_running_stats=True",
    ),
    "cumulative norm": (nn.BatchNorm2d(4, momentum=None), IMAGE, "a momentum"),
    "norm of vectors": (nn.BatchNorm1d(4), (4,), "BatchNorm1d"),
    "layer norm without bias": (nn.LayerNorm(9, bias=False), IMAGE, "a weight and a bias"),
    "padding mode": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), IMAGE, "reflect"),
    "uneven padding": (nn.Conv2d(4, 4, 2, padding="same"), IMAGE, "unevenly"),
    "channels": (nn.Conv2d(3, 4, 3), IMAGE, r"was made for 3 channels, got \(4, 9, 9\)"),
    "too small": (nn.Conv2d(4, 4, 11), IMAGE, "window of 11 does not fit 9 pixels"),
    "hooks": (
        nn.utils.spectral_norm(nn.Conv2d(4, 4, 3)),
        IMAGE,
        "changed by hooks",
    ),
    "parametrized": (
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)),
        IMAGE,
        "ParametrizedConv2d",
    ),
    "override": (with_override(), IMAGE, "changed by hooks"),
    "pool divisor": (nn.AvgPool2d(2, divisor_override=3), IMAGE, "divisor_override"),
    "pool dilation": (nn.MaxPool2d(2, dilation=2), IMAGE, "dilation"),
    "whole drop": (nn.Dropout(1.0), IMAGE, "p must be"),
    "batch mode": (torchvision.ops.StochasticDepth(0.5, "batch"), IMAGE, "'batch'"),
    "drop in evaluation": (
        Apply(lambda m, x: F.dropout(m.a(x), 0.5)),
        (3, 9, 9),
        "drops in evaluation too",
    ),
    "flattened batch": (Apply(lambda m, x: torch.flatten(m.a(x))), (3, 9, 9), "got 0 to -1"),
    "view of the batch": (Apply(lambda m, x: m.a(x).view(-1, 4)), (3, 9, 9), "only views"),
    "cat of the batch": (Apply(lambda m, x: torch.cat([x, x])), (3, 9, 9), "along channels"),
    "mean of channels": (Apply(lambda m, x: m.a(x).mean(1)), (3, 9, 9), "only means"),
    "indexing": (Apply(lambda m, x: m.a(x)[:, 0]), (3, 9, 9), "only the first or the last"),
    "number": (Apply(lambda m, x: m.a(x) * 2), (3, 9, 9), "expected a tensor.* got 2"),
    "difference": (Apply(lambda m, x: m.a(x) - x), (3, 9, 9), "not for tensors"),
    "sum with alpha": (Apply(lambda m, x: torch.add(x, x, alpha=2)), (3, 9, 9), "alpha"),
    "broadcast sum": (
        Apply(lambda m, x: m.a(x) + m.a(x).mean([2, 3], keepdim=True)),
        (3, 9, 9),
        "cannot add",
    ),
    "zeros through a layer": (
        Apply(lambda m, x: m.a(x.new_zeros((x.shape[0], 3, 9, 9)))),
        (3, 9, 9),
        "reads constant zeros",
    ),
    "in place by mode": (
        Apply(lambda m, x: F.relu(m.a(x), inplace=m.training)),
        (3, 9, 9),
        "inplace differs",
    ),
    "shape": (nn.ReLU(), (0, 3), "shape must be"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    module, shape, message = REFUSED[name]
    with pytest.raises(ArchitectureError, match=message):
        trace(module, shape)
    assert module.training


def test_a_network_of_nothing() -> None:
    assert trace(nn.Identity(), (3, 9, 9)).text == "input 3x9x9"
