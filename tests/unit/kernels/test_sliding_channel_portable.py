"""The portable kernels of sliding-channel convolution without a GPU: emulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kernels.sliding_channel import launch, plan
from kernels.sliding_channel.packing import dense_matrix, pack, window_entries
from kernels.sliding_channel.plan import Structure
from tests.emulator import Emulated, missing

WEIGHTS = (
    (Structure(64, 64, 32, 16), 5),  # two warps share a tile
    (Structure(64, 64, 32, 16), 70),
    (Structure(128, 128, 64, 64), 150),  # two slices of outputs, windows without overlap
    (Structure(64, 64, 64, 64), 150),  # pointwise
    (Structure(64, 128, 16, 8), 150),  # eight windows
)


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing():
        pytest.skip(missing())
    return tmp_path_factory.mktemp("emulated")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half()


@pytest.mark.parametrize("name", ["forward", "input_gradient"])
@pytest.mark.parametrize(
    "s",
    [
        Structure(64, 128, 16, 8),  # eight windows
        Structure(128, 64, 64, 32),
        Structure(128, 128, 64, 96),  # windows do not rise with the output
    ],
    ids=str,
)
def test_products_equal_float64(s: Structure, name: str, folder: Path) -> None:
    pixels, forward = 70, name == "forward"
    rule = plan.forward_plan if forward else plan.input_gradient_plan
    chosen = rule(s, pixels, sms=132, capability=(8, 0))
    weight = normal(s.c_out, s.width, seed=1)
    images = normal(pixels, s.c_in if forward else s.c_out)
    (packed,) = pack(weight, s, (chosen.file,))
    found = torch.full((pixels, s.c_out if forward else s.c_in), float("nan"), dtype=torch.half)
    Emulated(launch.SOURCES / chosen.file, f"sliding_{name}", dict(chosen.defines), folder, seed=2)(
        (2, chosen.split),
        (chosen.threads,),
        (images, packed, *((None,) if forward else ()), found, np.int64(pixels)),
        shared_bytes=chosen.shared_bytes,
    )
    matrix = dense_matrix(weight, s).double()
    exact = images.double() @ (matrix.T if forward else matrix)
    assert float((found.double() - exact).norm() / exact.norm()) < 3e-4


@pytest.mark.parametrize(("s", "pixels"), WEIGHTS, ids=str)
def test_the_weights_gradient_equals_float64(s: Structure, pixels: int, folder: Path) -> None:
    chosen = plan.weight_gradient_plan(s, pixels, sms=132, capability=(9, 0))
    constants = {**dict(chosen.defines), "HOPPER": 1}
    x, dy = normal(pixels, s.c_in), normal(pixels, s.c_out, seed=1)
    dw = torch.full((s.c_out, s.width), float("nan"), dtype=torch.half)
    slots = 2 * plan.slots_per_block(chosen)
    sums = torch.full((slots, *dw.shape), float("nan"))
    source = launch.SOURCES / chosen.file
    Emulated(source, "sliding_weight_gradient", constants, folder, seed=pixels)(
        (2, chosen.split),
        (chosen.threads,),
        (x, dy, sums, np.int64(pixels)),
        shared_bytes=chosen.shared_bytes,
    )
    Emulated(source, "sliding_add_slots", constants, folder, seed=pixels)(
        (dw.numel() // 128,), (256,), (sums, dw, np.int32(slots))
    )
    exact = window_entries(dy.double().T @ x.double(), s)
    assert float((dw.double() - exact).norm() / exact.norm()) < 3e-4
