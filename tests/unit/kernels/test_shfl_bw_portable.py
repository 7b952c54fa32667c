"""The Triton kernel of Shfl-BW without a GPU: run by Triton's interpreter, compiled for sm_80."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INTERPRETED = """
import torch
from torch.nn import functional as F
from kernels.shfl_bw.activation import FUNCTIONS
from kernels.shfl_bw.checks import uneven
from kernels.shfl_bw.packed import pack
from kernels.shfl_bw.pattern import like_weight
from kernels.shfl_bw.portable import Tile, shfl_bw_conv2d_portable, shfl_bw_portable, tiles_of
from kernels.shfl_bw.window import Window

def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

def error(found, expected):
    return (found.double() - expected).norm() / expected.norm()

for v, rows, tokens, counts, act, feature_major in (
    (16, 45, 70, (40, 0, 65), "none", False),
    (32, 64, 130, (100, 33), "gelu", True),
    (64, 128, 33, (1, 100), "hardswish", True),
    (128, 128, 64, (0,), "silu", False),
):
    pattern, weight = uneven(rows, 100, v, counts)
    bias, x = normal(rows, seed=1), normal(tokens, 100, seed=2)
    packed = pack(weight, pattern)
    exact = FUNCTIONS[act](F.linear(x.double(), weight.double() * pattern.mask, bias.double()))
    given = x.T.contiguous() if feature_major else x
    for tile in (None, Tile(64, 32)):
        y = shfl_bw_portable(
            given, *packed.tensors(), bias, out_features=rows, activation=act,
            feature_major=feature_major, tile=tile,
        )
        y = y.T if feature_major else y
        assert y.shape == exact.shape and error(y, exact) < 1e-6, (v, tile, error(y, exact))

pattern, weight = uneven(64, 70, 32, (40, 65))
x = normal(9, 70, seed=1)
x[3, 0], x[5, 69] = float("inf"), float("nan")
y = shfl_bw_portable(x, *pack(weight, pattern).tensors(), out_features=64)
hit = torch.zeros(9, 64, dtype=torch.bool)
hit[3, pattern.mask[:, 0]] = True
hit[5, pattern.mask[:, 69]] = True
assert torch.equal(~y.isfinite(), hit)

for window, channels, size, batch in (
    (Window((3, 3), (2, 2), (1, 1)), 8, (5, 7), 5),
    (Window((3, 2), (2, 1), (2, 3), (2, 3)), 8, (6, 5), 4),
    (Window((1, 1)), 40, (3, 3), 8),
):
    pattern, flat = uneven(32, channels * window.taps, 16, (20, 33))
    filters = like_weight(flat, (32, channels, *window.kernel))
    x = normal(batch, channels, *size)
    masked = filters.double() * like_weight(pattern.mask, filters.shape)
    exact = F.conv2d(x.double(), masked, None, window.stride, window.padding, window.dilation)
    y = shfl_bw_conv2d_portable(
        x, *pack(filters, pattern).tensors(), out_features=32, window=window
    )
    assert y.shape == exact.shape and error(y, exact) < 1e-6, window
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kernels.shfl_bw.portable import tile_for
from kernels.shfl_bw.triton_kernels import gather_product as kernel

pointers = {"x": "*fp16", "values": "*fp16", "bias": "*fp32", "y": "*fp16"}
numbers = {"columns", "shifts", "offsets", "order", "rows"}
for v in (16, 32, 64, 128):
    for conv in (False, True):
        tile = tile_for(v, 4096)
        constants = dict(
            V=v, TOKENS=tile.tokens, DEPTH=tile.depth, KIND=5, BIASED=True, CONV=conv
        )
        signature = {
            name: "constexpr" if name in constants else pointers.get(
                name, "*i32" if name in numbers else "i32"
            )
            for name in kernel.arg_names
        }
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(kernel.arg_names)
            if name in pointers or name in numbers or name in ("tokens", "pitch")
        }
        source = ASTSource(kernel, signature, constants, aligned)
        made = triton.compile(
            source,
            target=GPUTarget("cuda", 80, 32),
            options={"num_warps": tile.warps, "num_stages": tile.stages},
        )
        text = made.asm["ptx"]
        assert "mma.sync" in text and "cp.async" in text, (v, conv)
        assert made.metadata.shared <= 163 << 10
"""


@pytest.mark.parametrize("what", ["interpreted", "compiled"])
def test_without_a_gpu(what: str) -> None:
    pytest.importorskip("triton")
    interpreted = what == "interpreted"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERPRETED if interpreted else COMPILED],
        capture_output=True,
        text=True,
        env={**os.environ, **({"TRITON_INTERPRET": "1"} if interpreted else {})},
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr[-3000:]
