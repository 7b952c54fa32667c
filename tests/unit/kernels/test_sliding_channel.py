"""Sliding-channel convolution; the numbers are those of the DSXplore notes, section 10."""

import copy
import doctest
import inspect
import pickle
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import kernels.sliding_channel.choice as choice_file
import kernels.sliding_channel.module as module_file
import kernels.sliding_channel.windows as windows_file
from kernels.device import detect
from kernels.errors import NasError
from kernels.select import explain, implementations, load, select
from kernels.sliding_channel import exported, plain
from kernels.sliding_channel.implementations import OP, WHOLE_SHIFT, sliding_channel_workload
from kernels.sliding_channel.module import SlidingChannelConv2d
from kernels.sliding_channel.plan import whole_shift
from kernels.sliding_channel.reference import sliding_channel_conv2d_reference
from kernels.sliding_channel.windows import distinct_windows, period, window_starts

Product = Callable[..., torch.Tensor]
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 5e-3,
    torch.bfloat16: 4e-2,
}
GROUPS = (1, 2, 4, 8)
OVERLAPS = (0, 0.25, 0.33, 0.5, 0.75)
GRID = tuple(product(GROUPS, OVERLAPS))
LAYOUTS = tuple(product(("floor", "shift"), ("cyclic", "block")))


def _normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def _starts(*arguments: Any, **options: Any) -> torch.Tensor:
    return torch.tensor(window_starts(*arguments, **options))


def _matrix(weight: torch.Tensor, starts: torch.Tensor, in_channels: int) -> torch.Tensor:
    """The dense D, entry by entry."""
    matrix = torch.zeros(len(starts), in_channels, dtype=weight.dtype)
    for o, start in enumerate(starts.tolist()):
        for j in range(weight.shape[1]):
            matrix[o, (start + j) % in_channels] += weight[o, j]
    return matrix


def _gradients(
    run: Product, x: torch.Tensor, weight: torch.Tensor, starts: torch.Tensor, dy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = run(x, weight, starts)
    dx, dw = torch.autograd.grad(y, (x, weight), dy)
    return y.detach(), dx, dw


@pytest.fixture(params=[entry.name for entry in implementations(OP)])
def run(request: pytest.FixtureRequest) -> Product:
    """Each implementation that runs on the CPU."""
    work = sliding_channel_workload((2, 16, 3, 5), 24, cg=4, co=0.5, dtype="float64")
    for choice in explain(work, detect("cpu")).choices:
        if choice.implementation.name == request.param:
            if choice.status == "refused":
                pytest.skip(choice.reason)
            return load(choice.implementation)  # type: ignore[return-value]
    raise AssertionError(request.param)


# Windows


def test_window_table() -> None:
    starts = window_starts(4, 7, cg=2, co=0.5)
    assert starts == (0, 1, 2, 3, 0, 1, 2)
    windows = ["".join(str((start + j) % 4) for j in range(2)) for start in starts]
    assert windows == ["01", "12", "23", "30", "01", "12", "23"]


def test_floor_rounds_each_start_and_shift_rounds_once() -> None:
    assert window_starts(64, 6, 2, 0.33) == (0, 21, 42, 0, 21, 43)
    assert window_starts(64, 6, 2, 0.33, "shift") == (0, 21, 42, 63, 20, 41)
    assert window_starts(8, 6, 2, 0.33) == (0, 2, 5, 0, 2, 5)
    assert len(distinct_windows(window_starts(64, 200, 2, 0.33))) == 64


def test_block_step_rounds_the_overlap_down() -> None:
    starts = window_starts(64, 64, 2, 0.33, "floor", "block")
    assert starts[:8] == (0, 0, 22, 22, 44, 44, 2, 2)
    assert starts == window_starts(64, 64, 2, 0.33, "shift", "block")


def test_the_ratio_is_the_decimal_that_is_written() -> None:
    # In binary (1 - 0.9) * 10 is 0.9999999999999998.
    assert window_starts(10, 10, 1, 0.9) == tuple(range(10))
    forms: tuple[float | str | Fraction, ...] = (0.9, "0.9", Fraction(9, 10))
    assert len({window_starts(10, 10, 1, co) for co in forms}) == 1


def test_a_shift_below_one_channel() -> None:
    assert window_starts(4, 8, 4, 0.75) == (0, 0, 0, 0, 1, 1, 1, 1)
    assert window_starts(4, 6, 4, 0.75, "shift") == (0, 1, 2, 3, 0, 1)


@pytest.mark.parametrize(("cg", "count"), [(2, 4), (4, 8), (8, 16)])
def test_block_order_window_counts(cg: int, count: int) -> None:
    starts = window_starts(64, 64, cg, 0.5, order="block")
    assert len(distinct_windows(starts)) == period(64, cg, 0.5, order="block") == count
    assert list(starts) == sorted(starts)
    assert all(starts.count(start) == 64 // count for start in starts)


def test_period_is_independent_of_width_for_the_usual_ratios() -> None:
    for channels, cg in product((32, 64, 1024), (2, 4, 8)):
        assert period(channels, cg, 0.5) == 2 * cg
        assert period(channels, cg, 0.75) == period(channels, cg, 0.25) == 4 * cg
        assert period(channels, cg, 0) == cg


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 6),
    cg=st.integers(1, 4),
    percent=st.integers(0, 99),
    rule=st.sampled_from(("floor", "shift")),
)
def test_starts_repeat_after_the_period_and_not_before(
    width: int, cg: int, percent: int, rule: windows_file.Rule
) -> None:
    co = Fraction(percent, 100)
    length = period(width * cg, cg, co, rule)
    starts = window_starts(width * cg, 2 * length, cg, co, rule)
    assert all(0 <= start < width * cg for start in starts)
    assert starts[:length] == starts[length:]
    for shorter in (d for d in range(1, length) if length % d == 0):
        assert starts[:length] != starts[shorter : shorter + length]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 1, 0.5), "in_channels must be at least 1"),
        ((4, 0, 2, 0.5), "out_channels must be at least 1"),
        ((6, 4, 4, 0.5), "cg must be a divisor of in_channels=6, not 4"),
        ((4, 4, 0, 0.5), "cg must be a divisor"),
        ((4, 4, 2, 1.0), "0 <= co < 1, not 1.0"),
        ((4, 4, 2, -0.1), "0 <= co < 1"),
        ((4, 4, 2, float("nan")), "0 <= co < 1"),
        ((4, 4, 2, "half"), "0 <= co < 1"),
        ((4, 4, 2, "1/0"), "0 <= co < 1"),
        ((4, 4, 2, 0.5, "floors"), "Unknown window rule 'floors'.*'floor'"),
        ((4, 4, 2, 0.5, "floor", "blok"), "Unknown window order 'blok'.*'block'"),
        ((64, 62, 2, 0.5, "floor", "block"), "multiple of 4, not 62"),
        ((64, 2, 2, 0.5, "floor", "block"), "multiple of 4, not 2"),
    ],
)
def test_bad_arguments_are_one_error_each(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(NasError, match=message):
        window_starts(*arguments)
    with pytest.raises(NasError, match=message):
        SlidingChannelConv2d(
            *arguments[:4], **dict(zip(("rule", "order"), arguments[4:], strict=False))
        )


# The product, every implementation


def test_worked_numbers(run: Product) -> None:
    x = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64).view(1, 4, 1, 1)
    weight = torch.tensor([[1.0, 10]] * 7, dtype=torch.float64)
    dy = torch.ones(1, 7, 1, 1, dtype=torch.float64)
    y, dx, dw = _gradients(run, x, weight, _starts(4, 7, 2, 0.5), dy)
    assert y.flatten().tolist() == [21, 32, 43, 14, 21, 32, 43]
    assert dx.flatten().tolist() == [12, 22, 22, 21]
    assert dw.tolist() == [[1, 2], [2, 3], [3, 4], [4, 1], [1, 2], [2, 3], [3, 4]]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 4, 1, 0.75), [4, 4, 4, 4]),  # the authors' backward gives 2, 3, 3, 2
        ((8, 6, 2, 0.33), [4, 2, 4, 4, 2, 4, 2, 2]),  # theirs: 3, 3, 4, 4, 3, 3, 2, 2
    ],
)
def test_input_gradient_where_the_authors_is_wrong(
    run: Product, shape: tuple[int, int, int, float], expected: list[float]
) -> None:
    c_in, c_out, cg, _ = shape
    x, weight = torch.ones(1, c_in, 1, 1).double(), torch.ones(c_out, c_in // cg).double()
    dy = torch.ones(1, c_out, 1, 1).double()
    _, dx, _ = _gradients(run, x, weight, _starts(*shape), dy)
    assert dx.flatten().tolist() == expected


@pytest.mark.parametrize(("cg", "co"), GRID)
def test_equals_the_dense_matrix_forward_and_backward(run: Product, cg: int, co: float) -> None:
    starts = _starts(16, 20, cg, co)
    x, weight, dy = _normal(2, 16, 3, 5), _normal(20, 16 // cg, seed=1), _normal(2, 20, 3, 5)
    y, dx, dw = _gradients(run, x, weight, starts, dy)
    matrix = _matrix(weight, starts, 16)
    full = torch.einsum("bohw,bchw->oc", dy, x)
    channels = (starts[:, None] + torch.arange(16 // cg)) % 16
    torch.testing.assert_close(y, torch.einsum("oc,bchw->bohw", matrix, x))
    torch.testing.assert_close(dx, torch.einsum("oc,bohw->bchw", matrix, dy))
    torch.testing.assert_close(dw, full.gather(1, channels))


def test_equals_stacked_windows_and_a_grouped_convolution(run: Product) -> None:
    c_in, c_out, cg = 16, 24, 4
    starts, gw = _starts(c_in, c_out, cg, 0.5), c_in // cg
    n = period(c_in, cg, 0.5)
    assert (n, n * gw) == (8, 2 * c_in)
    x, weight = _normal(2, c_in, 3, 3), _normal(c_out, gw, seed=1)
    stack = torch.cat([x.roll(-int(start), 1)[:, :gw] for start in starts[:n]], 1)
    of_channel = torch.tensor([(q % n) * (c_out // n) + q // n for q in range(c_out)])
    stacked_weight = torch.empty_like(weight)
    stacked_weight[of_channel] = weight
    stacked = F.conv2d(stack, stacked_weight[:, :, None, None], groups=n)
    torch.testing.assert_close(run(x, weight, starts), stacked[:, of_channel])


@pytest.mark.parametrize(
    ("c_in", "c_out", "cg", "co"),
    [
        (8, 8, 2, 0.5),  # window 2 is 4..7: it ends at channel 0
        (8, 3, 2, 0.5),  # fewer outputs than windows
        (8, 11, 2, 0.5),  # outputs no multiple of the windows
        (4, 9, 4, 0.75),  # windows of one channel
        (1, 3, 1, 0.5),  # one channel
        (6, 5, 1, 0.33),  # the window is everything, rotated
    ],
)
def test_gradcheck_at_the_edges(run: Product, c_in: int, c_out: int, cg: int, co: float) -> None:
    starts = _starts(c_in, c_out, cg, co)
    x = _normal(2, c_in, 1, 2).requires_grad_()
    weight = _normal(c_out, c_in // cg, seed=1).requires_grad_()
    bias = _normal(c_out, seed=2).requires_grad_()

    def run_here(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return run(x, weight, starts, bias)

    assert torch.autograd.gradcheck(run_here, (x, weight, bias))
    expected = F.conv2d(x, _matrix(weight.detach(), starts, c_in)[:, :, None, None], bias)
    torch.testing.assert_close(run(x, weight, starts, bias), expected)


def test_wrap_case_ends_at_channel_zero() -> None:
    starts = window_starts(8, 8, 2, 0.5)
    assert (starts[2] + 4) % 8 == 0


@settings(deadline=None, max_examples=25)
@given(
    width=st.integers(1, 5),
    cg=st.integers(1, 4),
    c_out=st.integers(1, 13),
    percent=st.integers(0, 99),
    seed=st.integers(0, 1000),
)
def test_dense_is_linear_and_equals_the_reference(
    width: int, cg: int, c_out: int, percent: int, seed: int
) -> None:
    c_in = width * cg
    starts = _starts(c_in, c_out, cg, percent / 100)
    x, other = _normal(2, c_in, 2, 1, seed=seed), _normal(2, c_in, 2, 1, seed=seed + 1)
    weight, second = _normal(c_out, width, seed=seed + 2), _normal(c_out, width, seed=seed + 3)
    shift = whole_shift(c_in, cg, percent / 100, "floor", "cyclic")
    for entry in implementations(OP):
        if entry.name in WHOLE_SHIFT and shift is None:
            continue
        run = load(entry)
        y = run(x, weight, starts)
        reference = sliding_channel_conv2d_reference(x, weight, starts)
        torch.testing.assert_close(y, reference)
        torch.testing.assert_close(
            run(2 * x + other, weight, starts),
            2 * reference + run(other, weight, starts),  # type: ignore[operator]
        )
        torch.testing.assert_close(
            run(x, 2 * weight + second, starts),
            2 * reference + run(x, second, starts),  # type: ignore[operator]
        )


@pytest.mark.parametrize(("cg", "co"), GRID)
def test_each_output_depends_on_exactly_its_window(run: Product, cg: int, co: float) -> None:
    c_out = 2 * period(16, cg, co)
    starts, gw = _starts(16, c_out, cg, co), 16 // cg
    x = torch.zeros(16, 16, 1, 1, dtype=torch.float64)
    x[range(16), range(16)] = 1.0  # one sample per input channel
    reads = run(x, torch.ones(c_out, gw, dtype=torch.float64), starts).flatten(1).T
    assert set(reads.flatten().tolist()) <= {0.0, 1.0}
    assert (reads.sum(1) == gw).all()
    assert (reads.sum(0) == c_out / cg).all()


def test_no_overlap_and_one_group_is_a_pointwise_convolution(run: Product) -> None:
    x, weight = _normal(2, 8, 3, 3), _normal(5, 8, seed=1)
    y = run(x, weight, _starts(8, 5, 1, 0))
    torch.testing.assert_close(y, F.conv2d(x, weight[:, :, None, None]))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("last", [False, True])
def test_every_type_and_layout_is_near_the_float64_reference(
    run: Product, dtype: torch.dtype, last: bool
) -> None:
    starts = _starts(32, 48, 2, 0.33)
    x, weight = _normal(3, 32, 5, 7, dtype=dtype), _normal(48, 16, seed=1, dtype=dtype) / 4
    dy = _normal(3, 48, 5, 7, seed=2, dtype=dtype)
    exact = _gradients(
        sliding_channel_conv2d_reference, x.double(), weight.double(), starts, dy.double()
    )
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    for ours, truth in zip(_gradients(run, x, weight, starts, dy), exact, strict=True):
        assert ours.dtype == dtype
        error = (ours.double() - truth).abs().max() / truth.abs().max()
        assert error < TOLERANCE[dtype]


def test_reference_reads_nothing_outside_the_window() -> None:
    x, starts = _normal(1, 8, 2, 2), _starts(8, 8, 4, 0.5)
    clean = sliding_channel_conv2d_reference(x, torch.ones(8, 2).double(), starts)
    x[:, 5] = float("nan")
    y = sliding_channel_conv2d_reference(x, torch.ones(8, 2).double(), starts)
    reads = torch.tensor([5 in (int(s), (int(s) + 1) % 8) for s in starts])
    assert reads.sum() == 2
    assert y[:, reads].isnan().all()
    assert torch.equal(y[:, ~reads], clean[:, ~reads])


def test_reference_multiplies_only_by_its_own_weights() -> None:
    x = torch.tensor([1.0, 10, 100, 1000]).view(1, 4, 1, 1)
    weight = torch.tensor([[1.0, 2], [3, 4]])
    y = sliding_channel_conv2d_reference(x, weight, torch.tensor([3, 1]), torch.tensor([0.0, 5]))
    assert y.flatten().tolist() == [1002, 435]


# Choice


def test_dense_is_preferred_and_what_is_not_supported_is_refused() -> None:
    work = sliding_channel_workload((2, 8, 4, 4), 8, cg=2, co="0.5")
    assert select(work, detect("cpu")).name == "dense"
    assert str(work) == (
        "sliding_channel[2x8x4x4 cg=2 co=0.5 order=cyclic rule=floor] dense float32 contiguous"
    )
    integer = sliding_channel_workload((2, 8, 4, 4), 8, cg=2, co=0.5, dtype="int8")
    with pytest.raises(NasError, match=r"'dense' cannot run .* not int8"):
        select(integer, detect("cpu"), force="dense")


def test_a_forced_implementation_runs_in_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = SlidingChannelConv2d(8, 8, 4, 0.5), torch.randn(1, 8, 2, 2)
    x[:, 5] = float("nan")
    assert layer(x).isnan().all()
    monkeypatch.setenv("NAS_KERNEL_SLIDING_CHANNEL", "reference")
    assert layer(x).isnan().sum() == 2 * 4
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert compiled(x).isnan().sum() == 2 * 4
    monkeypatch.setenv("NAS_KERNEL_SLIDING_CHANNEL", "no_such")
    with pytest.raises(NasError, match="Unknown implementation of sliding_channel 'no_such'"):
        layer(x)


# The module and its plain form


def _exported_class() -> type[plain.SlidingChannelConv2d]:
    """The class as a generated file has it."""
    parts = [*plain.PLAIN_IMPORTS, *(inspect.getsource(item) for item in plain.PLAIN_SOURCE)]
    text = "\n".join(parts)
    assert "kernels" not in text
    scope: dict[str, Any] = {"__name__": "exported"}
    exec(compile(text, "exported.py", "exec"), scope)
    exported: type[plain.SlidingChannelConv2d] = scope["SlidingChannelConv2d"]
    assert exported.__module__ == "exported"
    return exported


@pytest.mark.parametrize(("rule", "order"), LAYOUTS)
@pytest.mark.parametrize(("cg", "co"), [(1, 0), (2, 0.5), (4, 0.33), (8, 0.75)])
@pytest.mark.parametrize("bias", [False, True])
def test_exported_class_equals_the_module(
    rule: Any, order: Any, cg: int, co: float, bias: bool
) -> None:
    pair = []
    for make in (SlidingChannelConv2d, _exported_class()):
        torch.manual_seed(3)
        pair.append(make(16, 96, cg, co, rule=rule, order=order, bias=bias).double())
    ours, theirs = pair
    x = _normal(2, 16, 3, 3)
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert list(ours.state_dict()) == ["weight", "bias"][: 1 + bias]
    assert tuple(ours.starts.tolist()) == window_starts(16, 96, cg, co, rule, order)
    for layer in pair:
        (layer(x) ** 2).sum().backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.grad is not None
        torch.testing.assert_close(one.grad, other.grad)


def test_the_constructors_agree() -> None:
    ours, theirs = (
        inspect.signature(cls).parameters.values()
        for cls in (SlidingChannelConv2d, plain.SlidingChannelConv2d)
    )
    assert [(p.name, p.kind, p.default) for p in ours] == [
        (p.name, p.kind, p.default) for p in theirs
    ]


def test_parameters_are_drawn_within_the_bound_and_the_bias_is_added() -> None:
    layer = SlidingChannelConv2d(64, 256, 4, 0.5, bias=True)
    assert layer.weight.shape == (256, 16)
    assert 0.24 < layer.weight.abs().max() <= 0.25
    assert abs(layer.weight.mean()) < 0.01
    assert layer.bias is not None
    x = torch.randn(2, 64, 2, 2)
    product_only = sliding_channel_conv2d_reference(x, layer.weight, layer.starts)
    torch.testing.assert_close(layer(x), product_only + layer.bias[:, None, None])


@pytest.mark.parametrize("shape", [(2, 7, 3, 3), (2, 16, 3, 3), (8, 3, 3)])
def test_a_wrong_input_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(NasError, match=r"shape \(b, 8, h, w\)"):
        SlidingChannelConv2d(8, 8, 2, 0.5)(torch.zeros(shape))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_module_takes_every_type_layout_and_an_empty_batch(dtype: torch.dtype) -> None:
    layer = SlidingChannelConv2d(16, 24, 4, 0.5, bias=True).to(dtype)
    assert layer.starts.dtype == torch.int64
    x = torch.randn(3, 16, 4, 4).to(dtype)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(last), layer(x))
    empty = layer(x[:0].requires_grad_())
    assert empty.shape == (0, 24, 4, 4)
    empty.sum().backward()
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


def test_the_choice_is_made_once_per_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return select(*arguments, **options)

    monkeypatch.setattr(choice_file, "select", counted)
    choice_file.chosen.cache_clear()
    layer = SlidingChannelConv2d(8, 8, 2, 0.5)
    for batch in (2, 2, 3, 2, 3):
        layer(torch.zeros(batch, 8, 1, 1))
    assert len(calls) == 2


@pytest.mark.parametrize("strict", [False, True])
def test_torch_export_with_a_dynamic_batch(strict: bool) -> None:
    layer, x = SlidingChannelConv2d(16, 24, 4, 0.33, bias=True), torch.randn(4, 16, 3, 3)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(layer, (x,), dynamic_shapes=(batch,), strict=strict)
    torch.testing.assert_close(program.module()(x[:3]), layer(x[:3]))
    assert set(program.state_dict) == {"weight", "bias"}
    assert "paretonas.sliding_channel_conv2d" in program.graph_module.code


def test_an_exported_graph_runs_what_the_module_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced at 2 pixels where the dense matrix wins, run at 256 where it does not."""
    layer = SlidingChannelConv2d(16, 32, 2, 0.5)
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    example = torch.randn(2, 16, 2, 3)
    program = torch.export.export(layer, (example,), dynamic_shapes=(sizes,)).module()
    names = []
    monkeypatch.setattr(choice_file, "load", lambda found: names.append(found.name) or load(found))
    choice_file.chosen.cache_clear()
    for size in (4, 16):
        x = torch.randn(3, 16, size, size)
        torch.testing.assert_close(program(x), layer(x))
    assert names == ["dense", "grouped"]


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_exported_operator_keeps_torchs_rules(last: bool, bias: bool) -> None:
    layer, x = SlidingChannelConv2d(16, 24, 2, 0.5, bias=bias), torch.randn(3, 16, 9, 8)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    tensors = tuple(
        None if t is None else t.detach() for t in (layer.weight, layer.starts, layer.bias)
    )
    for trained in (False, True):
        for tensor in (x, tensors[0], tensors[2]):
            if tensor is not None:
                tensor.requires_grad_(trained)
        torch.library.opcheck(
            exported.sliding_channel_conv2d, (x, *tensors, 2, "0.5", "floor", "cyclic")
        )


@pytest.mark.parametrize("bias", [False, True])
def test_an_exported_graph_can_be_trained(bias: bool) -> None:
    layer, x = SlidingChannelConv2d(16, 24, 2, 0.5, bias=bias), torch.randn(3, 16, 9, 8)
    program = torch.export.export(layer, (x,)).module()
    dy = torch.randn(3, 24, 9, 8)
    found = torch.autograd.grad(program(x), tuple(program.parameters()), dy)
    expected = torch.autograd.grad(layer(x), tuple(layer.parameters()), dy)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dynamic", [None, True])
def test_torch_compile_in_one_graph(dynamic: bool | None) -> None:
    torch._dynamo.reset()
    layer, x = SlidingChannelConv2d(16, 24, 4, 0.33, bias=True), torch.randn(4, 16, 3, 3)
    compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in (4, 3):
        torch.testing.assert_close(compiled(x[:size]), layer(x[:size]))
    compiled(x).sum().backward()
    gradient = layer.weight.grad
    layer.weight.grad = None
    layer(x).sum().backward()
    torch.testing.assert_close(gradient, layer.weight.grad)


def test_copies_pickles_prints_and_shapes_without_data() -> None:
    layer, x = SlidingChannelConv2d(16, 24, 4, 0.33), torch.randn(2, 16, 3, 3)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    assert repr(layer) == (
        "SlidingChannelConv2d(16, 24, cg=4, co=0.33, rule='floor', order='cyclic', bias=False)"
    )
    assert layer.to("meta")(x.to("meta")).shape == (2, 24, 3, 3)


def test_docstring_examples() -> None:
    assert doctest.testmod(windows_file).failed == 0
    assert doctest.testmod(module_file).failed == 0


# Parameter and MAC totals of whole networks: 32 x 32 input, 10 classes


def _sliding(c_in: int, c_out: int, cg: int) -> int:
    with torch.device("meta"):
        layer = SlidingChannelConv2d(c_in, c_out, cg, 0.5)
    return sum(parameter.numel() for parameter in layer.parameters())


def _spatial(c_in: int, c_out: int, pixels: int, cg: int) -> tuple[int, int]:
    """Parameters and MACs of a 3x3 layer: standard for cg 0, else depthwise + bias + sliding."""
    if cg == 0:
        return 9 * c_in * c_out, 9 * c_in * c_out * pixels
    sliding = _sliding(c_in, c_out, cg)
    return 10 * c_in + sliding, (9 * c_in + sliding) * pixels


def _vgg(depths: tuple[int, ...], cg: int) -> tuple[int, int]:
    layers, biases, c_in, size = [], 0, 3, 32
    for depth, width in zip(depths, (64, 128, 256, 512, 512), strict=True):
        for _ in range(depth):
            groups = 0 if c_in == 3 else cg
            layers.append(_spatial(c_in, width, size * size, groups))
            biases += 2 * width + (width if groups == 0 else 0)
            c_in = width
        size //= 2
    return sum(p for p, _ in layers) + biases + 5130, sum(m for _, m in layers) + 5120


def _mobilenet(cg: int) -> tuple[int, int]:
    strided = {1: 2, 3: 2, 5: 2, 11: 2}
    params, macs = 27 * 32 + 64 + 10250, 27 * 32 * 1024 + 10240
    c_in, size = 32, 32
    for i, width in enumerate((64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)):
        size //= strided.get(i, 1)
        layer = _spatial(c_in, width, size * size, cg)
        params, macs = params + layer[0] + 2 * (c_in + width), macs + layer[1]
        c_in = width
    return params, macs


def _resnet(depths: tuple[int, ...], bottleneck: bool, cg: int) -> tuple[int, int]:
    params, macs, c_in, size = 27 * 64 + 128, 27 * 64 * 1024, 64, 32
    for stage, depth in enumerate(depths):
        width, out = 64 << stage, 64 << stage + 2 * bottleneck
        for block in range(depth):
            before = size * size
            size //= 2 if stage and block == 0 else 1
            after = size * size
            layers = [_spatial(width, width, after, cg)]
            if bottleneck:
                layers += [
                    (c_in * width, c_in * width * before),
                    (width * out, width * out * after),
                ]
            else:
                layers += [_spatial(c_in, width, after, 0)]
            shortcut = c_in != out
            layers += [(c_in * out, c_in * out * after)] * shortcut
            params += sum(p for p, _ in layers) + 4 * width + 2 * out * (bottleneck + shortcut)
            macs += sum(m for _, m in layers)
            c_in = out
    return params + 10 * c_in + 10, macs + 10 * c_in


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (
            lambda cg: _vgg((2, 2, 3, 3, 3), cg),
            "14.728/313.2 1.687/38.0 0.870/20.7 0.461/12.1 0.257/7.7",
        ),
        (
            lambda cg: _vgg((2, 2, 4, 4, 4), cg),
            "20.041/398.1 2.292/47.7 1.180/25.7 0.624/14.7 0.346/9.2",
        ),
        (
            lambda cg: _mobilenet(cg) if cg else (0, 0),
            "0.000/0.0 3.222/46.4 1.652/24.3 0.867/13.3 0.475/7.8",
        ),
        (
            lambda cg: _resnet((2, 2, 2, 2), False, cg),
            "11.174/555.4 5.623/289.2 5.274/272.4 5.100/264.0 5.013/259.8",
        ),
        (
            lambda cg: _resnet((3, 4, 6, 3), True, cg),
            "23.521/1297.8 13.499/765.0 12.870/731.5 12.556/714.7 12.399/706.3",
        ),
    ],
    ids=["vgg16", "vgg19", "mobilenet", "resnet18", "resnet50"],
)
def test_totals_of_whole_networks(network: Callable[[int], tuple[int, int]], expected: str) -> None:
    totals = [network(cg) for cg in (0, 1, 2, 4, 8)]
    assert " ".join(f"{p / 1e6:.3f}/{m / 1e6:.1f}" for p, m in totals) == expected
