"""The Hopper kernels of Shfl-BW as far as a CPU can tell: compiled for the target, and run thread
for thread by the emulation in ``tests/emulation`` (barriers, proxies, descriptors, swizzles)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kernels.jit import compile_cuda, read_source
from kernels.shfl_bw import plan as plans
from kernels.shfl_bw.activation import ACTIVATIONS, FUNCTIONS
from kernels.shfl_bw.dealing import deal
from kernels.shfl_bw.images import images_of, taps_of
from kernels.shfl_bw.launch import SOURCES
from kernels.shfl_bw.packed import pack
from kernels.shfl_bw.pattern import Pattern, like_weight
from kernels.shfl_bw.plan import Plan
from kernels.shfl_bw.window import Window
from tests.emulation.build import build, has_compiler, result, run

emulated = pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler (g++)")

BODY = """
  const auto x = file<Element>("x"), panels = file<Element>("panels");
  const auto columns = file<int>("columns"), shifts = file<int>("shifts");
  const auto tiles = file<int>("tiles"), order = file<int>("order"), rows = file<int>("rows");
  const auto items = file<int4>("items");
  const auto bias = file<float>("bias");
  const auto s = file<int>("sizes");
  auto y = file<Element>("y");
  auto partial = file<float>("partial");
  readable_whole(x);
  readable_whole(panels);
  launch({unsigned(s[0])}, THREADS, CLUSTER * SHARES, [&] {
    shfl_bw_spmm(x.data(), panels.data(), columns.data(), shifts.data(), tiles.data(), order.data(),
                 items.empty() ? nullptr : items.data(), rows.data(), bias.empty() ? nullptr : bias.data(), y.data(), partial.data(), s[1],
                 s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10], s[11], s[12], s[13], s[14],
                 s[15]);
  });
  write("y", y);
  write("partial", partial);
"""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def uneven(rows: int, columns: int, v: int, counts: list[int], seed: int = 0) -> Pattern:
    """A shuffled pattern whose groups keep the given numbers of columns."""
    generator = torch.Generator().manual_seed(seed)
    groups = len(counts)
    assert groups == -(-rows // v)
    ranks = torch.rand(groups, columns, generator=generator).argsort(1).argsort(1)
    kept = ranks < torch.tensor(counts)[:, None]
    order = torch.randperm(groups * v, generator=generator)
    mask = torch.zeros(groups * v, columns, dtype=torch.bool)
    mask[order] = kept.repeat_interleave(v, 0)
    return Pattern(mask[:rows], order, v)


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(torch.int16).numpy() if tensor.element_size() == 2 else tensor.numpy()


def emulate(
    folder: Path,
    plan: Plan,
    x: torch.Tensor,
    packed_weight: object,
    bias: torch.Tensor | None,
    *,
    blocks: int,
    activation: str = "none",
    window: Window | None = None,
    y_rows: int,
    eager: bool = False,
) -> torch.Tensor:
    """Run the kernel (and the kernel that adds splits) on poisoned outputs; return y flat."""
    assert plans.refuses_plan(plan) is None
    images = images_of(*packed_weight.tensors())  # type: ignore[attr-defined]
    columns, shifts, image, tokens = images.columns, torch.zeros(1, dtype=torch.int32), [1] * 8, 0
    if window is None:
        tokens = x.shape[1]
    else:
        channels, height, width, batch = x.shape
        down, across = window.output(height, width)
        columns, shifts = taps_of(images.columns, window, channels, height, width)
        image = [batch, height, width, across, *window.stride, *window.padding]
        tokens = down * across * batch
    pitch = x.shape[1] if window is None else 0
    grid = min(blocks, plan.items(images.groups, tokens))
    options = {"step": plan.tokens * plan.cluster, "width": plan.tokens, "splits": plan.splits}
    options |= {"workers": grid // plan.together, "overhead": 1.0, "halves": plan.side > 1}
    items = deal(images.lengths, tokens, **options) if plan.dealt else []
    count = len(items) or plan.items(images.groups, tokens) // plan.together
    sizes = [grid, images.groups, tokens, sum(images.lengths), plan.splits, count, pitch, tokens]
    packed_rows = images.groups * images.v
    arrays = {
        "x": as_numpy(x),
        "panels": as_numpy(images.panels),
        "columns": columns.numpy(),
        "shifts": shifts.numpy(),
        "tiles": images.tiles.numpy(),
        "order": images.order.numpy(),
        "items": np.array(items, np.int32),
        "rows": images.rows.numpy(),
        "bias": np.zeros(0, np.float32) if bias is None else bias.float().numpy(),
        "sizes": np.array(sizes + image, np.int32),
        "y": np.full((y_rows, tokens), 0x7FFF, np.int16),  # NaN
        "partial": np.full((plan.splits, packed_rows, tokens), np.nan, np.float32),
    }
    defines = plan.defines() | {"ACTIVATION": ACTIVATIONS.index(activation)}
    defines |= {"CONV": 1} if window else {}
    defines |= {"BFLOAT": 1} if x.dtype == torch.bfloat16 else {}
    defines |= {"EAGER": 1} if eager else {}
    program = build(folder, SOURCES / "spmm.cu", defines, BODY)
    run(program, arrays)
    if plan.splits > 1:
        program = build(folder, SOURCES / "reduce.cu", defines, REDUCE_BODY)
        counts = [plan.splits, packed_rows, tokens, tokens, tokens]
        run(program, {"sizes": np.array(counts, np.int32)})
    return torch.from_numpy(result(program, "y", np.int16).copy()).view(x.dtype)


def quick_first(cases: dict[str, object], count: int) -> list[object]:
    """Mark all but the first cases as slow."""
    names = list(cases)
    return [*names[:count], *(pytest.param(name, marks=pytest.mark.slow) for name in names[count:])]


REDUCE_BODY = """
  const auto rows = file<int>("rows"), s = file<int>("sizes");
  const auto bias = file<float>("bias"), partial = file<float>("partial");
  auto y = file<Element>("y");
  launch({unsigned(s[2] + 1023) / 1024, unsigned(s[1])}, 128, 1, [&] {
    shfl_bw_reduce(partial.data(), rows.data(), bias.empty() ? nullptr : bias.data(), y.data(),
                   s[0], s[1], s[2], s[3], s[4]);
  });
  write("y", y);
"""

# The first of each kind runs in every test run, the others by hand: pytest -m slow.
PRODUCTS = {
    # two warpgroups side by side, a long, a short and an empty group, the last tile half outside
    "side": (Plan(64, 64, 2, 3), 64, 192, 200, 200, [150, 1, 0], "none", torch.float16),
    # two strips, padding rows, an activation
    "strips": (Plan(128, 64, 1, 4), 128, 200, 160, 72, [130, 64], "gelu", torch.float16),
    # blocks share the kept columns of a tile, one of them has none
    "shares": (Plan(64, 64, 2, 3, shares=2), 64, 128, 260, 136, [70, 250], "relu", torch.bfloat16),
    # a cluster shares the panel, and walks over several tiles in turn
    "cluster 2": (
        Plan(64, 64, 1, 3, 2, 2, dealt=False),
        *(64, 128, 160, 136, [70, 150], "relu", torch.bfloat16),
    ),
    # groups of few rows are bundled; K in three splits, one of them empty
    "splits": (Plan(64, 64, 1, 2, 1, 2, 3), 16, 48, 140, 40, [60, 0, 33], "silu", torch.float16),
    # 256 columns a product: two copies a row and a lane
    "wide": (Plan(64, 256, 2, 2), 32, 32, 90, 520, [70], "none", torch.float16),
    "ring of five": (Plan(64, 128, 2, 5), 64, 64, 420, 240, [400], "hardswish", torch.float16),
    "cluster 4": (Plan(64, 64, 1, 4, 4, 2), 32, 64, 80, 320, [66, 10], "relu6", torch.float16),
    "four shares": (
        Plan(128, 128, 1, 4, shares=4),
        *(128, 128, 300, 136, [290], "none", torch.float16),
    ),
}


@emulated
@pytest.mark.parametrize("case", quick_first(PRODUCTS, 3))
def test_the_product_kernel_equals_float64(case: str, tmp_path: Path) -> None:
    plan, v, rows, columns, tokens, counts, activation, dtype = PRODUCTS[case]
    weight, bias = normal(rows, columns).to(dtype), normal(rows, seed=1)
    pattern = uneven(rows, columns, v, counts)
    x = normal(columns, tokens, seed=2).to(dtype)
    y = emulate(
        tmp_path,
        plan,
        x,
        pack(weight, pattern),
        bias,
        blocks=2 * plan.together,
        activation=activation,
        y_rows=rows,
    )
    exact = (weight.double() * pattern.mask) @ x.double() + bias.double()[:, None]
    expected = FUNCTIONS[activation](exact)
    found = y.view(rows, tokens).double()
    assert bool(found.isfinite().all())
    tolerance = 1e-3 if dtype == torch.float16 else 8e-3
    assert float((found - expected).norm() / expected.norm()) < tolerance


CONVOLUTIONS = {
    "3x3 stride 2": (Plan(64, 64, 1, 3, 1, 2), Window((3, 3), (2, 2), (1, 1)), 16, 40, (5, 7), 8),
    "3x3": (Plan(64, 64, 2, 3), Window((3, 3), (1, 1), (1, 1)), 24, 64, (4, 5), 8),
    "odd": (Plan(64, 64, 1, 3, 2, 2), Window((3, 2), (2, 1), (2, 3), (2, 3)), 16, 64, (6, 5), 16),
    "pointwise": (Plan(128, 64, 1, 3), Window((1, 1)), 80, 128, (3, 3), 24),
}


@emulated
@pytest.mark.parametrize("case", quick_first(CONVOLUTIONS, 1))
def test_the_convolution_kernel_equals_float64(case: str, tmp_path: Path) -> None:
    plan, window, channels, rows, size, batch = CONVOLUTIONS[case]
    filters = normal(rows, channels, *window.kernel).half()
    pattern = uneven(rows, channels * window.taps, plan.v, [70, 33][: -(-rows // plan.v)])
    x = normal(batch, channels, *size, seed=2).half()
    turned = x.permute(1, 2, 3, 0).contiguous()
    y = emulate(
        tmp_path,
        plan,
        turned,
        pack(filters, pattern),
        None,
        blocks=2 * plan.cluster,
        window=window,
        y_rows=rows,
    )
    masked = filters.double() * like_weight(pattern.mask, filters.shape)
    sizes = (window.stride, window.padding, window.dilation)
    expected = F.conv2d(x.double(), masked, None, *sizes).permute(1, 2, 3, 0)
    found = y.view(expected.shape).double()
    assert float((found - expected).norm() / expected.norm()) < 1e-3


@emulated
@pytest.mark.slow
def test_infinity_and_nan_reach_the_rows_that_keep_their_column(tmp_path: Path) -> None:
    """Also where tiles are filled up: what fills them is zero, not some row."""
    plan = Plan(64, 64, 1, 3, 1, 2)
    weight = normal(128, 70).half()
    pattern = uneven(128, 70, 64, [40, 65])
    x = normal(70, 24, seed=1).half()
    x[0, 3], x[69, 5] = float("inf"), float("nan")
    y = emulate(tmp_path, plan, x, pack(weight, pattern), None, blocks=4, y_rows=128)
    hit = torch.zeros(128, 24, dtype=torch.bool)
    hit[pattern.mask[:, 0], 3] = True
    hit[pattern.mask[:, 69], 5] = True
    assert torch.equal(~y.view(128, 24).isfinite(), hit)


FAULTS = {
    # what is written instead of what; whether tensor cores read at once, who waits for copies
    "no fence": ("fence_for_tensor_cores();", "", False),
    "no fence by those who multiply": ("fence_for_tensor_cores();", "", False),
    "announced before the copies": ("arrive_after_copies", "barrier_arrive", False),
    "copies announced too early": ("wait_copies<LAG>();", "wait_copies<LAG + 1>();", True),
    "tiles released too early": ("products_wait<1>();", "products_wait<2>();", False),
}


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_emulation_sees_what_a_gpu_may_forgive(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, work = tmp_path / "cuda", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    old, new, eager = FAULTS[fault]
    counted = fault.startswith(("no fence by", "announced", "tiles"))
    for path in SOURCES.glob("*.cu*"):
        (folder / path.name).write_text(path.read_text().replace(old, new))
    monkeypatch.setitem(globals(), "SOURCES", folder)
    weight, pattern = normal(64, 500).half(), uneven(64, 500, 64, [490])
    x = normal(500, 64, seed=1).half()
    exact = (weight.double() * pattern.mask) @ x.double()
    plan = Plan(64, 64, 1, 3, 1, 2, counted=counted)
    try:
        y = emulate(work, plan, x, pack(weight, pattern), None, blocks=1, y_rows=64, eager=eager)
        seen = not torch.allclose(y.view(64, 64).double(), exact, atol=0.1)
    except RuntimeError as problem:
        seen = "tensor cores read what no fence covers" in str(problem)
    assert seen


TRANSPOSE_BODY = """
  const auto x = file<unsigned short>("x");
  const auto s = file<int>("sizes");
  auto y = file<unsigned short>("y");
  launch({unsigned(s[1] + 63) / 64, unsigned(s[4] + 63) / 64}, 256, 1, [&] {
    shfl_bw_transpose(x.data(), y.data(), s[0], s[1], s[2], s[3], s[4]);
  });
  write("y", y);
"""


@emulated
@pytest.mark.parametrize(("rows", "columns"), [(70, 136)])
def test_the_transposition_is_exact(rows: int, columns: int, tmp_path: Path) -> None:
    x = torch.arange(rows * columns, dtype=torch.int16).view(rows, columns)
    filled = -(-rows // 8) * 8
    program = build(tmp_path, SOURCES / "transpose.cu", {}, TRANSPOSE_BODY)
    sizes = np.array([rows, columns, columns, filled, filled], np.int32)
    y = np.full((columns, filled), -1, np.int16)
    run(program, {"x": x.numpy(), "sizes": sizes, "y": y})
    found = torch.from_numpy(result(program, "y", np.int16).copy()).view(columns, filled)
    assert torch.equal(found[:, :rows], x.T)
    assert not bool(found[:, rows:].any())


# Plans and images


@pytest.mark.parametrize("v", plans.VECTORS)
def test_plans_fit_a_multiprocessor_and_the_choice_is_one_of_them(v: int) -> None:
    made = plans.candidates(v)
    assert len(made) >= 5
    for plan in made:
        assert plans.refuses_plan(plan) is None
        assert plan.blocks * (plan.shared_bytes + 1024) <= 227 << 10
        assert plan.token_tiles(1000) % plan.cluster == 0
        assert plan.items(64, 1000) % plan.cluster == 0
    for groups, columns, tokens in (
        (64, 1024, 4096),
        (16, 1024, 960),
        (2, 288, 50176),
        (64, 256, 8),
    ):
        plan = plans.choose(v, groups, columns, tokens, sms=132)
        assert plans.refuses_plan(plan) is None
        assert plan.splits == 1 or plan.splits * groups * plan.token_tiles(tokens) <= 264


@pytest.mark.parametrize(
    ("shape", "measured"),
    [
        # what was fastest on an H100: V, groups, kept columns, tokens, convolution
        ((128, 32, 1024, 4096, False), Plan(128, 256, 1, 4, 1)),
        ((64, 64, 1024, 4096, False), Plan(64, 256, 2, 3, 2)),
        ((32, 128, 1024, 4096, False), Plan(32, 256, 2, 3, 1)),
        ((64, 172, 1024, 4096, False), Plan(64, 256, 2, 3, 2)),
        ((64, 64, 512, 6400, False), Plan(64, 256, 2, 3, 2)),
        ((64, 64, 256, 6400, False), Plan(64, 256, 2, 3, 2)),
        ((64, 64, 256, 960, False), Plan(64, 256, 2, 3, 1)),
        ((64, 16, 1024, 960, False), Plan(64, 64, 1, 7, 1, 2)),
        ((64, 64, 2752, 4096, False), Plan(64, 256, 2, 3, 2)),
        ((64, 2, 288, 50176, True), Plan(64, 128, 1, 4, 1, 2)),
        ((64, 4, 576, 12544, True), Plan(64, 128, 1, 4, 1, 2)),
        ((64, 8, 1152, 3136, True), Plan(64, 128, 1, 4, 1, 2)),
    ],
)
def test_the_choice_is_what_was_fastest(
    shape: tuple[int, int, int, int, bool], measured: Plan
) -> None:
    *sizes, convolution = shape
    assert plans.choose(*sizes, sms=132, convolution=convolution) == measured


def test_the_model_splits_k_only_where_multiprocessors_rest() -> None:
    assert plans.choose(64, 64, 1024, 4096, sms=132).splits == 1
    assert plans.choose(128, 8, 4096, 64, sms=132).splits > 1


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(8), "V must be one of 16, 32, 64, 128, not 8"),
        (Plan(64, 96), "64, 128 or 256 columns, not 96"),
        (Plan(128, 64, 2), "have no registers"),
        (Plan(64, cluster=3), "a cluster has 1, 2 or 4 blocks"),
        (Plan(64, 256, 2, 4), "bytes of shared memory"),
    ],
)
def test_plans_that_cannot_be_say_why(plan: Plan, words: str) -> None:
    assert words in str(plans.refuses_plan(plan))


@pytest.mark.parametrize("v", plans.VECTORS)
def test_images_hold_the_panels_where_tensor_cores_look(v: int) -> None:
    rows = 2 * v
    weight = normal(rows, 100)
    packed_weight = pack(weight, uneven(rows, 100, v, [70, 0]))
    images = images_of(*packed_weight.tensors())
    assert images.tiles.tolist() == [0, 2, 2]
    assert images.order.tolist() == [0, 1]
    assert images.columns[:70].tolist() == packed_weight.columns.tolist()
    assert images.columns[70:].tolist() == [-1] * 58
    height = max(64, v)
    flat = images.panels.reshape(2, height * 64)
    for tile, row, k in ((0, 0, 0), (0, 5, 9), (1, v - 1, 5), (1, 3, 6), (0, v - 1, 63)):
        place = row * 64 + ((k // 8) ^ (row % 8)) * 8 + k % 8
        vector = tile * 64 + k
        expected = packed_weight.values[vector, row] if vector < 70 else 0.0
        assert flat[tile, place] == expected
    assert images.panels.shape == (2, height, 64)
    assert float(images.panels.abs().sum()) == pytest.approx(
        float(packed_weight.values.abs().sum()), rel=1e-5
    )


def test_taps_say_where_a_column_reads() -> None:
    columns = torch.tensor([0, 5, 23, -1], dtype=torch.int32)  # (tap, channel) of 4 channels
    offsets, shifts = taps_of(columns, Window((2, 3), (1, 1), (0, 0), (2, 3)), 4, 7, 9)
    assert offsets.tolist() == [0, 1 * 63 + 3, 3 * 63 + 2 * 9 + 6, -1]
    assert shifts.tolist() == [0, 3, 2 << 16 | 6, 0]


# Compiled for the target


def compiled(plan: Plan, **extra: int) -> None:
    """Compile the product kernel; nothing spills, no instruction is left out or put in order."""
    defines = plan.defines() | {"ACTIVATION": 0} | extra
    options = [f"-D{name}={value}" for name, value in defines.items()]
    found = compile_cuda(
        read_source(SOURCES / "spmm.cu"), name="shfl_bw_spmm", arch="sm_90a", options=options
    )
    (resources,) = found.functions.values()
    assert resources.spill_bytes == 0
    assert resources.stack_bytes == 0
    assert "ignored" not in found.log  # setmaxnreg
    assert "C7510" not in found.log  # products one after the other
    assert "C7519" not in found.log


def test_the_plan_of_record_compiles_without_spills() -> None:
    compiled(plans.choose(64, 64, 1024, 4096, sms=132))


@pytest.mark.slow
@pytest.mark.parametrize("v", plans.VECTORS)
def test_all_plans_compile_without_spills(v: int) -> None:
    """And with everything that adds registers: convolution, GELU, splits."""
    for plan in plans.candidates(v):
        compiled(plan)
        compiled(plan, CONV=1, ACTIVATION=5)
    compiled(plans.candidates(v)[0], SPLIT=1, BFLOAT=1)


@pytest.mark.parametrize("file", ["reduce.cu", "transpose.cu"])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_the_small_kernels_compile(file: str, arch: str) -> None:
    source = read_source(SOURCES / file)
    found = compile_cuda(source, name=f"shfl_bw_{file[:-3]}", arch=arch, options=["-DACTIVATION=5"])
    (resources,) = found.functions.values()
    assert resources.spill_bytes == 0
