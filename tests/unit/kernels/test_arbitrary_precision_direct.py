"""The direct convolution of bit planes, run thread by thread on the CPU, exactly."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kernels.arbitrary_precision.direct_path import conv2d_fused
from kernels.arbitrary_precision.encodings import unsigned
from kernels.arbitrary_precision.implementations import conv_workload
from kernels.arbitrary_precision.launch import SOURCES, Launch, Outputs, Rows, direct_launch
from kernels.arbitrary_precision.layout import padded
from kernels.arbitrary_precision.module import APConv2d
from kernels.arbitrary_precision.operands import Geometry
from kernels.arbitrary_precision.packed import LowBit, pack_rows
from kernels.arbitrary_precision.plan_direct import DirectTile, Window, choose, tiles
from kernels.arbitrary_precision.planes import from_codes, pack_planes, unpack_planes
from kernels.arbitrary_precision.precision import Precision
from kernels.arbitrary_precision.quantise import integers
from kernels.device import Device
from kernels.errors import NasError
from kernels.select import select
from tests.emulator import Emulated, missing
from tests.unit.kernels.test_arbitrary_precision_emulated import poisoned, random_codes

emulated = pytest.mark.skipif(bool(missing()), reason=missing())

REGISTER_PRODUCT = """
void multiply_window(int (&counts)[COLUMNS / 2], const unsigned (&rows)[4],
                     unsigned long long columns, bool keep) {
  warpgroup_product(counts, rows, columns, keep);
}
"""
SMALL = DirectTile(32, 4)


@pytest.fixture(scope="session", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("direct")


def emulate(
    launch: Launch, folder: Path, seed: int = 0, fault: tuple[str, str] | None = None
) -> None:
    source = SOURCES / launch.file
    kernel = Emulated(
        source,
        launch.function,
        launch.defines,
        folder,
        REGISTER_PRODUCT,
        seed=seed,
        fault=fault,
    )
    kernel(launch.grid, launch.block, launch.arguments)


@dataclass
class Case:
    """A convolution with random codes and weights.

    Attributes:
        layer: what to convolve with.
        codes: (b, h, w, c).
        geometry: of the window.
    """

    layer: APConv2d
    codes: torch.Tensor
    geometry: Geometry

    @property
    def rows(self) -> Rows:
        planes, _ = pack_rows(self.codes.flatten(0, 2), self.layer.precision.activation_bits)
        size = self.geometry.output_size((self.codes.shape[1], self.codes.shape[2]))
        image = (self.codes.shape[1], self.codes.shape[2])
        return Rows(planes, None, len(self.codes) * size[0] * size[1], image)

    @property
    def outside(self) -> torch.Tensor:
        zeros = torch.full((1, self.codes.shape[3]), self.layer.zero)
        return pack_planes(zeros, self.layer.precision.activation_bits, multiple=64)[0].contiguous()

    def whole(self) -> torch.Tensor:
        """Return the exact outputs (pixels, m)."""
        x = from_codes(self.codes, self.layer.inputs).permute(0, 3, 1, 2).double()
        w = self.layer.integers().view(len(self.layer.factor), -1, *self.geometry.kernel).double()
        g = self.geometry
        found = F.conv2d(x, w, None, g.stride, g.padding, g.dilation)
        return found.permute(0, 2, 3, 1).flatten(0, 2).long()

    def run(self, outputs: Outputs, tile: DirectTile, folder: Path, **how: object) -> None:
        settings = {"geometry": self.geometry, "outside": self.outside, "sms": 1}
        made = direct_launch(self.rows, self.layer.weights(), outputs, tile, **settings)  # type: ignore[arg-type]
        emulate(made, folder, **how)  # type: ignore[arg-type]


def case_of(
    channels: int,
    outputs: int,
    bits: str,
    geometry: Geometry,
    *,
    zero: int = 0,
    size: tuple[int, int, int] = (2, 7, 6),
) -> Case:
    rng = np.random.default_rng(channels + outputs)
    precision = Precision.parse(bits)
    drawn = random_codes(rng, (outputs, channels, *geometry.kernel), precision.weight_bits)
    layer = APConv2d.of(
        from_codes(drawn, precision.weights),
        torch.from_numpy(rng.uniform(0.5, 2, outputs).astype(np.float32)),
        precision,
        zero=zero,
        bias=torch.from_numpy(rng.normal(0, 1, outputs).astype(np.float32)),
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
    )
    codes = random_codes(rng, (*size, channels), precision.activation_bits)
    return Case(layer, codes, geometry)


SAME = Geometry((3, 3), (1, 1), (1, 1), (1, 1))
HALVES = Geometry((3, 3), (2, 2), (1, 1), (1, 1))
POINT = Geometry((1, 1), (2, 2), (0, 0), (1, 1))
ODD = Geometry((3, 2), (1, 2), (0, 1), (2, 1))


@emulated
@pytest.mark.parametrize(
    ("tile", "channels", "bits", "zero", "geometry", "size"),
    [
        (SMALL, 64, "w1a2", 0, SAME, (2, 7, 6)),
        (DirectTile(32, 1), 128, "w1a2", 1, HALVES, (3, 9, 9)),
        (DirectTile(64, 1), 70, "w2a1", 0, ODD, (2, 7, 6)),
        (DirectTile(32, 2), 192, "w1a1", 0, POINT, (2, 7, 6)),
        (DirectTile(32, 3), 64, "w1a3", 3, SAME, (3, 2, 3)),
        (DirectTile(64, 1), 512, "w1a2", 0, SAME, (1, 3, 3)),
        (DirectTile(32, 2), 64, "w3a3", 2, SAME, (1, 4, 5)),
        (DirectTile(32, 2), 1024, "w1a1", 0, SAME, (1, 2, 2)),
    ],
    ids=str,
)
def test_whole_numbers(
    tile: DirectTile,
    channels: int,
    bits: str,
    zero: int,
    geometry: Geometry,
    size: tuple[int, int, int],
    folder: Path,
) -> None:
    case = case_of(channels, 40, bits, geometry, zero=zero, size=size)
    window = Window(geometry.taps, geometry.kernel[1], padded(channels) // 8)
    assert tile.problem(case.layer.precision, window) is None
    out = poisoned(case.rows.count, 40, dtype=torch.int32)
    case.run(Outputs(out), tile, folder)
    assert torch.equal(out.long(), case.whole())


@emulated
@pytest.mark.parametrize("kind", ["codes", "real", "both"])
@pytest.mark.parametrize(
    ("tile", "outputs", "bits_out", "zero_out"),
    [(SMALL, 72, 3, 1), (DirectTile(64, 3), 64, 2, 0), (SMALL, 96, 1, 0)],
    ids=str,
)
def test_outputs_and_codes_for_the_next_layer(
    tile: DirectTile, outputs: int, bits_out: int, zero_out: int, kind: str, folder: Path
) -> None:
    case = case_of(64, outputs, "w1a2", SAME)
    count, layer = case.rows.count, case.layer
    residual = torch.randn(count, outputs).mul(9).half() if kind == "both" else None
    out = None if kind == "codes" else poisoned(count, outputs, dtype=torch.float16)
    made = torch.zeros(count, bits_out, padded(outputs) // 8, dtype=torch.uint8)
    step, relu = torch.tensor(3.7), kind != "real"
    codes = None if kind == "real" else made
    case.run(Outputs(out, codes, step, zero_out, residual, relu), tile, folder, seed=3)
    counted = (case.whole() - layer.constants.long()).double()
    number = (counted * layer.factor.double() + layer.shift.double()).float()
    number = number if residual is None else number + residual.float()
    number = number.clamp_min(0) if relu else number
    if out is not None:
        assert torch.equal(out, number.half())
    if kind != "real":
        expected = integers(number, step, unsigned(bits_out, zero_out)) + zero_out
        assert torch.equal(unpack_planes(made, outputs).float(), expected)
        assert (unpack_planes(made, padded(outputs))[:, outputs:] == 0).all()


FAULTS = {
    "codes replaced while products read them": ("wait_products<1>();", ""),
    "weights in the order of memory": (
        "make_uint4(words[0][i], words[1][i]",
        "make_uint4(words[1][i], words[0][i]",
    ),
}


@emulated
@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults_are_found(fault: str, folder: Path) -> None:
    case = case_of(128, 32, "w1a1", SAME, size=(1, 4, 4))
    out = poisoned(case.rows.count, 32, dtype=torch.int32)
    try:
        case.run(Outputs(out), SMALL, folder, fault=FAULTS[fault])
        right = torch.equal(out.long(), case.whole())
    except AssertionError:
        right = False
    assert not right


def test_what_does_not_fit_a_fused_convolution_is_refused() -> None:
    case = case_of(64, 32, "w1a2", SAME)
    planes, sums = pack_rows(case.codes.flatten(0, 2), 2)
    weights, half = case.layer.weights(), torch.zeros(2, 32, 7, 6).half()
    low = LowBit(planes, sums, (2, 64, 7, 6), 64, weights.inputs, weights.step)
    for residual in (half[:1], half.float()):
        with pytest.raises(NasError, match="Expected a residual of"):
            conv2d_fused(low, weights, SAME, real=True, residual=residual)
    with pytest.raises(NasError, match="has to write codes"):
        conv2d_fused(low, weights, SAME)
    with pytest.raises(NasError, match="codes of 64 channels, got 60"):
        conv2d_fused(replace(low, features=60), weights, SAME, real=True)


def test_the_path_of_a_convolution() -> None:
    hopper = Device("cuda", 0, "NVIDIA H100", (9, 0), 132, 80 << 30)
    ampere = replace(hopper, name="NVIDIA A100", capability=(8, 0), cores=108)
    for bits, device, dtype, wanted in (
        ("w1a2", hopper, "float16", "direct"),
        ("w2a2", hopper, "bfloat16", "direct"),
        ("w1a2", hopper, "float32", "bytes"),
        ("w8a8", hopper, "float16", "bytes"),
        ("w8a8", hopper, "codes", "int8"),
        ("w1a2", ampere, "float16", "bytes"),
        ("w8a8", replace(ampere, capability=(8, 9)), "float16", "int8"),
    ):
        shape, out = (8, 64, 56, 56), (8, 64, 56, 56)
        workload = conv_workload(shape, out, (3, 3), Precision.parse(bits), dtype=dtype)
        assert select(workload, device).name == wanted


def test_tiles_fit_and_one_is_chosen_for_every_layer_of_a_resnet() -> None:
    for bits in ("w1a1", "w1a2", "w2a2"):
        precision = Precision.parse(bits)
        for channels, side in ((64, 56), (128, 28), (256, 14), (512, 7)):
            window = Window(9, 3, channels // 8)
            assert list(tiles(precision, window))
            for batch in (1, 8, 128):
                assert choose(precision, window, batch * side**2, channels, 132) is not None
    assert not list(tiles(Precision(4, 8), Window(9, 3, 64)))


def test_the_choice_is_within_7_percent_of_the_best_tile_that_was_measured() -> None:
    """Rows: channels, taps, output pixels, outputs; then a tile's outputs and microseconds."""
    path = Path(__file__).with_name("low_bit_direct_h100.json")
    chosen = fastest = 0.0
    for channels, taps, pixels, outputs, *measured in json.loads(path.read_text()):
        window = Window(taps, 3 if taps > 1 else 1, channels // 8)
        times = dict(measured)
        tile = choose(Precision(1, 2), window, pixels, outputs, 132)
        assert tile is not None
        assert times[tile.features] <= 1.07 * min(times.values()), (channels, pixels, times)
        chosen, fastest = chosen + times[tile.features], fastest + min(times.values())
    assert chosen <= 1.01 * fastest
