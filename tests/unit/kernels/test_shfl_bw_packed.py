"""Packed weights: the form, its files, and products with it against float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional as F

from kernels.device import detect
from kernels.errors import NasError, UnknownNameError
from kernels.select import Implementation, explain, implementations, load, select
from kernels.shfl_bw import op, packed
from kernels.shfl_bw.activation import ACTIVATIONS, FUNCTIONS
from kernels.shfl_bw.dump import read_dump
from kernels.shfl_bw.implementations import CONV_OP, OP, shfl_bw_workload
from kernels.shfl_bw.module import ShflBWConv2d, ShflBWLinear, synthetic
from kernels.shfl_bw.packed import Packed, check, fold, pack
from kernels.shfl_bw.pattern import Pattern, like_weight, pattern_of
from kernels.shfl_bw.prune import prune
from kernels.shfl_bw.window import Window

CPU = detect("cpu")
WAYS = ("grouped", "dense", "reference")


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def of_a_cpu() -> list[Implementation]:
    found = [entry for entry in implementations(OP) if entry.name in WAYS]
    assert len(found) == len(WAYS)
    return found


def uneven(rows: int, columns: int, v: int, seed: int = 0) -> Pattern:
    """A shuffled pattern with groups of very different lengths: the first is empty, one is full."""
    generator = torch.Generator().manual_seed(seed)
    groups = -(-rows // v)
    share = torch.linspace(0, 1, groups)[:, None] if groups > 1 else torch.tensor([[0.5]])
    kept = torch.rand(groups, columns, generator=generator) < share
    order = torch.randperm(groups * v, generator=generator)
    mask = torch.zeros(groups * v, columns, dtype=torch.bool)
    mask[order] = kept.repeat_interleave(v, 0)
    return Pattern(mask[:rows], order, v)


# The form


def test_the_authors_text_form_decodes() -> None:
    dump = "4 4 2 2 2 1\n0 1 2\n0 1\n1 2 1 2 3 1 1 2\n0 3 1 2"
    rows = [[1, 1, 0, 0], [0, 0, 3, 1], [0, 0, 1, 2], [2, 2, 0, 0]]
    assert read_dump(dump).dense().tolist() == rows
    plain = read_dump(dump.replace("2 1\n0 1 2", "2 0\n0 1 2", 1).rsplit("\n", 1)[0])
    assert plain.dense().tolist() == [rows[0], rows[3], rows[1], rows[2]]
    for bad in ("", "4 4 2 2 2 1", dump.replace("0 3 1 2", "0 3 1 1"), "4 4 2 0 2 1 0 1"):
        with pytest.raises(NasError, match=r"no text dump|no packed"):
            read_dump(bad)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 24),
    v=st.integers(1, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_packing_keeps_just_the_pattern(rows: int, columns: int, v: int, seed: int) -> None:
    weight, pattern = normal(rows, columns, seed=seed), uneven(rows, columns, v, seed)
    found = pack(weight, pattern)
    check(found)
    assert torch.equal(found.dense(), weight * pattern.mask)
    again = pack(weight, pattern_of(pattern.mask, v)) if rows % v == 0 else found
    assert torch.equal(again.dense(), found.dense())


def test_a_kept_weight_may_be_zero() -> None:
    """The stored mask counts, not what differs from 0."""
    weight, pattern = torch.zeros(4, 4), uneven(4, 4, 2)
    assert len(pack(weight, pattern).columns) == int(pattern.kept().sum()) > 0


def test_files_come_back_whole_and_strangers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weight.safetensors"
    first = pack(normal(40, 24, dtype=torch.float16), uneven(40, 24, 16))
    packed.save(first, path)
    again = packed.load(path)
    assert again.shape == first.shape
    for one, other in zip(first.tensors(), again.tensors(), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    with pytest.raises(NasError, match="cannot be read as a packed matrix"):
        packed.load(tmp_path / "none")
    (tmp_path / "text").write_text("no such thing")
    with pytest.raises(NasError, match="cannot be read as a packed matrix"):
        packed.load(tmp_path / "text")
    with pytest.raises(NasError, match="Cannot write"):
        packed.save(first, tmp_path / "no" / "folder")
    tensors = {"values": first.values, "columns": first.columns, "offsets": first.offsets}
    header = {"format": packed.FORMAT, "version": "1", "rows": "40", "columns": "24"}
    for change, words in (
        ({"format": "other"}, "its format is 'other'"),
        ({"version": "2"}, "packed in version 2; this release reads 1"),
        ({}, "damaged"),
    ):
        save_file(tensors, path, metadata=header | change)
        with pytest.raises(NasError, match=words):
            packed.load(path)
    save_file(tensors | {"rows": first.rows}, path, metadata=header | {"columns": "7"})
    with pytest.raises(NasError, match=r"columns must lie in 0..6"):
        packed.load(path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("columns", lambda t: t.flip(0), "rise within each group"),
        ("columns", lambda t: t - 1, "columns must lie"),
        ("columns", lambda t: t.long(), "columns must be int32"),
        ("offsets", lambda t: t + 1, "offsets must rise from 0"),
        ("offsets", lambda t: t[:-1], "offsets must be int32"),
        ("rows", lambda t: t.clamp(min=1), "name each of"),
        ("rows", lambda t: t - 2, "name each of"),
        ("values", lambda t: t[0], "values must be"),
    ],
)
def test_damage_is_refused_by_its_rule(name: str, change: object, words: str) -> None:
    found = pack(normal(30, 12), uneven(30, 12, 8))
    with pytest.raises(NasError, match=words):
        check(replace(found, **{name: change(getattr(found, name))}))  # type: ignore[operator]


# Products


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("feature_major", [False, True])
@pytest.mark.parametrize(
    ("rows", "columns", "v"), [(64, 48, 16), (60, 50, 16), (24, 9, 32), (600, 20, 16)]
)
@pytest.mark.parametrize("tokens", [1, 7, 65, 600])
def test_products_equal_float64(
    way: str, feature_major: bool, rows: int, columns: int, v: int, tokens: int
) -> None:
    pattern = uneven(rows, columns, v)
    weight, bias = normal(rows, columns), normal(rows, seed=1)
    x = normal(tokens, columns, seed=2)
    expected = F.gelu(x @ (weight * pattern.mask).T + bias)
    function = load(next(entry for entry in implementations(OP) if entry.name == way))
    found = pack(weight, pattern)
    y = function(
        x.T.contiguous() if feature_major else x,
        *found.tensors(),
        bias,
        out_features=rows,
        activation="gelu",
        feature_major=feature_major,
    )
    torch.testing.assert_close(y, expected.T if feature_major else expected)
    assert y.is_contiguous()  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("feature_major", [False, True])
@pytest.mark.parametrize(
    "window",
    [
        Window((1, 1)),
        Window((1, 1), (2, 2)),
        Window((3, 3), (1, 1), (1, 1)),
        Window((3, 3), (2, 2), (1, 1)),
        Window((3, 5), (2, 1), (2, 4), (2, 3)),
    ],
    ids=str,
)
def test_convolutions_equal_float64(way: str, feature_major: bool, window: Window) -> None:
    filters, bias = normal(40, 6, *window.kernel), normal(40, seed=1)
    pattern = uneven(40, 6 * window.taps, 16)
    x = normal(5, 6, 11, 13, seed=2)
    masked = filters * like_weight(pattern.mask, filters.shape)
    expected = F.conv2d(x, masked, bias, window.stride, window.padding, window.dilation).relu()
    function = load(next(entry for entry in implementations(CONV_OP) if entry.name == way))
    y = function(
        x.permute(1, 2, 3, 0).contiguous() if feature_major else x,
        *pack(filters, pattern).tensors(),
        bias,
        out_features=40,
        window=window,
        activation="relu",
        feature_major=feature_major,
    )
    assert isinstance(y, torch.Tensor)
    torch.testing.assert_close(y.permute(3, 0, 1, 2) if feature_major else y, expected)
    assert tuple(expected.shape[2:]) == window.output(11, 13)


@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 40),
    v=st.sampled_from((1, 4, 16, 32)),
    density=st.floats(0, 1),
    tokens=st.integers(0, 90),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_layers_equal_the_masked_dense_layer(
    rows: int, columns: int, v: int, density: float, tokens: int, seed: int
) -> None:
    weight, x = normal(rows, columns, seed=seed), normal(tokens, columns, seed=seed + 1)
    pattern = prune(weight, v, density, grouping="none")
    layer = ShflBWLinear.from_dense(weight, pattern, normal(rows, seed=2))
    expected = F.linear(x, weight * pattern.mask, normal(rows, seed=2))
    torch.testing.assert_close(layer(x), expected)


def test_small_integers_are_exact_in_half_types() -> None:
    """-4..4 in half: every product and sum is exact in float32, and so must the result be."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-4, 5, (64, 96), generator=generator)
    x = torch.randint(-4, 5, (33, 96), generator=generator)
    pattern = uneven(64, 96, 16)
    expected = x.double() @ (weight * pattern.mask).T.double()
    for dtype in (torch.float16, torch.bfloat16):
        found = pack(weight.to(dtype), pattern)
        for entry in of_a_cpu():
            y = load(entry)(x.to(dtype), *found.tensors(), None, out_features=64)
            assert torch.equal(y, expected.to(dtype)), entry.name


def test_empty_groups_are_written() -> None:
    """Outputs of rows that keep nothing are the bias, whatever memory held before."""
    weight, bias = normal(32, 16, dtype=torch.float32), normal(32, dtype=torch.float32)
    nothing = prune(weight, 8, 0.0)
    x = normal(100, 16, dtype=torch.float32)
    for entry in of_a_cpu():
        poison = [torch.full((100, 32), float("nan")) for _ in range(4)]
        del poison
        y = load(entry)(x, *pack(weight, nothing).tensors(), bias, out_features=32)
        assert torch.equal(y, bias.expand(100, 32)), entry.name


@pytest.mark.parametrize("tokens", [5, 100])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_goes_where_its_column_is_kept(tokens: int, bad: float) -> None:
    weight, pattern = normal(32, 16).abs() + 1, uneven(32, 16, 8)
    x = normal(tokens, 16, seed=1)
    x[3, 7] = bad
    expected = torch.where(pattern.mask[:, 7], bad, x[3] @ (weight * pattern.mask).T)
    for name in ("grouped", "reference"):
        function = load(select(shfl_bw_workload((1, 16), 32, v=8, density=0.5), CPU, force=name))
        y = function(x, *pack(weight, pattern).tensors(), out_features=32)
        assert isinstance(y, torch.Tensor)
        hit = pattern.mask[:, 7]
        torch.testing.assert_close(y[3, hit], expected[hit], equal_nan=True)
        assert bool(y[3, ~hit].isfinite().all())
        rest = torch.arange(tokens) != 3
        torch.testing.assert_close(y[rest], x[rest] @ (weight * pattern.mask).T)


def test_orders_within_and_of_groups_change_nothing() -> None:
    weight, pattern = normal(32, 20), uneven(32, 20, 8)
    x = normal(9, 20, seed=1)
    expected = ShflBWLinear.from_dense(weight, pattern)(x)
    generator = torch.Generator().manual_seed(0)
    groups = pattern.order.view(4, 8)[torch.randperm(4, generator=generator)]
    shuffled = torch.stack([group[torch.randperm(8, generator=generator)] for group in groups])
    other = Pattern(pattern.mask, shuffled.flatten(), 8)
    torch.testing.assert_close(ShflBWLinear.from_dense(weight, other)(x), expected)


def test_folding_moves_the_order_of_rows_into_the_next_layer() -> None:
    first = pack(normal(48, 20), uneven(48, 20, 16))
    second = pack(normal(24, 48, seed=1), uneven(24, 48, 8, seed=1))
    x = normal(11, 20, seed=2)

    def both(one: Packed, other: Packed) -> torch.Tensor:
        hidden = F.gelu(ShflBWLinear.from_packed(one)(x))
        return ShflBWLinear.from_packed(other)(hidden)

    ordered, moved = fold(first, second)
    check(moved)
    assert torch.equal(ordered.rows, torch.arange(48, dtype=torch.int32))
    torch.testing.assert_close(both(ordered, moved), both(first, second))
    with pytest.raises(NasError, match="20 inputs does not follow one of 24 rows"):
        fold(second, first)
    padded = pack(normal(47, 20), uneven(47, 20, 16))
    with pytest.raises(NasError, match="rows of padding"):
        fold(padded, pack(normal(24, 47), uneven(24, 47, 8)))


# Operators and layers


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("feature_major", [False, True])
def test_gradients_are_those_of_the_masked_layer(activation: str, feature_major: bool) -> None:
    weight, pattern = normal(24, 18), uneven(24, 18, 8)
    bias = normal(24, seed=3).requires_grad_()
    layer = ShflBWLinear.from_dense(
        weight, pattern, bias, activation=activation, feature_major=feature_major
    )
    x = normal(7, 18, seed=1).requires_grad_()
    masked = (weight * pattern.mask).requires_grad_()
    expected = FUNCTIONS[activation](F.linear(x, masked, bias))
    dy = normal(7, 24, seed=2)
    y = layer(x.T).T if feature_major else layer(x)
    assert layer.bias is not None
    ours = torch.autograd.grad(y, (x, layer.values, layer.bias), dy)
    theirs = torch.autograd.grad(expected, (x, masked, bias), dy)
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], pack(theirs[1], pattern).values)
    torch.testing.assert_close(ours[2], theirs[2])


@pytest.mark.parametrize("feature_major", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_gradients_of_convolutions(feature_major: bool, last: bool) -> None:
    filters, pattern = normal(16, 6, 3, 3), uneven(16, 54, 8)
    bias = normal(16, seed=3).requires_grad_()
    layer = ShflBWConv2d.from_dense(
        filters,
        pattern,
        bias,
        stride=2,
        padding=1,
        activation="silu",
        feature_major=feature_major,
    )
    x = normal(3, 6, 9, 9, seed=1)
    x = (x.contiguous(memory_format=torch.channels_last) if last else x).requires_grad_()
    masked = (filters * like_weight(pattern.mask, filters.shape)).requires_grad_()
    expected = F.silu(F.conv2d(x, masked, bias, 2, 1))
    dy = normal(*expected.shape, seed=2)
    y = layer(x.permute(1, 2, 3, 0)).permute(3, 0, 1, 2) if feature_major else layer(x)
    assert layer.bias is not None
    ours = torch.autograd.grad(y, (x, layer.values, layer.bias), dy)
    theirs = torch.autograd.grad(expected, (x, masked, bias), dy)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], pack(theirs[1], pattern).values)
    torch.testing.assert_close(ours[2], theirs[2])


def test_operators_hold_torchs_checks() -> None:
    linear = ShflBWLinear(24, 32, v=8, density=0.25, bias=False)
    x = torch.randn(5, 24, requires_grad=True)
    torch.library.opcheck(op.shfl_bw, (x, *linear._tensors(), None, 32, "gelu", False))
    conv = ShflBWConv2d(4, 16, 3, v=8, density=0.25)
    images = torch.randn(2, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    sizes = ([3, 3], [2, 2], [1, 1], [1, 1])
    arguments = (images, *conv._tensors(), conv.bias, 16, *sizes, "none", False)
    torch.library.opcheck(op.shfl_bw_conv, arguments)


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = ShflBWConv2d(3, 16, 3, padding=1, v=8, density=0.25, activation="relu")
        self.head = ShflBWLinear(16, 10, v=4, density=0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.conv(x).mean((2, 3)))
        return y


def test_tracing_keeps_the_operators_and_any_batch() -> None:
    model = Tiny().eval()
    batch = {"x": {0: torch.export.Dim("batch", min=2)}}
    program = torch.export.export(model, (torch.randn(4, 3, 8, 8),), dynamic_shapes=batch)
    names = {str(node.target) for node in program.graph.nodes}
    assert {"paretonas.shfl_bw.default", "paretonas.shfl_bw_conv.default"} <= names
    x = torch.randn(70, 3, 8, 8)
    torch.testing.assert_close(program.module()(x), model(x))


def test_state_dicts_fit_layers_of_the_same_arguments_and_carry_a_version() -> None:
    torch.manual_seed(0)
    first, second = (ShflBWLinear(40, 48, v=16, density=0.3) for _ in range(2))
    x = torch.randn(3, 40)
    assert not torch.allclose(first(x), second(x))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(x), second(x))
    state = first.state_dict()
    assert {"values", "columns", "offsets", "rows", "bias", "format_version"} == set(state)
    with pytest.raises(NasError, match="packed in version 2"):
        second.load_state_dict(state | {"format_version": torch.tensor(2)})
    with pytest.raises(NasError, match="rise within each group"):
        second.load_state_dict(state | {"columns": state["columns"].flip(0)})


def test_values_that_change_are_seen_by_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense matrices and padded panels are kept between calls, and made anew."""
    layer, x = ShflBWLinear(20, 16, v=8, density=0.5, bias=False), torch.randn(3, 20)
    for way in WAYS:
        monkeypatch.setenv("NAS_KERNEL_SHFL_BW", way)
        before = layer(x)
        with torch.no_grad():
            layer.values *= 2
        torch.testing.assert_close(layer(x), 2 * before)
    with torch.inference_mode():
        assert layer.half()(x.half()).dtype == torch.float16


def test_autocast_computes_in_its_type() -> None:
    layer = ShflBWLinear(20, 16, v=8, density=0.5)
    conv = ShflBWConv2d(4, 16, 1, v=8, density=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 20)).dtype == torch.bfloat16
        assert conv(torch.randn(3, 4, 2, 2)).dtype == torch.bfloat16


def test_leading_axes_are_tokens() -> None:
    layer = ShflBWLinear(20, 16, v=8, density=0.5)
    x = torch.randn(2, 3, 20)
    torch.testing.assert_close(layer(x)[1, 2], layer(x[1, 2]))
    assert layer(torch.randn(2, 0, 20)).shape == (2, 0, 16)


def test_bad_requests_name_the_rule() -> None:
    layer = ShflBWLinear(20, 16, v=8, density=0.5)
    conv = ShflBWConv2d(4, 16, 3, v=8, density=0.5)
    rows = ShflBWLinear(20, 16, v=8, density=0.5, feature_major=True)
    for module, shape, words in (
        (layer, (3, 16), r"shape \(..., 20\), got \(3, 16\)"),
        (rows, (3, 20), r"shape \(20, tokens\), got \(3, 20\)"),
        (conv, (4, 8, 8), r"shape \(b, 4, h, w\), got \(4, 8, 8\)"),
    ):
        with pytest.raises(NasError, match=words):
            module(torch.randn(*shape))
    with pytest.raises(NasError, match="density of 0 to 1"):
        ShflBWLinear(20, 16, v=8, density=2.0)
    with pytest.raises(NasError, match="V=0"):
        synthetic(16, 16, 0, 0.5)
    with pytest.raises(UnknownNameError, match="Unknown activation 'rely'"):
        ShflBWLinear(20, 16, v=8, density=0.5, activation="rely")
    with pytest.raises(NasError, match="does not fit weights"):
        pack(torch.randn(8, 8), uneven(8, 9, 2))


def test_synthetic_weights_have_the_density_and_balance_asked_for() -> None:
    found = synthetic(100, 64, 16, 0.3)
    check(found)
    assert found.density == pytest.approx(0.3, abs=0.5 / (7 * 64))
    assert int(found.offsets.diff().max() - found.offsets.diff().min()) <= 1


def test_the_choice_explains_itself() -> None:
    def reasons(**changes: float) -> dict[str, str]:
        given: dict[str, Any] = {"v": 16, "density": 0.25, **changes}
        found = explain(shfl_bw_workload((4, 64), 64, **given), CPU)
        return {
            choice.implementation.name: choice.status + choice.reason for choice in found.choices
        }

    assert reasons()["grouped"].startswith("chosen")
    assert reasons()["dense"].startswith("available")
    assert "needs a Hopper GPU" in reasons()["hopper"]
    assert "compute capability 8.0" in reasons()["portable"]
    assert "no faster than dense at density 0.8; up to 0.5" in reasons(density=0.8)["grouped"]
    assert "from 8 on" in reasons(v=4, density=0.2)["grouped"]


HOPPER = replace(CPU, kind="cuda", name="H100", capability=(9, 0))


@pytest.mark.parametrize(
    ("shape", "out", "how", "chosen"),
    [
        ((4096, 4096), 4096, {"v": 64, "density": 0.25, "feature_major": True}, "hopper"),
        ((4096, 4096), 4096, {"v": 128, "density": 0.25}, "hopper"),
        ((960, 4096), 1024, {"v": 64, "density": 0.25, "feature_major": True}, "hopper"),
        ((4096, 4096), 4096, {"v": 32, "density": 0.25, "feature_major": True}, "hopper"),
        ((4096, 4096), 4096, {"v": 16, "density": 0.25, "feature_major": True}, "dense"),
        ((4096, 4096), 4096, {"v": 64, "density": 0.9, "feature_major": True}, "dense"),
        ((512, 256), 256, {"v": 64, "density": 0.25}, "dense"),  # turning costs more than it saves
        ((4096, 4096), 4096, {"v": 48, "density": 0.25}, "dense"),
    ],
)
def test_on_hopper_the_gather_kernel_runs_where_it_is_expected_to_win(
    shape: tuple[int, int], out: int, how: dict[str, Any], chosen: str
) -> None:
    workload = shfl_bw_workload(shape, out, dtype="float16", **how)
    found = explain(workload, HOPPER)
    assert [c.implementation.name for c in found.choices if c.status == "chosen"] == [chosen]
    single = explain(shfl_bw_workload(shape, out, **how), HOPPER)
    assert "dense" in [c.implementation.name for c in single.choices if c.status == "chosen"]
