"""Bytes in Triton without a GPU: run by its interpreter, compiled for sm_80 and sm_90."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.arbitrary_precision.bytes_path import tile_for

INTERPRETED = """
import torch
from kernels.arbitrary_precision import bytes_path, exact_path
from kernels.arbitrary_precision.bytes_path import Tile
from kernels.arbitrary_precision.module import APConv2d, APLinear
from kernels.arbitrary_precision.operands import Geometry
from kernels.arbitrary_precision.planes import from_codes
from kernels.arbitrary_precision.precision import Precision

torch.manual_seed(0)
PARTS = [float("nan"), float("inf"), -float("inf"), 0.5, 1.5, 2.5, -0.5, -1.5]

def drawn(precision, *shape):
    codes = torch.randint(0, 1 << precision.weight_bits, shape, dtype=torch.uint8)
    return from_codes(codes, precision.weights), torch.rand(len(codes)) + 0.5

for bits, zero, (n, m, k), tile in (
    ("w8a8", 128, (33, 40, 70), None),
    ("w8a8", 0, (70, 24, 64), Tile(64, 64, 64, 4, 3)),
    ("w8a8", 255, (5, 130, 100), None),
    ("w4a8", 75, (130, 72, 300), Tile(32, 32, 128, 4, 3)),
    ("w1a3", 3, (1, 8, 32), None),
):
    precision = Precision.parse(bits)
    weights, scale = drawn(precision, m, k)
    bias = torch.randn(m)
    layer = APLinear.of(weights, scale, precision, step=0.375, zero=zero, bias=bias)
    x = torch.randn(n, k) * 60 * 0.375
    x[0, :8] = torch.tensor(PARTS) * 0.375
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        found = bytes_path.linear(x.to(dtype), layer.weights(), tile=tile)
        expected = exact_path.linear(x.to(dtype), layer.weights()).to(dtype)
        assert found.dtype == dtype and found.shape == expected.shape
        rtol = 1e-6 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-3)

for bits, zero, shape, m, places in (
    ("w8a8", 100, (2, 20, 7, 5), 24, ((3, 3), (1, 1), (1, 1), (1, 1))),
    ("w8a8", 128, (1, 64, 8, 8), 70, ((3, 2), (2, 1), (2, 0), (2, 1))),
    ("w5a8", 0, (3, 16, 6, 6), 8, ((1, 1), (2, 2), (0, 0), (1, 1))),
    ("w8a8", 200, (2, 16, 6, 6), 8, ((1, 1), (1, 1), (0, 0), (1, 1))),
):
    g, precision = Geometry(*places), Precision.parse(bits)
    weights, scale = drawn(precision, m, shape[1], *g.kernel)
    names = dict(stride=g.stride, padding=g.padding, dilation=g.dilation)
    layer = APConv2d.of(weights, scale, precision, zero=zero, bias=torch.randn(m), **names)
    for form in (torch.contiguous_format, torch.channels_last):
        x = (torch.randn(shape) * 60).contiguous(memory_format=form)
        found = bytes_path.conv2d(x, layer.weights(), g)
        expected = exact_path.conv2d(x, layer.weights(), g)
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-2)

nothing = APLinear(70, 8, Precision(8, 8)).weights()
assert bytes_path.linear(torch.empty(0, 70), nothing).shape == (0, 8)
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kernels.arbitrary_precision.bytes_path import tile_for
from kernels.arbitrary_precision.triton_kernels import byte_product as kernel

pointers = {
    "x": "*i8", "w": "*i8", "sums": "*i32", "factor": "*fp32", "offset": "*fp32", "y": "*fp16"
}
for window in (False, True):
    for tile in dict.fromkeys(tile_for(*size, window=window) for size in SIZES):
        constants = dict(
            PIXELS=tile.pixels, OUTPUTS=tile.outputs, DEPTH=tile.depth, EVEN=window, WINDOW=window
        )
        signature = {
            name: "constexpr" if name in constants else pointers.get(name, "i32")
            for name in kernel.arg_names
        }
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(kernel.arg_names)
            if name in pointers or name in ("outputs", "depth")
        }
        made = triton.compile(
            ASTSource(kernel, signature, constants, aligned),
            target=GPUTarget("cuda", ARCH, 32),
            options={"num_warps": tile.warps, "num_stages": tile.stages},
        )
        text = made.asm["ptx"]
        wide = ARCH == 90 and tile.pixels >= 64
        assert ("wgmma.mma_async" if wide else "mma.sync") in text, (tile, window)
        assert ".s32.s8.s8" in text and "cp.async.cg" in text, (tile, window)
        assert made.metadata.shared <= ((227 if ARCH == 90 else 163) << 10), (tile, window)
"""


@pytest.mark.parametrize("what", ["interpreted", "80", "90"])
def test_without_a_gpu(what: str) -> None:
    pytest.importorskip("triton")
    sizes = "SIZES = [(1, 64), (64, 4096), (9999, 64), (9999, 128), (1024, 768), (4096, 4096)]\n"
    program = INTERPRETED if what == "interpreted" else f"ARCH = {what}\n{sizes}{COMPILED}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **({"TRITON_INTERPRET": "1"} if what == "interpreted" else {})},
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_choice_is_within_15_percent_of_the_best_tile_that_was_measured() -> None:
    """Rows: pixels, outputs and whether there is a window; then tiles and microseconds."""
    for row in json.loads(Path(__file__).with_name("low_bit_bytes_h200.json").read_text()):
        pixels, outputs, window = row["size"]
        t = tile_for(pixels, outputs, window=window)
        chosen = ",".join(map(str, (t.pixels, t.outputs, t.depth, t.warps, t.stages)))
        assert row["us"][chosen] <= 1.15 * min(row["us"].values()), row["case"]
