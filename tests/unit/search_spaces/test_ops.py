"""Everything an operator says of itself, held against the layers it makes."""

from __future__ import annotations

import builtins
import dataclasses
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.build import build
from search_spaces.errors import ArchitectureError, OpError
from search_spaces.ops import OPS, Embedding, Input, Op, Shape, make_op, parse_op
from search_spaces.source import generate
from tests.networks import LAYERS, layer

CASES: dict[str, list[tuple[str, tuple[Shape, ...]]]] = {
    "input": [("input 3x8x6", ()), ("input 5", ()), ("input 7x16", ()), ("input 6 ids9", ())],
    "zero": [("zero 3x8x6", ()), ("zero 5", ())],
    "conv": [
        ("conv 6", ((4, 7, 7),)),
        ("conv 6 bias", ((4, 7, 9),)),
        ("conv 8 k3 bn relu", ((4, 9, 11),)),
        ("conv 8 k3 s2 bn", ((4, 11, 12),)),
        ("conv 4 k5 d2 hardswish", ((4, 21, 21),)),
        ("conv 8 k1x3 s2x1 bias tanh", ((4, 9, 9),)),
        ("conv 8 k3x5 d2x1 p0x2 g2 silu", ((4, 13, 13),)),
        ("conv 8 k3 g4 bn", ((4, 9, 9),)),
        ("conv 4 k3 g4 bn relu6", ((4, 9, 9),)),
        ("conv 8 k2 s2 p0 gelu", ((4, 8, 9),)),
        ("conv 4 k4 p2 bn eps0.001 mom0.01 hardsigmoid", ((4, 9, 9),)),
        ("conv 3 k7 s4 p3 sigmoid", ((1, 21, 23),)),
    ],
    "sliding": [
        ("sliding 8", ((8, 5, 5),)),
        ("sliding 12 cg4 co0.25 bias relu", ((8, 4, 6),)),
        ("sliding 7 co0.33 shift bn", ((8, 3, 3),)),
        ("sliding 8 co0.5 block bn relu", ((8, 5, 5),)),
        ("sliding 16 cg4 co0.75 tanh", ((16, 3, 3),)),
        ("sliding 5 co1/3 bn eps0.001 mom0.2", ((6, 3, 3),)),
        ("sliding 8 cg1 co0.0", ((4, 3, 3),)),
    ],
    "linear": [
        ("linear 5", ((7,),)),
        ("linear 5 nobias relu", ((7,),)),
        ("linear 9 gelu", ((4, 6),)),
        ("linear 3 nobias", ((4, 6),)),
    ],
    "norm": [
        ("norm bn", ((4, 5, 5),)),
        ("norm bn eps0.001 mom0.3 relu", ((4, 5, 5),)),
        ("norm ln", ((6, 8),)),
        ("norm ln eps1e-06 gelu", ((6, 8),)),
        ("norm ln", ((8,),)),
        ("norm rms", ((6, 8),)),
        ("norm rms eps1e-06 silu", ((8,),)),
    ],
    "act": [
        *((f"act {a}", ((3, 4, 5),)) for a in ("relu", "relu6", "hardswish", "hardsigmoid")),
        *((f"act {a}", ((4, 5),)) for a in ("silu", "sigmoid", "tanh", "gelu", "gelu_tanh")),
    ],
    "add": [
        ("add", ((4, 5, 5), (4, 5, 5))),
        ("add", ((4, 5, 5),) * 3),
        ("add", ((6, 8), (6, 8))),
        ("add", ((4, 5, 5),)),
    ],
    "mul": [
        ("mul", ((4, 5, 5), (4, 5, 5))),
        ("mul", ((4, 5, 5), (4, 1, 1))),
        ("mul", ((4, 1, 1), (4, 5, 5))),
        ("mul", ((9,), (9,))),
    ],
    "concat": [
        ("concat", ((4, 5, 5), (2, 5, 5))),
        ("concat", ((4, 5, 5), (2, 5, 5), (1, 5, 5))),
        ("concat", ((4,), (3,))),
        ("concat", ((4, 5, 5),)),
    ],
    "maxpool": [
        ("maxpool k2 s2", ((3, 9, 8),)),
        ("maxpool k3 s2 p1", ((3, 11, 11),)),
        ("maxpool k3 s2 ceil", ((3, 10, 10),)),
        ("maxpool k3x1 s1x2", ((2, 7, 7),)),
        ("maxpool k2 s3 p1 ceil", ((2, 9, 9),)),
        ("maxpool k1", ((2, 4, 4),)),
    ],
    "avgpool": [
        ("avgpool k2 s2", ((3, 9, 8),)),
        ("avgpool k3 p1", ((3, 9, 9),)),
        ("avgpool k3 s2 p1 padded", ((3, 9, 9),)),
        ("avgpool k1x3 s2 ceil", ((3, 9, 10),)),
    ],
    "gap": [
        ("gap", ((5, 7, 6),)),
        ("gap 2", ((5, 8, 8),)),
        ("gap 3x2", ((3, 7, 6),)),
        ("gap", ((5, 1, 1),)),
    ],
    "flatten": [
        ("flatten", ((3, 4, 2),)),
        ("flatten", ((3, 4),)),
        ("flatten", ((3,),)),
    ],
    "shuffle": [
        ("shuffle g2", ((8, 3, 3),)),
        ("shuffle g4", ((12, 3, 3),)),
        ("shuffle g1", ((6, 2, 2),)),
    ],
    "dropout": [
        ("dropout", ((3, 4, 4),)),
        ("dropout p0.1", ((9,),)),
        ("dropout p0.25 path", ((3, 4, 4),)),
        ("dropout p0.0", ((3, 4, 4),)),
    ],
    "attention": [
        ("attention h2", ((5, 8),) * 3),
        ("attention h4 causal", ((6, 16),) * 3),
        ("attention h4 kv2", ((6, 16), (6, 8), (6, 8))),
        ("attention h4 kv1 causal", ((4, 16), (4, 4), (4, 4))),
        ("attention h2", ((3, 8), (7, 8), (7, 8))),
        ("attention h2 w3", ((7, 8),) * 3),
        ("attention h4 kv2 causal w2", ((6, 16), (6, 8), (6, 8))),
    ],
    "embedding": [("embedding 9 d6", ((5,),)), ("embedding 4 d3", ((7,),))],
    "unembedding": [("unembedding 9", ((5, 6),)), ("unembedding 3", ((7, 4),))],
    "positions": [("positions", ((5, 6),)), ("positions", ((7, 4),))],
    "rotary": [("rotary h1", ((5, 6),)), ("rotary h2 theta500.0", ((7, 8),))],
    "tokens": [("tokens", ((6, 3, 4),)), ("tokens", ((2, 1, 5),))],
    "classtoken": [("classtoken", ((5, 6),)), ("classtoken", ((1, 4),))],
    "tokenpool": [(f"tokenpool {pool}", ((5, 6),)) for pool in ("first", "last", "mean")],
}

OF_TOKENS = ("attention", "embedding", "unembedding", "rotary", "tokens", "classtoken", "tokenpool")
"""Operators whose masks are of tokens where their channels are features."""


class Case(NamedTuple):
    op: Op
    inputs: tuple[Shape, ...]


ALL = [
    pytest.param(Case(parse_op(text), inputs), id=f"{text} @ {inputs}".replace(" ", "_"))
    for rows in CASES.values()
    for text, inputs in rows
]
every_case = pytest.mark.parametrize("case", ALL)


def _architecture(case: Case) -> Architecture:
    ids = case.op.vocabulary if isinstance(case.op, Embedding) else 0
    sources = tuple(
        Value(Input.of(shape=shape, vocabulary=ids), (), f"in{i}")
        for i, shape in enumerate(case.inputs)
    )
    return Architecture.freeze(Value(case.op, sources, f"here/{case.op.kind}"))


def _arguments(architecture: Architecture, **options: Any) -> list[Tensor]:
    """Random inputs, at least one: a network without an input is asked for its batch only."""
    shapes = [node.shape for node in architecture.inputs] or [(1,)]
    ids = [getattr(node.op, "vocabulary", 0) for node in architecture.inputs] or [0]
    generator = torch.Generator().manual_seed(0)
    if options.get("device") == "meta":
        kinds = [{**options, "dtype": torch.int64} if n else options for n in ids]
        return [torch.empty(1, *shape, **kind) for shape, kind in zip(shapes, kinds, strict=True)]
    return [
        torch.randint(0, n, (2, *shape), generator=generator)
        if n
        else torch.randn(2, *shape, generator=generator, **options)
        for shape, n in zip(shapes, ids, strict=True)
    ]


def test_every_registered_operator_has_cases() -> None:
    assert set(CASES) == set(OPS.names())
    assert all(text.split()[0] == kind for kind, rows in CASES.items() for text, _ in rows)


def test_cases_set_every_attribute_of_every_operator() -> None:
    """An attribute that no case sets off its default is not tested by anything below."""
    for kind, cls in OPS:
        ops = [parse_op(text) for text, _ in CASES[kind]]
        for name in (field.name for field in dataclasses.fields(cls)):
            values = {repr(op.to_json()[name]) for op in ops}
            assert len(values) > 1 or kind in ("shuffle",), f"{kind}.{name} is always {values}"


# (a) shape, (b) parameters.


@every_case
def test_shape_is_that_of_the_built_module(case: Case) -> None:
    architecture = _architecture(case)
    module = build(architecture)
    for mode in (True, False):
        output = module.train(mode)(*_arguments(architecture))
        assert tuple(output.shape) == (2, *case.op.facts(case.inputs).shape)


@every_case
def test_elements_read_and_written_are_those_of_the_shapes(case: Case) -> None:
    facts = case.op.facts(case.inputs)
    assert facts.elements == int(np.prod(facts.shape))
    assert facts.read == sum(int(np.prod(shape)) for shape in case.inputs)


@every_case
def test_parameters_are_those_of_the_built_module(case: Case) -> None:
    module = build(_architecture(case))
    assert case.op.facts(case.inputs).params == sum(p.numel() for p in module.parameters())


# (c) multiply-accumulates.


@every_case
def test_macs_are_half_of_what_torch_counts(case: Case) -> None:
    if case.op.kind == "sliding":
        pytest.skip("torch counts the dense product; see the closed form below")
    architecture = _architecture(case)
    with torch.device("meta"):
        module = build(architecture).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*_arguments(architecture, device="meta"))
    assert 2 * case.op.facts(case.inputs).macs == counter.get_total_flops()
    assert (case.op.facts(case.inputs).macs > 0) == (
        case.op.kind in ("conv", "linear", "attention", "unembedding")
    )


@pytest.mark.parametrize(("text", "inputs"), CASES["sliding"])
def test_macs_of_sliding_channels_are_outputs_times_window(
    text: str, inputs: tuple[tuple[int, int, int]]
) -> None:
    op: Any = parse_op(text)
    c, h, w = inputs[0]
    assert op.facts(inputs).macs == op.out_channels * (c // op.cg) * h * w


# (d) receptive field.


def _dependence(case: Case, which: int) -> np.ndarray[Any, Any]:
    """Find, by raising each element of an input, which elements of the output move.

    Returns:
        Booleans, shape of the output followed by the shape of the input.
    """
    generator = torch.Generator().manual_seed(1)
    module = layer(case.op, case.inputs).double().eval()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and "running_mean" not in name:
                tensor.uniform_(0.01, 0.05, generator=generator)
                if name.endswith("running_var"):
                    tensor.fill_(1.0)
        shape = case.inputs[which]
        count = int(np.prod(shape))
        base = [torch.rand(1, *s, generator=generator, dtype=torch.float64) for s in case.inputs]
        if isinstance(case.op, Embedding):  # an id is moved to the next
            base = [torch.zeros(1, *s, dtype=torch.int64) for s in case.inputs]
        moved = base[which] + torch.eye(count, dtype=base[which].dtype).reshape(count, *shape)
        # As in a source: one layer stands for itself.
        names: dict[str, Any] = {"layer": module[0] if len(module) == 1 else module}
        for i, tensor in enumerate(base):
            names[f"a{i}"] = torch.cat(
                [tensor, moved if i == which else tensor.expand(count, *tensor.shape[1:])]
            )
        args = tuple(f"a{i}" for i in range(len(base)))
        result = eval(case.op.call("layer", args), LAYERS, names)
        changed = (result[1:] - result[:1]).abs() > 1e-13
    return np.moveaxis(
        changed.numpy().reshape(*shape, *result.shape[1:]), range(len(shape)), range(-len(shape), 0)
    )


SEEN = [p for p in ALL if p.values[0].inputs]  # type: ignore[union-attr]
with_inputs = pytest.mark.parametrize("case", SEEN)


@with_inputs
def test_channel_masks_are_what_the_module_reads(case: Case) -> None:
    masks = case.op.masks(case.inputs)
    assert len(masks) == len(case.inputs)
    for which, mask in enumerate(masks):
        depends = _dependence(case, which)
        in_axis = depends.ndim - len(case.inputs[which])
        others = tuple(i for i in range(depends.ndim) if i not in (0, in_axis))
        found = depends.any(axis=others)
        if case.op.kind == "attention":  # stated as a bound: every token may matter
            assert mask.shape == found.shape
            assert (mask | ~found).all()
        else:
            np.testing.assert_array_equal(mask, found)


@with_inputs
def test_channels_read_are_the_rows_of_the_masks(case: Case) -> None:
    if case.op.kind in OF_TOKENS or (case.op.kind == "linear" and len(case.inputs[0]) == 2):
        pytest.skip("its masks are of tokens, its channels are features")
    masks = case.op.masks(case.inputs)
    rows = np.concatenate(masks, axis=1).sum(axis=1)
    per_input = rows / (1 if case.op.kind == "concat" else len(masks))
    assert (per_input == case.op.facts(case.inputs).reach.channels).all()


MAPS = [
    p
    for p in SEEN
    if all(len(shape) == 3 for shape in p.values[0].inputs)  # type: ignore[union-attr]
    and p.values[0].op.kind not in ("flatten", "tokens")  # type: ignore[union-attr]
]


@pytest.mark.parametrize("case", MAPS)
@pytest.mark.parametrize("axis", [0, 1], ids=["height", "width"])
def test_span_and_stride_are_what_the_module_sees(case: Case, axis: int) -> None:
    reach = case.op.facts(case.inputs).reach
    for which, shape in enumerate(case.inputs):
        if shape[1:] == (1, 1) and case.op.kind == "mul":
            continue  # a gate: broadcast, no windows
        depends = _dependence(case, which)  # (o, i, j, c, h, w)
        seen = depends.any(axis=(0, 2 - axis, 3, 5 - axis))  # (positions out, positions in)
        size = shape[1 + axis]
        first = seen.argmax(axis=1)
        last = size - 1 - seen[:, ::-1].argmax(axis=1)
        extents = last - first + 1
        if reach.everywhere:
            assert seen.all()
        assert extents.max() == min(reach.span[axis] + 1, size)
        whole = np.flatnonzero(extents == reach.span[axis] + 1)
        pairs = [i for i in whole if i + 1 in whole]
        if case.op.kind == "gap":  # bins may overlap unevenly; the step is rounded down
            assert all(first[i + 1] - first[i] >= reach.stride[axis] for i in pairs)
        else:
            assert all(first[i + 1] - first[i] == reach.stride[axis] for i in pairs)
            assert pairs or reach.stride[axis] * 2 + reach.span[axis] > size or len(seen) == 1


@every_case
def test_taps_and_weights_of_the_reach(case: Case) -> None:
    reach = case.op.facts(case.inputs).reach
    assert reach.weighted == (case.op.kind in ("conv", "sliding", "linear", "unembedding"))
    dilation = getattr(case.op, "dilation", (1, 1))
    kernel = [span // d + 1 for span, d in zip(reach.span, dilation, strict=True)]
    assert reach.taps == kernel[0] * kernel[1]


@pytest.mark.parametrize("case", SEEN)
def test_attention_and_linear_on_tokens_compose_in_dependency_matrices(case: Case) -> None:
    """A matrix of a node has a row per channel of its output; else networks of tokens fail."""
    for shape, mask in zip(case.inputs, case.op.masks(case.inputs), strict=True):
        assert mask.shape == (case.op.facts(case.inputs).shape[0], shape[0])


# (e) export.


def _without_project(name: str, *args: Any, **kwargs: Any) -> Any:
    if name.split(".")[0] in ("kernels", "search_spaces", "evaluators", "nas", "tests"):
        raise ImportError(f"{name} is not there where the export runs")
    return builtins.__import__(name, *args, **kwargs)


def _exported(architecture: Architecture) -> nn.Module:
    source = generate(architecture, form="plain")
    space = {
        "__name__": "export",
        "__builtins__": {**vars(builtins), "__import__": _without_project},
    }
    exec(compile(source, "<export>", "exec"), space)
    module: nn.Module = space["Network"]()  # type: ignore[operator]
    return module


@every_case
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_plain_export_equals_the_built_module(case: Case, training: bool) -> None:
    architecture = _architecture(case)
    ours, plain = build(architecture).double(), _exported(architecture).double()
    generator = torch.Generator().manual_seed(2)
    for name, tensor in ours.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1.0, generator=generator)
        assert name
    assert list(plain.state_dict()) == list(ours.state_dict())
    plain.load_state_dict(ours.state_dict())
    results = []
    for module in (ours, plain):
        torch.manual_seed(3)
        results.append(module.train(training)(*_arguments(architecture, dtype=torch.float64)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)
    for key, tensor in ours.state_dict().items():
        torch.testing.assert_close(plain.state_dict()[key], tensor)


# Written forms.


@every_case
def test_text_and_json_round_trip(case: Case) -> None:
    op = case.op
    assert parse_op(op.text) == op
    assert parse_op(op.text).text == op.text
    read = make_op(type(op), json.loads(json.dumps(op.to_json())))
    assert read == op
    assert read.text == op.text
    assert set(op.to_json()) == {field.name for field in dataclasses.fields(op)}


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("conv relu k3 16", "conv 16 k3 relu"),
        ("conv 16 k3 s1 p1 g1", "conv 16 k3"),
        ("conv 16 k3x3", "conv 16 k3"),
        ("conv 16 k5 d2 p4", "conv 16 k5 d2"),
        ("conv 016 k3", "conv 16 k3"),
        ("sliding 8 co1/2", "sliding 8"),
        ("sliding 8 co.25", "sliding 8 co0.25"),
        ("sliding 8 co2/6", "sliding 8 co1/3"),
        ("dropout p0.50", "dropout"),
        ("norm bn eps1e-5", "norm bn"),
        ("gap 1x1", "gap"),
    ],
)
def test_one_canonical_text(written: str, canonical: str) -> None:
    assert parse_op(written).text == canonical
    assert parse_op(written) == parse_op(canonical)


BAD_TEXTS = [
    *(
        "conv",
        "conv 0",
        "conv -4",
        "conv 1.5",
        "conv 8 8",
        "conv 8 k0",
        "conv 8 k3x3x3",
        "conv 8 k",
    ),
    *(
        "conv 8 k3 k5",
        "conv 8 relu tanh",
        "conv 8 q3",
        "conv 8 p-1",
        "conv 8 epsnan",
        "conv 8 epsinf",
    ),
    *("conv 8 mom1.0", "conv 8 mom-0.1", "conv 8 ln", "conv 8 bn bn", "conv " + "9" * 5000),
    *("sliding 8 co1", "sliding 8 co-0.1", "sliding 8 coabc", "sliding 8 co1/0", "sliding 8 cg0"),
    *(
        "linear",
        "linear 8 bias",
        "norm",
        "norm gn",
        "act",
        "act softmax",
        "dropout p1",
        "dropout p2",
    ),
    *("maxpool", "maxpool k3 p-1", "gap 0", "input", "input 0x3", "input 3x", "zero x"),
    *(
        "attention",
        "attention h0",
        "attention h4 kv3",
        "attention h4 w-1",
        "embedding 9",
        "embedding 0 d4",
        "unembedding",
        "rotary",
        "rotary h2 theta0.5",
        "tokenpool",
        "tokenpool max",
        "positions 4",
        "input 4 ids-1",
        "shuffle",
        "shuffle g0",
        "add 3",
        "flatten x",
    ),
]


@pytest.mark.parametrize("text", BAD_TEXTS, ids=lambda text: text[:30])
def test_invalid_text_is_one_operator_error(text: str) -> None:
    with pytest.raises(OpError) as caught:
        parse_op(text)
    assert "\n" not in str(caught.value)


BAD_ATTRIBUTES: list[tuple[str, dict[str, object]]] = [
    ("conv", {}),
    ("conv", {"out_channels": "8"}),
    ("conv", {"out_channels": True}),
    ("conv", {"out_channels": 8.0}),
    ("conv", {"out_channels": None}),
    ("conv", {"out_channels": 8, "colour": 1}),
    ("conv", {"out_channels": 8, "kernel": [3]}),
    ("conv", {"out_channels": 8, "kernel": [3, 3, 3]}),
    ("conv", {"out_channels": 8, "kernel": [3, True]}),
    ("conv", {"out_channels": 8, "kernel": 3.0}),
    ("conv", {"out_channels": 8, "kernel": "33"}),
    ("conv", {"out_channels": 8, "bias": 1}),
    ("conv", {"out_channels": 8, "bias": "yes"}),
    ("conv", {"out_channels": 8, "norm": ""}),
    ("conv", {"out_channels": 8, "eps": True}),
    ("conv", {"out_channels": 8, "eps": float("nan")}),
    ("sliding", {"out_channels": 8, "co": True}),
    ("sliding", {"out_channels": 8, "co": "1/0"}),
    ("sliding", {"out_channels": 8, "co": float("nan")}),
    ("sliding", {"out_channels": 8, "rule": "round"}),
    ("input", {"shape": []}),
    ("input", {"shape": 3}),
    ("dropout", {"p": "0.5"}),
]


@pytest.mark.parametrize(("kind", "attrs"), BAD_ATTRIBUTES, ids=lambda item: str(item)[:40])
def test_invalid_attributes_are_one_operator_error(kind: str, attrs: dict[str, object]) -> None:
    with pytest.raises(OpError) as caught:
        make_op(OPS.get(kind), attrs)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_what_is_refused_does_not_depend_on_what_was_made_before() -> None:
    """``1 == 1.0 == True`` must not let one call find the operator of another."""
    conv = OPS.get("conv")
    assert conv.of(out_channels=1, bias=True).text == "conv 1 bias"
    for attrs in ({"out_channels": True, "bias": True}, {"out_channels": 1.0, "bias": True}):
        with pytest.raises(OpError):
            conv.of(**attrs)
    with pytest.raises(OpError):
        conv.of(out_channels=1, bias=1)


def _shapes_refused() -> Iterator[tuple[str, tuple[Shape, ...], str]]:
    yield "conv 8 g3", ((6, 8, 8),), "groups 3 does not divide 8 output"
    yield "conv 9 g3", ((4, 8, 8),), "groups 3 does not divide 4 input"
    yield "conv 8 k7 p0", ((4, 5, 9),), "window of 7 does not fit 5"
    yield "conv 8", ((4, 8),), "feature map"
    yield "conv 8", (), "takes 1 inputs, got 0"
    yield "conv 8", ((4, 8, 8), (4, 8, 8)), "takes 1 inputs, got 2"
    yield "sliding 8 cg3", ((8, 4, 4),), "cg 3 does not divide 8"
    yield "sliding 6 block", ((8, 4, 4),), "multiple of 4"
    yield "linear 4", ((4, 8, 8),), "(features,)"
    yield "norm ln", ((4, 8, 8),), "(features,)"
    yield "norm bn", ((8,),), "feature map"
    yield "add", ((4, 8, 8), (4, 8, 9)), "cannot add"
    yield "add", (), "1 or more"
    yield "mul", ((4, 8, 8), (4, 8, 1)), "cannot multiply"
    yield "mul", ((4, 8, 8), (8, 1, 1)), "cannot multiply"
    yield "concat", ((4, 8, 8), (4, 4, 8)), "cannot concatenate"
    yield "concat", ((4, 8), (4, 8)), "cannot concatenate"
    yield "maxpool k3 p2", ((4, 8, 8),), "half the window"
    yield "avgpool k9", ((4, 8, 8),), "does not fit"
    yield "gap", ((4, 8),), "feature map"
    yield "shuffle g3", ((4, 8, 8),), "does not divide"
    yield "attention h3", ((5, 8),) * 3, "heads 3"
    yield "attention h2", ((5, 8), (5, 6), (5, 6)), "keys and values"
    yield "attention h2", ((5, 8), (5, 8), (4, 8)), "keys and values"
    yield "attention h2 causal", ((5, 8), (4, 8), (4, 8)), "as many keys as queries"
    yield "attention h2 w2", ((5, 8), (4, 8), (4, 8)), "as many keys as queries"
    yield "norm rms", ((4, 8, 8),), "(features,)"
    yield "embedding 9 d4", ((5, 8),), "token ids (tokens,)"
    yield "unembedding 9", ((8,),), "(tokens, features)"
    yield "positions", ((8, 4, 4),), "(tokens, features)"
    yield "rotary h3", ((5, 8),), "3 heads"
    yield "rotary h4", ((5, 12),), "even number"
    yield "tokens", ((5, 8),), "feature map"
    yield "classtoken", ((5,),), "(tokens, features)"
    yield "tokenpool mean", ((5,),), "(tokens, features)"
    yield "input 3x8x8", ((3, 8, 8),), "takes 0 inputs"


@pytest.mark.parametrize(("text", "inputs", "message"), list(_shapes_refused()))
def test_shapes_that_do_not_fit_are_refused_with_the_place(
    text: str, inputs: tuple[Shape, ...], message: str
) -> None:
    op = parse_op(text)
    with pytest.raises(OpError) as caught:
        op.facts(inputs)
    assert message in str(caught.value)
    sources = tuple(Value(Input.of(shape=shape), (), "in") for shape in inputs)
    with pytest.raises(ArchitectureError) as placed:
        Value(op, sources, "stage2/block0")
    assert str(placed.value).startswith("stage2/block0: ")
    assert "\n" not in str(placed.value)
