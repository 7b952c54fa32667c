"""The CUDA sources of arbitrary precision, compiled for the cases of record without a GPU."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from kernels.arbitrary_precision import plan_direct
from kernels.arbitrary_precision.launch import compiled
from kernels.arbitrary_precision.plan import Tile, choose, estimate, tiles
from kernels.arbitrary_precision.plan_direct import Window
from kernels.arbitrary_precision.precision import Precision

HOPPER, AMPERE = ((9, 0), 132, "sm_90a"), ((8, 0), 108, "sm_80")
CASES = (
    # precision, tokens, outputs, tiles along k, OUT, IMAGES, UNIT
    ("w1a1", 4096, 4096, 4, 1, 0, 16),
    ("w1a2", 4096, 4096, 4, 2, 0, 16),
    ("w2a2", 4096, 4096, 4, 2, 0, 16),
    ("w1a2", 64, 4096, 4, 2, 0, 16),
    ("w1a2", 401408, 64, 1, 2, 1, 8),
    ("w4a4", 6272, 512, 5, 2, 1, 16),
    ("w4a4", 4096, 4096, 4, 2, 0, 16),
)


def nvdisasm() -> str | None:
    """The disassembler: of the system, or of the package nvidia-cuda-nvdisasm."""
    spec = find_spec("nvidia")
    roots = [] if spec is None else list(spec.submodule_search_locations or [])
    packaged = [path for root in roots for path in Path(root).glob("*/bin/nvdisasm")]
    return shutil.which("nvdisasm") or (str(packaged[0]) if packaged else None)


def emulated(text: str) -> list[str]:
    """Routines with tensor core products in them: what the hardware lacks is done by a call."""
    targets = set(re.findall(r"CALL\.\S+ `\((\S+)\)", text))
    routines = [text.partition(f"{target}:\n")[2].partition("RET.")[0] for target in targets]
    return [routine for routine in routines if "MMA" in routine]


def constants(tile: Tile, precision: Precision, case: tuple) -> dict[str, int]:  # type: ignore[type-arg]
    out, images, unit = case[4:]
    return {**tile.defines(precision), "OUT": out, "IMAGES": images, "UNIT": unit}


@pytest.mark.parametrize("device", [HOPPER, AMPERE], ids=lambda device: device[2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_products_compile_without_spills(case: tuple, device: tuple) -> None:  # type: ignore[type-arg]
    precision = Precision.parse(case[0])
    capability, sms, arch = device
    tile = choose(precision, *case[1:4], sms=sms, capability=capability)
    assert tile is not None
    file = "product_sm90.cu" if tile.path == "wgmma" else "product_sm80.cu"
    assert tile.path == ("wgmma" if device is HOPPER else "mma")
    kernel = compiled(file, constants(tile, precision, case), arch)
    resources = kernel.functions["low_bit_product"]
    assert resources.spill_bytes == 0, (tile, resources)
    assert resources.registers <= 65536 // tile.threads
    assert "ignored" not in kernel.log  # setmaxnreg
    tool = nvdisasm()
    if tool is None:
        pytest.skip("compiled; no nvdisasm to read the instructions with")
    text = subprocess.run([tool, "-c", str(kernel.path)], capture_output=True, text=True).stdout
    assert not emulated(text)
    wanted = r"BGMMA\.64x\d+x256\.AND\.POPC" if tile.path == "wgmma" else r"BMMA\.168256\.AND\.POPC"
    assert re.search(wanted, text)


@pytest.mark.parametrize(
    ("channels", "pixels", "outputs", "out"),
    [(64, 401408, 64, 6), (64, 25088, 64, 4), (128, 100352, 128, 6), (512, 392, 512, 4)],
)
def test_direct_convolutions_compile_without_spills(
    channels: int, pixels: int, outputs: int, out: int
) -> None:
    precision, window = Precision(1, 2), Window(9, 3, channels // 8)
    tile = plan_direct.choose(precision, window, pixels, outputs, 132)
    assert tile is not None
    own = {"OUT": out, "IMAGES": 1, "RESIDUAL": int(out == 6), "RELU": 1, "Q_OUT": 2}
    defines = {**tile.defines(precision, window), **own, "SMALL_SUMS": 1}
    kernel = compiled("direct_sm90.cu", defines, "sm_90a")
    assert kernel.functions["low_bit_direct"].spill_bytes == 0
    assert "C75" not in kernel.log  # products that ptxas makes wait for each other
    tool = nvdisasm()
    if tool is None:
        pytest.skip("compiled; no nvdisasm to read the instructions with")
    text = subprocess.run([tool, "-c", str(kernel.path)], capture_output=True, text=True).stdout
    assert not emulated(text)
    products = re.findall(r"BGMMA\.64x\d+x256\.AND\.POPC R\d+, R\d+, gdesc", text)
    assert len(products) == 2 * window.turns * window.unit // 8  # two planes, rows in registers


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("lanes", [8, 32])
@pytest.mark.parametrize("size", [2, 4])
def test_packing_compiles(arch: str, lanes: int, size: int) -> None:
    kernel = compiled("pack.cu", {"Q": 2, "LANES": lanes, "INPUT": size}, arch)
    assert kernel.functions["low_bit_pack"].spill_bytes == 0


def test_tiles_are_those_a_device_can_run() -> None:
    for bits in ("w1a1", "w1a2", "w2a2", "w4a4"):
        precision = Precision.parse(bits)
        for capability in ((8, 0), (8, 6), (8, 9), (9, 0)):
            found = list(tiles(precision, capability))
            assert found, (bits, capability)
            assert all(tile.path == "mma" for tile in found) or capability == (9, 0)
    assert list(tiles(Precision(2, 8), (8, 0)))
    assert not list(tiles(Precision(2, 8), (8, 6)))  # eight planes of two tiles: too much memory
    assert not list(tiles(Precision(8, 8), (9, 0)))
    assert not list(tiles(Precision(1, 2), (12, 0)))
    assert not list(tiles(Precision(1, 2), (7, 5)))


def test_the_choice_is_within_3_percent_of_the_best_tile_that_was_measured() -> None:
    """Keys: precision, outputs, tokens, k, bytes of an output; rows: a tile, microseconds."""
    measured = json.loads(Path(__file__).with_name("low_bit_tiles_h100.json").read_text())
    seen = errors = 0.0
    for case, rows in measured.items():
        bits, *numbers = case.split()
        m, n, k, output_bytes = map(int, numbers)
        precision, size = Precision.parse(bits), (n, m, -(-k // 1024))
        times = {
            Tile("wgmma", f, s, g, 1, stages, cluster, bool(pingpong)): time
            for f, s, g, stages, cluster, pingpong, time in rows
        }
        offered = set(tiles(precision, (9, 0)))
        timed = {tile: time for tile, time in times.items() if tile in offered}
        best = min(timed, key=lambda t: estimate(t, precision, size, output_bytes, 132))
        if n > 64:  # there tiles of 32 outputs, which were not timed, are chosen
            settings = {"sms": 132, "capability": (9, 0), "output_bytes": output_bytes}
            assert choose(precision, *size, **settings) == best  # type: ignore[arg-type]
        assert timed[best] <= 1.03 * min(times.values()), (case, best)
        for tile, time in timed.items():
            errors += math.log(estimate(tile, precision, size, output_bytes, 132) / time) ** 2
            seen += 1
    assert math.sqrt(errors / seen) < 0.1


def test_few_tokens_take_small_tiles_and_many_take_large_ones() -> None:
    few = choose(Precision(1, 2), 64, 4096, 4, sms=132, capability=(9, 0))
    many = choose(Precision(1, 2), 4096, 4096, 4, sms=132, capability=(9, 0))
    assert few is not None
    assert many is not None
    assert few.tokens * few.features < many.tokens * many.features
    assert -(-4096 // few.features) >= 64
