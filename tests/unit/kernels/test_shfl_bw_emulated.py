"""The Hopper kernels of Shfl-BW, run thread by thread on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kernels.shfl_bw.activation import ACTIVATIONS, FUNCTIONS
from kernels.shfl_bw.dealing import deal
from kernels.shfl_bw.images import images_of, taps_of
from kernels.shfl_bw.launch import SOURCES
from kernels.shfl_bw.packed import Packed, pack
from kernels.shfl_bw.pattern import like_weight
from kernels.shfl_bw.plan import Plan, refuses_plan
from kernels.shfl_bw.window import Window
from tests.emulator import Emulated, missing
from tests.unit.kernels.patterns import normal, uneven

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="session", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulated")


def emulate(
    folder: Path,
    plan: Plan,
    x: torch.Tensor,
    packed: Packed,
    bias: torch.Tensor | None,
    *,
    blocks: int,
    activation: str = "none",
    window: Window | None = None,
    y_rows: int,
    seed: int = 0,
    fault: tuple[str, str] | None = None,
) -> torch.Tensor:
    """Run the kernel (and the kernel that adds splits) on poisoned outputs; return y flat."""
    assert refuses_plan(plan) is None
    images = images_of(*packed.tensors())
    columns, shifts, image, tokens = images.columns, None, (1, 1, 1, 1, 1, 1, 0, 0), x.shape[1]
    if window is not None:
        channels, height, width, batch = x.shape
        down, across = window.output(height, width)
        columns, shifts = taps_of(images.columns, window, channels, height, width)
        image = (batch, height, width, across, *window.stride, *window.padding)
        tokens = down * across * batch
    grid = min(blocks, plan.items(images.groups, tokens))
    items = _items(plan, images.lengths, tokens, grid // plan.cluster)
    count = plan.items(images.groups, tokens) // plan.cluster if items is None else len(items)
    pitch = x.shape[1] if window is None else 0
    sizes = (images.groups, tokens, sum(images.lengths), plan.splits, count, pitch, tokens, *image)
    packed_rows = images.groups * images.v
    y = torch.full((y_rows, tokens), float("nan"), dtype=x.dtype)
    partial = torch.full((plan.splits, packed_rows, tokens), float("nan"))
    added = None if bias is None else bias.float()
    defines = plan.defines() | {"HOPPER": 1, "ACTIVATION": ACTIVATIONS.index(activation)}
    defines |= {"CONV": 1} if window else {}
    defines |= {"BFLOAT": 1} if x.dtype == torch.bfloat16 else {}
    tensors = (x, images.panels, columns, shifts, images.tiles, images.order, items, images.rows)
    settings = {"together": plan.cluster, "seed": seed, "fault": fault}
    kernel = Emulated(SOURCES / "spmm.cu", "shfl_bw_spmm", defines, folder, **settings)
    kernel((grid,), (plan.threads,), (*tensors, added, y, partial, *map(np.int32, sizes)))
    if plan.splits > 1:
        reduce = Emulated(SOURCES / "reduce.cu", "shfl_bw_reduce", defines, folder)
        counts = map(np.int32, (plan.splits, packed_rows, tokens, tokens, tokens))
        shape = (-(-tokens // 1024), packed_rows)
        reduce(shape, (128,), (partial, images.rows, added, y, *counts))
    return y


def _items(plan: Plan, lengths: tuple[int, ...], tokens: int, workers: int) -> torch.Tensor | None:
    if not plan.dealt:
        return None
    width = plan.tokens
    how = {"step": width * plan.cluster, "width": width, "splits": plan.splits}
    items = deal(lengths, tokens, workers=workers, overhead=1.0, **how)
    return torch.tensor(items, dtype=torch.int32)


def quick_first(cases: dict[str, object], count: int) -> list[object]:
    """Mark all but the first cases as slow."""
    names = list(cases)
    return [*names[:count], *(pytest.param(name, marks=pytest.mark.slow) for name in names[count:])]


# The first of each kind runs in every test run, the others by hand: pytest -m slow.
PRODUCTS = {
    # two warpgroups side by side, a long, a short and an empty group, the last tile half outside
    "side": (Plan(64, 64, 2, 3), 64, 192, 200, 200, [150, 1, 0], "none", torch.float16),
    # two strips, padding rows, an activation
    "strips": (Plan(128, 64, 1, 4), 128, 200, 160, 72, [130, 64], "gelu", torch.float16),
    # two teams take tiles in turn, in a cluster; an empty group, and a ring shorter than a tile
    "teams": (
        Plan(64, 64, 1, 2, 2, teams=2),
        *(64, 192, 270, 264, [70, 0, 260], "none", torch.float16),
    ),
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
}


@pytest.mark.parametrize("case", quick_first(PRODUCTS, 3))
def test_the_product_kernel_equals_float64(case: str, folder: Path) -> None:
    plan, v, rows, columns, tokens, counts, activation, dtype = PRODUCTS[case]
    weight, bias = normal(rows, columns).to(dtype), normal(rows, seed=1)
    pattern = uneven(rows, columns, v, counts)
    x = normal(columns, tokens, seed=2).to(dtype)
    y = emulate(
        folder,
        plan,
        x,
        pack(weight, pattern),
        bias,
        blocks=2 * plan.cluster,
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


@pytest.mark.parametrize("case", quick_first(CONVOLUTIONS, 1))
def test_the_convolution_kernel_equals_float64(case: str, folder: Path) -> None:
    plan, window, channels, rows, size, batch = CONVOLUTIONS[case]
    filters = normal(rows, channels, *window.kernel).half()
    pattern = uneven(rows, channels * window.taps, plan.v, [70, 33][: -(-rows // plan.v)])
    x = normal(batch, channels, *size, seed=2).half()
    turned = x.permute(1, 2, 3, 0).contiguous()
    y = emulate(
        folder,
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


@pytest.mark.slow
def test_infinity_and_nan_reach_the_rows_that_keep_their_column(folder: Path) -> None:
    """Also where tiles are filled up: what fills them is zero, not some row."""
    plan = Plan(64, 64, 1, 3, 1, 2)
    weight = normal(128, 70).half()
    pattern = uneven(128, 70, 64, [40, 65])
    x = normal(70, 24, seed=1).half()
    x[0, 3], x[69, 5] = float("inf"), float("nan")
    y = emulate(folder, plan, x, pack(weight, pattern), None, blocks=4, y_rows=128)
    hit = torch.zeros(128, 24, dtype=torch.bool)
    hit[pattern.mask[:, 0], 3] = True
    hit[pattern.mask[:, 69], 5] = True
    assert torch.equal(~y.view(128, 24).isfinite(), hit)


FAULTS = {
    # what is written instead of what
    "no fence": ("show_to_tensor_cores();\n      const", "const"),
    "announced before the copies": ("arrive_when_copied", "arrive"),
    "tiles released too early": ("wait_products<1>();", "wait_products<2>();"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_emulator_sees_what_a_gpu_may_forgive(fault: str, folder: Path) -> None:
    weight, pattern = normal(64, 500).half(), uneven(64, 500, 64, [490])
    x = normal(500, 64, seed=1).half()
    exact = (weight.double() * pattern.mask) @ x.double()
    plan, packed = Plan(64, 64, 1, 3, 1, 2), pack(weight, pattern)
    seen = False
    for seed in range(1, 4):
        try:
            y = emulate(
                folder, plan, x, packed, None, blocks=1, y_rows=64, seed=seed, fault=FAULTS[fault]
            )
            seen |= not torch.allclose(y.double(), exact, atol=0.1)
        except AssertionError as problem:
            seen |= "The kernel ended early" in str(problem)
    assert seen


@pytest.mark.parametrize("leaves", [False, True])
def test_the_transposition_is_exact(leaves: bool, folder: Path) -> None:
    rows, columns, filled = 70, 136, 72
    x = torch.arange(rows * columns, dtype=torch.int16).view(rows, columns)
    y = torch.full((columns, filled), -1, dtype=torch.int16)
    defines = {"LEAVES": 1} if leaves else {}
    kernel = Emulated(SOURCES / "transpose.cu", "shfl_bw_transpose", defines, folder)
    sizes = map(np.int32, (rows, columns, columns, filled, filled))
    kernel((2, 3) if leaves else (3, 2), (256,), (x, y, *sizes))
    assert torch.equal(y[:, :rows], x.T)
    assert not bool(y[:, rows:].any())
