"""The CUDA kernels of arbitrary precision, run thread by thread on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kernels.arbitrary_precision.encodings import unsigned
from kernels.arbitrary_precision.launch import SOURCES, Launch, Rows, pack_launch, product_launch
from kernels.arbitrary_precision.layout import padded
from kernels.arbitrary_precision.module import APConv2d, APLinear
from kernels.arbitrary_precision.operands import Geometry
from kernels.arbitrary_precision.packed import pack_rows
from kernels.arbitrary_precision.plan import Tile
from kernels.arbitrary_precision.planes import from_codes, pack_planes
from kernels.arbitrary_precision.precision import Precision
from kernels.arbitrary_precision.quantise import integers
from tests.emulator import Emulated, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

WGMMA = Tile("wgmma", 64, 1, 2, 1, 3)
TURNS = Tile("wgmma", 64, 1, 2, 1, 3, cluster=2, pingpong=True)
MMA = Tile("mma", 64, 2, 2, 1, 3)
POISON = 0x5A


@pytest.fixture(scope="session", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulated")


WARPGROUP_PRODUCT = """
void multiply_bits(int (&counts)[COLUMNS / 2], unsigned long long rows,
                   unsigned long long columns, bool keep) {
  warpgroup_product(counts, rows, columns, keep);
}
"""


def emulate(
    launch: Launch, folder: Path, seed: int = 0, fault: tuple[str, str] | None = None
) -> None:
    more = WARPGROUP_PRODUCT if "HOPPER" in launch.defines else ""
    source, together = SOURCES / launch.file, launch.defines.get("CLUSTER", 1)
    settings = {"together": together, "seed": seed, "fault": fault}
    kernel = Emulated(source, launch.function, launch.defines, folder, more, **settings)
    kernel(launch.grid, launch.block, launch.arguments)


def random_codes(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 1 << bits, shape, dtype=np.uint8))


def poisoned(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    count = int(np.prod(shape)) * torch.empty((), dtype=dtype).element_size()
    return torch.full((count,), POISON, dtype=torch.uint8).view(dtype).view(shape)


def linear_layer(rng: np.random.Generator, m: int, k: int, bits: str, zero: int) -> APLinear:
    precision = Precision.parse(bits)
    w = from_codes(random_codes(rng, (m, k), precision.weight_bits), precision.weights)
    scale = torch.from_numpy(rng.uniform(0.5, 2, m).astype(np.float32))
    bias = torch.from_numpy(rng.normal(0, 1, m).astype(np.float32))
    return APLinear.of(w, scale, precision, zero=zero, bias=bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "k", "bits", "zero"), [(5, 64, 2, 0), (3, 300, 3, 2), (9, 13, 1, 0), (2, 520, 8, 90)]
)
def test_packing(rows: int, k: int, bits: int, zero: int, dtype: torch.dtype, folder: Path) -> None:
    rng = np.random.default_rng(k)
    x = torch.from_numpy(rng.normal(0, 2, (rows, k)).astype(np.float32)).to(dtype)
    x[0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    step = torch.tensor(0.3)
    planes = poisoned(rows, bits, padded(k) // 8, dtype=torch.uint8)
    sums = poisoned(rows, dtype=torch.int32)
    emulate(pack_launch(x, step, bits, zero, planes, sums), folder)
    codes = (integers(x, step, unsigned(bits, zero)) + zero).to(torch.uint8)
    expected = pack_rows(codes, bits)
    assert torch.equal(planes, expected[0])
    assert torch.equal(sums, expected[1])


@pytest.mark.parametrize(
    ("tile", "bits", "tokens", "m", "k", "zero"),
    [
        (WGMMA, "w1a2", 150, 72, 300, 0),
        (Tile("wgmma", 96, 1, 1, 1, 2), "w2a2", 70, 104, 1100, 1),
        (Tile("wgmma", 32, 2, 1, 1, 4), "w1a1", 130, 40, 2100, 0),
        (Tile("wgmma", 32, 1, 2, 1, 3), "w4a3", 90, 40, 700, 3),
        (Tile("wgmma", 64, 1, 2, 1, 4, pingpong=True), "w1a2", 150, 136, 2100, 0),
        (Tile("wgmma", 32, 2, 2, 1, 2, 2, True), "w1a1", 300, 72, 1100, 0),
        (Tile("wgmma", 32, 1, 2, 1, 3, 2, True), "w1a1", 100, 136, 5000, 0),
        (Tile("wgmma", 64, 1, 2, 1, 3, 2), "w2a1", 140, 72, 1100, 0),
        (MMA, "w1a2", 70, 72, 300, 0),
        (Tile("mma", 64, 1, 4, 2, 2), "w2a3", 70, 72, 1100, 2),
        (Tile("mma", 32, 1, 4, 1, 4), "w3a2", 65, 40, 2100, 1),
    ],
    ids=str,
)
def test_whole_numbers(
    tile: Tile, bits: str, tokens: int, m: int, k: int, zero: int, folder: Path
) -> None:
    rng = np.random.default_rng(m + k)
    layer = linear_layer(rng, m, k, bits, zero)
    codes = random_codes(rng, (tokens, k), layer.precision.activation_bits)
    planes, sums = pack_rows(codes, layer.precision.activation_bits)
    out = poisoned(tokens, m, dtype=torch.int32)
    assert tile.problem(layer.precision, (9, 0)) is None
    emulate(product_launch(Rows(planes, sums, tokens), layer.weights(), out, tile, sms=2), folder)
    expected = from_codes(codes, layer.inputs) @ layer.integers().squeeze(2).T
    assert torch.equal(out.long(), expected)


FAULTS = {
    "turns not waited for": ("if constexpr (PINGPONG) wait_for_turn(", "if (false) wait_for_turn("),
    "a stage given back before it is read": ("wait_products<1>();", ""),
    "copies not waited for": ("arrive_when_copied(told);", "arrive(told);"),
    "weights for this block alone": ("bytes, full, EVERY_BLOCK", "bytes, full, 1 << skipped % 2"),
}


@pytest.mark.parametrize(
    ("seed", "fault"),
    [
        (1, None),
        (2, None),
        (1, "turns not waited for"),
        *(pytest.param(1, fault, marks=pytest.mark.slow) for fault in list(FAULTS)[1:]),
    ],
)
def test_warpgroups_that_take_turns_and_share_weights(
    seed: int, fault: str | None, folder: Path
) -> None:
    rng = np.random.default_rng(seed)
    tile, tokens, m, k = Tile("wgmma", 32, 1, 2, 1, 3, 2, True), 200, 72, 9000
    layer = linear_layer(rng, m, k, "w1a1", 0)
    codes = random_codes(rng, (tokens, k), 1)
    out = poisoned(tokens, m, dtype=torch.int32)
    rows = Rows(*pack_rows(codes, 1), tokens)
    launch = product_launch(rows, layer.weights(), out, tile, sms=2)
    expected = from_codes(codes, layer.inputs) @ layer.integers().squeeze(2).T
    try:
        emulate(launch, folder, seed, None if fault is None else FAULTS[fault])
        right = torch.equal(out.long(), expected)
    except AssertionError:  # it waits for ever, or something came that was not expected
        right = False
    assert right == (fault is None)


@pytest.mark.parametrize("tile", [WGMMA, TURNS, MMA], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_real_outputs(tile: Tile, dtype: torch.dtype, folder: Path) -> None:
    rng = np.random.default_rng(3)
    layer = linear_layer(rng, 72, 200, "w1a2", 1)
    codes = random_codes(rng, (90, 200), 2)
    planes, sums = pack_rows(codes, 2)
    out = poisoned(90, 72, dtype=dtype)
    emulate(product_launch(Rows(planes, sums, 90), layer.weights(), out, tile), folder)
    whole = from_codes(codes, layer.inputs) @ layer.integers().squeeze(2).T
    counted = (whole - layer.constants.long()).double()
    expected = (counted * layer.factor.double() + layer.shift.double()).float()
    assert torch.equal(out, expected.to(dtype))


@pytest.mark.parametrize("tile", [WGMMA, TURNS, MMA], ids=str)
@pytest.mark.parametrize(
    ("channels", "bits", "zero", "kernel", "stride", "padding", "dilation"),
    [
        (64, "w1a2", 0, (3, 3), (1, 1), (1, 1), (1, 1)),
        (128, "w1a2", 1, (3, 3), (2, 2), (1, 1), (1, 1)),
        (70, "w2a1", 0, (3, 2), (1, 2), (0, 1), (2, 1)),
        (192, "w1a1", 0, (1, 1), (2, 2), (0, 0), (1, 1)),
    ],
)
def test_convolutions(
    tile: Tile,
    channels: int,
    bits: str,
    zero: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    folder: Path,
) -> None:
    rng = np.random.default_rng(channels)
    precision = Precision.parse(bits)
    w = from_codes(
        random_codes(rng, (40, channels, *kernel), precision.weight_bits), precision.weights
    )
    layer = APConv2d.of(
        w,
        torch.ones(40),
        precision,
        zero=zero,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    q = precision.activation_bits
    codes = random_codes(rng, (2, 7, 6, channels), q)
    planes, sums = pack_rows(codes.flatten(0, 2), q)
    outside = pack_planes(torch.full((1, channels), zero), q, multiple=64)[0].contiguous()
    g = Geometry(kernel, stride, padding, dilation)
    height, width = g.output_size((7, 6))
    count = 2 * height * width
    out = poisoned(count, 40, dtype=torch.int32)
    launch = product_launch(
        Rows(planes, sums, count, (7, 6)),
        layer.weights(),
        out,
        tile,
        geometry=g,
        outside=outside,
        sms=3,
    )
    emulate(launch, folder)
    x = from_codes(codes, layer.inputs).permute(0, 3, 1, 2).double()
    expected = F.conv2d(x, w.double(), None, stride, padding, dilation)
    assert torch.equal(out.view(2, height, width, 40).permute(0, 3, 1, 2).double(), expected)
