"""Generated source: safe names whatever the scopes, and text that a linter cannot fault."""

from __future__ import annotations

import ast
import inspect
import keyword
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.build import build, load_weights, weights_by_node
from search_spaces.errors import ArchitectureError
from search_spaces.ops import Conv, Input
from search_spaces.source import generate, module_names
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space
from tests.networks import chain, mobilenet, raw_graphs, resnet18, resnet50

CIFAR = DataSpec((3, 32, 32), 10)

HOSTILE = [
    *("../../etc/passwd", "a'b\"c", "line\nbreak", "class", "None", "123", "0/1/2", "", "/", "___"),
    *("train", "eval", "forward", "training", "parameters", "_modules", "__init__", "__class__"),
    *(
        "T_destination",
        "call_super_init",
        "dump_patches",
        "x",
        "self",
        "nn",
        "torch",
        "super",
        "like",
    ),
    *("é", "变量", "a b", "a.b", "a-b", "a_b", "a/b", "; import os", "\0", "\ud800", "n123", "123"),
    *("x" * 10_000, "x" * 10_000 + "y", "weight", "add_module", "print", "lambda", "match", "type"),
    *("a_b_2", "a_b", "a_b", "to", "half", "_", "__", "len", "Network", "stem.", "stem"),
]


def _chain(scopes: list[str]) -> Architecture:
    x = Value(Input.of(shape=(4, 5, 5)), (), "in")
    for scope in scopes:
        x = Value(Conv.of(4, 3, norm="bn", act="relu"), (x,), scope)
    return Architecture.freeze(x)


def _runs(architecture: Architecture) -> nn.Module:
    module = build(architecture)
    for training in (True, False):  # sets the attribute 'training'
        assert module.train(training)(torch.randn(2, 4, 5, 5)).shape == (2, 4, 5, 5)
        assert module.training is training
    assert len(list(module.parameters())) == 3 * (len(architecture.nodes) - 1)
    module.load_state_dict(module.state_dict())
    return module


@pytest.mark.parametrize("scope", HOSTILE, ids=lambda scope: repr(scope)[:24])
def test_one_hostile_scope(scope: str) -> None:
    architecture = _chain([scope, "other"])
    names = module_names(architecture)[1:]
    for name in names:
        assert name.isidentifier()
        assert name.isascii()
        assert not keyword.iskeyword(name)
        assert len(name) <= 64
        assert not hasattr(nn.Module(), name)
    _runs(architecture)


def test_all_hostile_scopes_at_once() -> None:
    architecture = _chain(HOSTILE)
    names = module_names(architecture)[1:]
    assert len(set(names)) == len(names)
    module = _runs(architecture)
    again = _runs(_chain(HOSTILE))
    again.load_state_dict(module.state_dict())  # the same scopes give the same names


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=6))
def test_any_scopes(scopes: list[str]) -> None:
    architecture = _chain(scopes)
    names = module_names(architecture)[1:]
    assert len(set(names)) == len(scopes)
    assert all(name.isidentifier() and name.isascii() for name in names)
    ast.parse(generate(architecture))


def test_readable_scopes_stay_as_they_are() -> None:
    names = module_names(_chain(["stem", "stage0/block1/conv", "stage0/block1/conv"]))
    assert names == ["", "stem", "stage0_block1_conv", "stage0_block1_conv_2"]


def test_source_has_nothing_of_the_scopes_but_their_names() -> None:
    tree = ast.parse(generate(_chain(["os.system('x')", '"""', "\\", "{evil}"])))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not any("evil" in str(item) or "system" in str(item) for item in strings)


def test_an_argument_is_not_overwritten_before_it_is_read() -> None:
    """The second input is only read after variables of the first part were used and freed."""
    text = "input 4x5x5; conv 4 k3 bn relu; add @0,1; input 4x5x5; concat @2,3"
    architecture = Architecture.parse(text)
    module = build(architecture).eval()
    a, b = torch.randn(2, 2, 4, 5, 5)
    expected = torch.cat([a + module.get_submodule(module_names(architecture)[1])(a), b], dim=1)
    torch.testing.assert_close(module(a, b), expected)


def test_a_network_with_a_zero_before_its_input() -> None:
    architecture = Architecture.parse("zero 2x5x5; input 4x5x5; concat @0,1")
    x = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(
        build(architecture)(x), torch.cat([torch.zeros(3, 2, 5, 5), x], dim=1)
    )


def test_shapes_and_costs_stand_in_the_source() -> None:
    source = generate(Architecture.parse("input 1x8x8; conv 4 k3 bn relu; gap; flatten; linear 10"))
    for line in (
        "A network for inputs of 1x8x8, in plain PyTorch.",
        "94 parameters; 2,344 multiply-accumulates a sample.",
        "# 4 x 8 x 8",
    ):
        assert line in source
    assert "search_spaces" not in source


def test_tracebacks_and_inspect_find_the_source() -> None:
    module = build(chain((3, 8, 8), "conv 4 k3 bn relu"))
    assert (
        inspect.getsource(type(module).forward).lstrip().startswith("def forward(self, x: torch.T")
    )


# Weights by canonical node number.


@settings(max_examples=40, deadline=None, derandomize=True)
@given(raw_graphs())
def test_weights_move_between_modules_of_equal_architectures(output: Value) -> None:
    first = Architecture.freeze(output)
    second = Architecture.parse(first.text)  # other scopes, so other state-dict keys
    one, two = build(first).double().eval(), build(second).double().eval()
    for tensor in one.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.0)
    load_weights(two, second, weights_by_node(one, first))
    assert len(weights_by_node(one, first)) == len(one.state_dict())
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(two(x), one(x), rtol=1e-9, atol=1e-9)


def test_weights_that_do_not_fit_are_named() -> None:
    architecture = Architecture.parse("input 3x8x8; conv 4 k3 bn relu")
    module = build(architecture)
    weights = weights_by_node(module, architecture)
    assert "1.norm.running_mean" in weights
    with pytest.raises(ArchitectureError, match=r"1\.norm\.bias is missing"):
        load_weights(module, architecture, {k: v for k, v in weights.items() if k != "1.norm.bias"})
    with pytest.raises(ArchitectureError, match=r"7\.conv\.weight is left over"):
        load_weights(module, architecture, weights | {"7.conv.weight": torch.zeros(1)})
    with pytest.raises(ArchitectureError, match=r"1\.conv\.weight is \(4, 3, 1, 1\)"):
        load_weights(module, architecture, weights | {"1.conv.weight": torch.zeros(4, 3, 1, 1)})
    without = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    load_weights(module, architecture, without)


# Lint.


def _ruff(folder: Path, *arguments: str) -> str:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    command = [ruff, *arguments, "--isolated", "--no-cache", "--line-length", "100", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else result.stdout[-3000:] + result.stderr[-500:]


def _write(folder: Path, architectures: list[Architecture], *, form: str) -> None:
    for number, architecture in enumerate(architectures):
        source = generate(architecture, form="plain" if form == "plain" else "native")
        (folder / f"net{number}.py").write_text(source, encoding="utf-8")


@pytest.mark.parametrize("form", ["plain", "native"])
@pytest.mark.parametrize("name", ["mobile-cnn", "mobile-cnn-small", "nas-bench-201"])
def test_source_of_candidates_is_clean(name: str, form: str, tmp_path: Path) -> None:
    found, rng = load_space(name), random.Random(0)
    _write(tmp_path, [found.sample(rng, CIFAR).architecture for _ in range(20)], form=form)
    assert not _ruff(tmp_path, "check", "--select", "E,F,I,W")
    assert not _ruff(tmp_path, "format", "--check", "--diff")


ODD = [
    Architecture.parse("zero 3x8x8"),
    Architecture.parse("input 3x8x8"),
    Architecture.parse("zero 2x5x5; input 4x5x5; concat @0,1"),
    Architecture.parse("input 8x16; linear 8 @0; linear 8 @0; attention h2 kv1 causal @0,1,2"),
    Architecture.parse("input 64x9x9; conv 1024 k3x5 s2x1 p1x2 d2x1 g32 bias bn eps0.001 relu6"),
    Architecture.parse("input 64x9x9; sliding 1024 cg4 co1/3 shift bias bn eps0.001 mom0.01 relu6"),
    Architecture.parse("input 8x9x9; maxpool k3x5 s2x1 p1x2 ceil; avgpool k3x2 s2x3 p1x1 ceil"),
    Architecture.parse(
        "input 4x9x9; dropout p0.2 path; dropout p0.1; flatten; linear 7 nobias gelu"
    ),
    Architecture.parse(
        f"input 4x9x9; {'; '.join(f'conv 4 k{k} @0' for k in range(1, 17, 2))}; "
        "concat @1,2,3,4,5,6,7,8; add @9,9,9,9,9"
    ),
    Architecture.parse(
        f"input 4x9x9; {'; '.join(f'conv 4 k{k} @0' for k in range(1, 17, 2))}; "
        "add @1,2,3,4,5,6,7,8"
    ),
    _chain(["a_very_long_name_of_a_stage/and_a_very_long_name_of_a_block/convolution"] * 3),
    resnet18(),
    resnet50(stride_on=1),
    mobilenet(),
]


def test_source_of_odd_networks_is_clean(tmp_path: Path) -> None:
    _write(tmp_path, ODD, form="plain")
    assert not _ruff(tmp_path, "check", "--select", "E,F,I,W")
    assert not _ruff(tmp_path, "format", "--check", "--diff")
