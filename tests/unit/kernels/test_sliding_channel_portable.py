"""The portable kernels of sliding-channel convolution without a GPU: emulated, and compiled."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from kernels.jit import compile_cuda, read_source
from kernels.sliding_channel import launch, plan, plan_hopper
from kernels.sliding_channel.packing import dense_matrix, pack, window_entries
from kernels.sliding_channel.plan import Structure
from tests.emulator import Emulated, missing

SMALL = Structure(64, 64, 32, 16)  # two warps share a tile
OTHERS = (
    (Structure(128, 128, 64, 64), 4),  # two slices of outputs, windows without overlap
    (Structure(64, 64, 64, 64), 2),  # pointwise
    (Structure(64, 128, 16, 8), 2),  # eight windows
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


def wrong(
    s: Structure,
    folder: Path,
    *,
    cluster: int,
    pixels: int = 70,
    seed: int = 0,
    fault: tuple[str, str] | None = None,
) -> float:
    """Run the emulated kernels and return the gradient's relative error against float64."""
    chosen = plan_hopper.weight_gradient_plan(s, pixels, sms=132, CLUSTER=cluster)
    constants = {**dict(chosen.defines), "HOPPER": 1}

    def kernel(function: str) -> Emulated:
        source = launch.SOURCES / chosen.file
        return Emulated(
            source, function, constants, folder, together=cluster, seed=seed, fault=fault
        )

    x, dy = normal(pixels, s.c_in), normal(pixels, s.c_out, seed=1)
    dw = torch.full((s.c_out, s.width), float("nan"), dtype=torch.half)
    blocks = max(2, cluster)
    slots = blocks * plan.slots_per_block(chosen)
    sums = dw if cluster > 1 else torch.full((slots, *dw.shape), float("nan"))
    kernel("sliding_weight_gradient")(
        (blocks, chosen.split),
        (chosen.threads,),
        (x, dy, sums, np.int64(pixels)),
        shared_bytes=chosen.shared_bytes,
    )
    if cluster == 1:
        kernel("sliding_add_slots")((dw.numel() // 128,), (256,), (sums, dw, np.int32(slots)))
    exact = window_entries(dy.double().T @ x.double(), s)
    return float((dw.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("cluster", [1, 2])
@pytest.mark.parametrize("pixels", [5, 70])
def test_the_weights_gradient_with_slots_and_in_a_cluster(
    cluster: int, pixels: int, folder: Path
) -> None:
    assert wrong(SMALL, folder, cluster=cluster, pixels=pixels, seed=pixels) < 3e-4


@pytest.mark.parametrize(("s", "cluster"), OTHERS, ids=str)
def test_other_windows_and_clusters(s: Structure, cluster: int, folder: Path) -> None:
    assert wrong(s, folder, cluster=cluster, pixels=150, seed=3) < 3e-4


def test_sums_that_are_read_too_early_are_found(folder: Path) -> None:
    fault = ("cluster_rank() * part;\n  meet_cluster();\n", "cluster_rank() * part;\n")
    assert not wrong(SMALL, folder, cluster=2, fault=fault) < 1e-2


def test_sums_fit_where_tiles_were() -> None:
    sizes = (64, 128, 256, 512, 1024)
    taken = 0
    for c_in, c_out, cg, shifts in product(sizes, sizes, (1, 2, 4, 8), (1, 2)):
        s = Structure(c_in, c_out, c_in // cg, c_in // cg // shifts)
        for pixels in (1, 49, 512, 2048, 4096):
            if plan_hopper.refuses_cluster(s, pixels) is not None:
                continue
            taken += 1
            p = plan_hopper.weight_gradient_plan(s, pixels, sms=132)
            c = dict(p.defines)
            stages = c["STAGES"] * c["PIXELS"] * 2 * (s.c_in + s.c_out // p.split)
            assert 4 * c["WARPS"] * c["TILE_Q"] * c["TILE_J"] <= stages < p.shared_bytes
            assert p.shared_bytes + 1024 <= plan.shared_limit(plan_hopper.CAPABILITY)
            assert p.blocks(1, 132) * p.split <= 64
    assert taken > 100


def test_few_pixels_take_a_cluster_and_many_do_not() -> None:
    s = Structure(512, 512, 256, 128)
    assert plan_hopper.refuses_cluster(s, 2048) is None
    assert "at most 4096 pixels, not 8192" in str(plan_hopper.refuses_cluster(s, 8192))
    assert plan_hopper.refuses_cluster(Structure(96, 96, 48, 24), 1) is not None


@pytest.mark.parametrize("s", [Structure(512, 512, 256, 128), Structure(512, 512, 128, 64)])
def test_clusters_compile_without_spills(s: Structure, tmp_path: Path) -> None:
    found = plan_hopper.weight_gradient_plan(s, 2048, sms=132)
    options = [f"-D{key}={value}" for key, value in found.defines] + ["-std=c++17"]
    source = read_source(launch.SOURCES / found.file)
    made = compile_cuda(source, name="weights", arch="sm_90a", options=options, cache_dir=tmp_path)
    assert all(used.spill_bytes == 0 for used in made.functions.values())
    assert made.functions["sliding_weight_gradient"].registers <= 128
