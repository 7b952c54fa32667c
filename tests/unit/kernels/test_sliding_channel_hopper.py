"""The Hopper kernels of sliding-channel convolution without a GPU: compiled, and emulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kernels.jit import compile_cuda, read_source
from kernels.sliding_channel import launch, plan_hopper, routes
from kernels.sliding_channel.packing import dense_matrix, pack
from kernels.sliding_channel.plan import Plan, Structure, loses_to_dense, shared_limit
from tests.emulator import Emulated, missing

OF_RECORD = (
    Structure(256, 256, 128, 64),
    Structure(256, 256, 64, 32),
    Structure(512, 512, 256, 128),
    Structure(512, 512, 128, 64),
    Structure(128, 256, 64, 32),
)
FORWARD = (
    Structure(64, 64, 64, 64),  # pointwise
    Structure(128, 128, 64, 64),  # two windows without overlap
    Structure(64, 128, 32, 16),
    Structure(128, 256, 32, 16),  # eight windows
    Structure(512, 512, 256, 128),  # two blocks share a pixel, four stages a tile
)
GRADIENT = (
    Structure(128, 128, 64, 64),
    Structure(128, 256, 64, 32),
    Structure(256, 256, 64, 32),
    Structure(256, 256, 64, 96),  # windows do not rise with the output
    Structure(512, 512, 256, 128),
)
FAULTS = {
    "a part taken twice": ("forward", "place(slot + PART);", "place(slot);"),
    "products not waited for": ("forward", "    wait_products<0>();\n", ""),
    "registers of a product overwritten": (
        "input_gradient",
        "wait_products<AHEAD - 1>();",
        "",
    ),
    "the last products not waited for": ("input_gradient", "  wait_products<0>();\n", ""),
}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half()


def plan_of(name: str, s: Structure, **chosen: Any) -> Plan:
    rule = {
        "forward": plan_hopper.forward_plan,
        "input_gradient": plan_hopper.input_gradient_plan,
    }[name]
    return rule(s, **chosen)


@pytest.fixture(scope="session", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing():
        pytest.skip(missing())
    return tmp_path_factory.mktemp("emulated")


def wrong(
    name: str,
    s: Structure,
    folder: Path,
    *,
    pixels: int = 150,
    blocks: int = 2,
    bias: bool = False,
    seed: int = 0,
    fault: tuple[str, str] | None = None,
    **chosen: int,
) -> float:
    """Run an emulated kernel and return its relative error against float64."""
    plan = plan_of(name, s, **chosen, **({"bias": True} if bias else {}))
    kernel = Emulated(
        launch.SOURCES / plan.file,
        f"sliding_{name}",
        {**dict(plan.defines), "HOPPER": 1},
        folder,
        seed=seed,
        fault=fault,
    )
    forward = name == "forward"
    weight = normal(s.c_out, s.width, seed=1)
    images = normal(pixels, s.c_in if forward else s.c_out)
    (packed,) = pack(weight, s, (plan.file,))
    found = torch.full((pixels, s.c_out if forward else s.c_in), float("nan"), dtype=torch.half)
    added = normal(s.c_out, seed=2).float() if bias else None
    kernel(
        (blocks, plan.split),
        (plan.threads,),
        (images, packed, *((added,) if forward else ()), found, np.int64(pixels)),
        shared_bytes=plan.shared_bytes,
    )
    matrix = dense_matrix(weight, s).double()
    expected = images.double() @ (matrix.T if forward else matrix)
    if added is not None:
        expected += added
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("s", FORWARD, ids=str)
def test_the_forward_product_equals_float64(s: Structure, bias: bool, folder: Path) -> None:
    assert wrong("forward", s, folder, bias=bias, seed=3 * bias) < 3e-4


@pytest.mark.parametrize("s", GRADIENT, ids=str)
def test_the_input_gradient_equals_float64(s: Structure, folder: Path) -> None:
    assert wrong("input_gradient", s, folder) < 3e-4
    assert wrong("input_gradient", s, folder, pixels=7, blocks=1, seed=5) < 3e-4


@pytest.mark.parametrize("name", ["forward", "input_gradient"])
def test_the_shortest_ring_of_stages_serves_many_tiles(name: str, folder: Path) -> None:
    s = Structure(128, 128, 64, 64)
    assert wrong(name, s, folder, pixels=600, blocks=1, seed=7, CHANNELS=64, STAGES=3) < 3e-4


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_the_order_of_things_are_found(fault: str, folder: Path) -> None:
    name, *texts = FAULTS[fault]
    s = Structure(256, 256, 128, 64)
    try:
        error = wrong(name, s, folder, pixels=200, blocks=1, seed=1, fault=(texts[0], texts[1]))
    except AssertionError:
        return
    assert not error < 1e-2


@pytest.mark.parametrize("s", OF_RECORD, ids=str)
def test_the_shapes_of_record_are_taken(s: Structure) -> None:
    hopper = ("forward_hopper.cu", "input_gradient_hopper.cu", "weight_gradient.cu")
    assert routes.route(s, (9, 0), few=False) == hopper
    few = ampere = ("forward.cu", "input_gradient.cu", "weight_gradient.cu")
    if loses_to_dense(s):
        few, ampere = ("dense", "input_gradient.cu", "dense"), ("dense", "dense", ampere[2])
    assert routes.route(s, (9, 0), few=True) == few
    assert routes.route(s, (8, 0), few=False) == ampere
    assert routes.route(s, None, few=False) == ("dense",) * 3
    for name in ("forward", "input_gradient"):
        assert plan_of(name, s).constant("STAGES") >= 4
        assert plan_of(name, s).shared_bytes <= shared_limit((9, 0))


@pytest.mark.parametrize(
    ("s", "forward", "gradient"),
    [
        (Structure(128, 256, 32, 8), "multiples of 16 channels", "2, 4 or 8 outputs, not 16"),
        (Structure(192, 192, 64, 64), "1, 2, 4 or 8 outputs, not 3", "2, 4 or 8 outputs, not 3"),
        (
            Structure(256, 96, 128, 64),
            "(16, 32, 64, 128) times 4, not 96",
            "multiple of 128, not 96",
        ),
        (Structure(192, 192, 96, 48), "times 4, not 192", "32, 64 or 128 channels, not 48"),
        (Structure(128, 256, 32, 16), "None", "32, 64 or 128 channels, not 16 of 32"),
        (Structure(1024, 1024, 512, 256), "bytes of weights do not fit", "not 256 of 512"),
    ],
)
def test_shapes_without_a_kernel_say_why(s: Structure, forward: str, gradient: str) -> None:
    assert forward in str(plan_hopper.refuses_forward(s))
    assert gradient in str(plan_hopper.refuses_input_gradient(s))


@pytest.mark.parametrize("bfloat", [False, True])
@pytest.mark.parametrize("name", ["forward", "input_gradient"])
@pytest.mark.parametrize("s", OF_RECORD[1:3], ids=str)
def test_sources_compile_without_spills_or_waits(
    name: str, s: Structure, bfloat: bool, tmp_path: Path
) -> None:
    plan = plan_of(name, s)
    options = [f"-D{key}={value}" for key, value in plan.defines] + ["-std=c++17"]
    made = compile_cuda(
        read_source(launch.SOURCES / plan.file),
        name=name,
        options=options + ["-DBFLOAT"] * bfloat,
        cache_dir=tmp_path,
    )
    used = made.functions[f"sliding_{name}"]
    assert used.spill_bytes == used.stack_bytes == 0
    # ptxas says so where it ignores setmaxnreg or has to wait after every product.
    assert not any(word in made.log for word in ("ignored", "serializ"))
