"""The kernels of extended precision without a GPU: compiled, emulated, interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels.errors import NasError
from kernels.extended_precision import checks, launch, plan, tensor_core
from kernels.extended_precision.launch import Added
from kernels.extended_precision.plan import GemmPlan, SplitPlan
from kernels.extended_precision.split import split_matrix
from tests.emulator import Emulated, missing

VARIANTS = {**plan.VARIANTS, "paper": plan.PAPER, "nearest": plan.NEAREST}
DEFAULT = ("256x128", "128x128 scaled down")
SPLIT = ("split_rows", "measure_columns", "split_columns")
FAULTS = {
    "products not waited for": ("wait_products<1>();  // also", "//"),
    "stage released twice": ("if (k > 0) release(", "release("),
    "half of a stage expected": (
        "arrive_expecting(full, bytes);",
        "barrier_expect(full, bytes / 2);",
    ),
}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    kind = torch.int16 if a.dtype == torch.float16 else torch.int32
    return torch.equal(a.view(kind), b.view(kind))


class Emulation:
    """Stands in for the compiled kernels of ``launch``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seed = 0

    def gemm(self, chosen: GemmPlan, nearest: bool) -> Emulated:
        defines = chosen.defines(nearest=nearest)
        return self._kernel("gemm.cu", "extended_gemm", defines, together=chosen.cluster)

    def split(self, chosen: SplitPlan, function: str, capability: Any) -> Emulated:
        return self._kernel("split.cu", function, chosen.defines())

    def probe(self, function: str, capability: Any) -> Emulated:
        return self._kernel("probe.cu", function, {"HOPPER": 1})

    def _kernel(
        self, file: str, function: str, defines: dict[str, int], together: int = 1
    ) -> Emulated:
        source = launch.SOURCES / file
        return Emulated(source, function, defines, self.folder, together=together, seed=self.seed)


@pytest.fixture(scope="session", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing():
        pytest.skip(missing())
    return tmp_path_factory.mktemp("emulated")


@pytest.fixture
def emulation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Emulation:
    made = Emulation(folder)
    monkeypatch.setattr(launch, "_gemm_kernel", made.gemm)
    monkeypatch.setattr(launch, "_split_kernel", made.split)
    monkeypatch.setattr(launch, "_probe_kernel", made.probe)
    monkeypatch.setattr(launch, "_sms", lambda device: 6)
    monkeypatch.setattr(launch, "_capability", lambda device: launch.HOPPER)
    return made


# Compiled for the GPU


def some(names: Iterable[str], default: Collection[str]) -> list[Any]:
    """Return names as parameters, of which all but the default ones are slow."""
    return [pytest.param(name, marks=() if name in default else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", some(VARIANTS, DEFAULT))
def test_products_compile_for_hopper_without_spills_or_waits(name: str) -> None:
    compiled = launch.compile_gemm(VARIANTS[name], nearest=name == "nearest")
    used = compiled.functions["extended_gemm"]
    assert used.spill_bytes == used.stack_bytes == 0
    # ptxas says so where it ignores setmaxnreg or has to wait after every product.
    assert not any(word in compiled.log for word in ("ignored", "serializ"))


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
@pytest.mark.parametrize("k", [4096, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 9999))])
def test_splits_compile_without_spills(capability: tuple[int, int], k: int) -> None:
    compiled = launch.compile_split(plan.split_plan(k), capability)
    assert set(compiled.functions) == set(SPLIT)
    assert all(used.spill_bytes == 0 for used in compiled.functions.values())


# Emulated: the sources themselves, on this processor


@pytest.mark.parametrize(
    ("rows", "k", "residual_bits", "options", "every_layout"),
    [
        (133, 300, 11, {}, False),
        pytest.param(19, 1023, 11, {}, True, marks=pytest.mark.slow),
        pytest.param(37, 100, 0, {}, True, marks=pytest.mark.slow),
        pytest.param(9, 2500, 0, {"swizzled": False}, True, marks=pytest.mark.slow),
        pytest.param(24, 512, 11, {"truncate": True}, True, marks=pytest.mark.slow),
        pytest.param(5, 17000, 0, {}, False, marks=pytest.mark.slow),
    ],
)
def test_the_split_kernels_write_what_the_definition_says(
    emulation: Emulation,
    rows: int,
    k: int,
    residual_bits: int,
    options: dict[str, bool],
    every_layout: bool,
) -> None:
    x = normal(2, rows, k) * 10.0 ** (normal(2, rows, 1, seed=1) * 15)
    x[0, 1, 3], x[1, 2], x[1, 4, :3] = float("inf"), 0.0, float("nan")
    x[0, 3] *= 10.0 ** (normal(k, seed=2) * 4)
    expected = split_matrix(x, residual_bits, **options)
    assert expected.trouble[0, 3] * plan.WIDE_SHARE > k
    standing = x.mT.contiguous().mT
    sources = [x, standing]
    if every_layout:
        sources += [torch.empty(2, rows, k + 3)[:, :, 3:], x.repeat(1, 1, 2)[:, :, ::2]]
    for source in sources:
        source.copy_(x)
        found = launch.run_split(source, residual_bits, **options)
        assert same_bits(found.image, expected.image)
        assert torch.equal(found.exponents, expected.exponents)
        assert torch.equal(found.trouble, expected.trouble)


SHAPES = {
    "256x128": (1, 1, 300, 100, 150),
    "128x128 scaled down": (2, 1, 140, 130, 131),
}


@pytest.mark.parametrize("name", some(VARIANTS, DEFAULT))
def test_the_product_equals_the_model_bit_by_bit(emulation: Emulation, name: str) -> None:
    """In every order of threads and copies, at tails of tiles, with a batch that shares b."""
    chosen = VARIANTS[name]
    a_batch, b_batch, m, k, n = SHAPES.get(name, (1, 2, chosen.rows + 9, 100, chosen.columns + 3))
    a, b = normal(a_batch, m, k), normal(b_batch, n, k, seed=1)
    a[:, 5] *= 1e-20
    b[:, 3] *= 1e15
    left, right = (split_matrix(x, chosen.residual_bits) for x in (a, b))
    batch = max(a_batch, b_batch)
    expected = torch.stack(
        [
            torch.from_numpy(
                tensor_core.multiply(
                    a[min(i, a_batch - 1)].numpy(), b[min(i, b_batch - 1)].T.numpy(), chosen
                )
            )
            for i in range(batch)
        ]
    )
    for seed in range(2):
        emulation.seed = seed
        out = torch.full((batch, m, n + seed), float("nan"))[:, :, :n]
        found = launch.run_gemm(left, right, plan=chosen, out=out)
        assert torch.equal(found, expected)


def test_alpha_beta_and_what_is_added(emulation: Emulation) -> None:
    a, b = normal(2, 70, 40), normal(2, 33, 40, seed=1)
    left, right = split_matrix(a), split_matrix(b)
    bare = launch.run_gemm(left, right, plan=plan.BALANCED)
    for shape in ((33,), (2, 70, 33), (2, 1, 1), (70, 1)):
        bias = normal(*shape, seed=2)
        bias = bias[(None,) * (3 - bias.dim())]
        found = launch.run_gemm(left, right, Added(bias, 2.0, -0.5), plan=plan.BALANCED)
        torch.testing.assert_close(found, bare * 2 - bias / 2, rtol=1e-6, atol=1e-6)


def test_parts_of_k_are_added_up(emulation: Emulation) -> None:
    a, b, bias = normal(1, 70, 250), normal(1, 33, 250, seed=1), normal(1, 1, 33, seed=2)
    a[:, 5] *= 1e-20
    left, right = split_matrix(a), split_matrix(b)
    whole = launch.run_gemm(left, right, Added(bias, 2.0, -0.5), plan=plan.BALANCED)
    out = torch.full((1, 70, 40), float("nan"))[:, :, :33]
    found = launch.run_gemm(
        left, right, Added(bias, 2.0, -0.5), plan=plan.BALANCED, out=out, parts=4
    )
    assert found is out
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)
    expected = torch.stack(
        [
            torch.from_numpy(tensor_core.multiply(part.numpy(), other.T.numpy(), plan.BALANCED))
            for part, other in zip(a[0].split(64, 1), b[0].split(64, 1), strict=True)
        ]
    ).sum(0)
    torch.testing.assert_close(
        launch.run_gemm(left, right, plan=plan.BALANCED, parts=4)[0], expected, rtol=1e-5, atol=1e-5
    )
    with pytest.raises(NasError, match="has no 3 parts"):
        launch.run_gemm(left, right, plan=plan.BALANCED, parts=3)


def test_powers_of_two_at_the_ends_of_the_range(emulation: Emulation) -> None:
    a, b = normal(1, 12, 40), normal(1, 12, 40, seed=1)
    powers = torch.arange(-72, 120, 16)[None, :, None]
    a, b = torch.ldexp(a, powers), torch.ldexp(b, -powers)
    found = launch.run_gemm(split_matrix(a), split_matrix(b), plan=plan.BALANCED)
    expected = a.double() @ b.double().mT
    fits = (expected.abs() < 2.0**127) & (expected.abs() > 2.0**-126)
    assert torch.equal(found.isinf(), expected.abs() >= 2.0**128)
    scale = a.double().abs() @ b.double().abs().mT
    assert ((found - expected).abs() / scale)[fits].max() < 2e-7


@pytest.mark.parametrize("warpgroup", [False, True])
def test_probes_reach_every_place_of_the_tile(emulation: Emulation, warpgroup: bool) -> None:
    for probe in tensor_core.PROBES:
        a, b = (torch.tensor(x, dtype=torch.float16) for x in (probe.a, probe.b))
        total = torch.tensor([probe.accumulator])
        found = launch.run_probe(a, b, total, warpgroup=warpgroup)
        assert found.double().unique().tolist() == [probe.expected()], probe.what


@pytest.mark.parametrize(("n", "d"), [(300, 5), (257, 70)])
def test_the_nearest_column(emulation: Emulation, n: int, d: int) -> None:
    x, centres = normal(1, n, d), normal(1, 200, d, seed=1)
    centres[0, 150] = centres[0, 20]  # the first among equals
    norms = centres[0].square().sum(1)
    found, values = launch.run_nearest(split_matrix(x), split_matrix(centres), norms)
    exact = norms.double() - 2 * (x[0].double() @ centres[0].double().T)
    best = exact.min(1)
    assert torch.equal(found, best.indices)
    assert (values - best.values).abs().max() < 1e-5 * norms.max()


@pytest.mark.parametrize("fault", some(FAULTS, list(FAULTS)[:1]))
def test_faults_of_the_product_are_found(
    emulation: Emulation, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = replace(plan.VARIANTS["128x128 scaled"], columns=64, stages=2)
    a, b = split_matrix(normal(1, 70, 200), 11), split_matrix(normal(1, 70, 200, seed=1), 11)
    expected = tensor_core.multiply(a.source[0].numpy(), b.source[0].T.numpy(), chosen)
    found = []
    for seed in range(4):
        kernel = Emulated(
            *(launch.SOURCES / "gemm.cu", "extended_gemm", chosen.defines(), emulation.folder),
            together=chosen.cluster,
            seed=seed,
            fault=FAULTS[fault],
        )
        monkeypatch.setattr(launch, "_gemm_kernel", lambda *_, kernel=kernel: kernel)
        try:
            out = launch.run_gemm(a, b, plan=chosen)[0]
        except AssertionError:  # it ended early
            found.append(False)
        else:
            found.append(torch.equal(out, torch.from_numpy(expected)))
    assert not all(found)


@pytest.mark.slow
def test_the_checks_for_a_gpu_hold_in_the_emulator(
    emulation: Emulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_DEVICE", "cpu")
    monkeypatch.setattr(checks, "_STEADY", (300, 70, 200))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: launch.HOPPER)
    known = checks.groups()
    for group in ("probes", "split", "product 256x128", "product paper", "nearest"):
        rows = list(known[group]())
        assert rows
        assert not [row for row in rows if not row.passed]


# Interpreted: the Triton kernels

INTERPRETED = """
import torch
from kernels.extended_precision import portable, reference
from kernels.extended_precision.launch import Added
from kernels.extended_precision.split import split_matrix

def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

def split(x):
    return split_matrix(x, swizzled=False)

a, b, bias = normal(2, 70, 100), normal(1, 90, 100, seed=1), normal(1, 1, 90, seed=2)
a[0, 3] *= 1e-20
b[0, 7] *= 1e15
exact = reference.matmul_reference(a, b.mT)
scale = a.abs().double() @ b.abs().double().mT
for tile in portable.TILES:
    out = torch.full((2, 70, 90), float("nan"))
    found = portable.run_portable_gemm(split(a), split(b), tile=tile, out=out)
    assert ((found - exact).abs() / scale).max() < 2e-7, tile
added = Added(bias, 2.0, -0.5)
found = portable.run_portable_gemm(split(a), split(b), added)
assert ((found - (2 * exact - bias / 2)).abs() / (2 * scale + bias.abs())).max() < 2e-7
before = found.clone()
assert torch.equal(portable.run_repair(split(a), split(b), found, added), before)

a[1, 2, 5], a[1, 5, 7], a[1, 5, 9] = float("inf"), float("nan"), float("inf")
b[0, 60, 5] = 0.0  # inf times 0
a[0, 66] *= 10.0 ** torch.linspace(-12, 12, 100)
b[0, 80] *= 1e-37
exact, plain = reference.matmul_reference(a, b.mT), a @ b.mT
scale = a.abs().double() @ b.abs().double().mT
found = portable.run_repair(split(a), split(b), portable.run_portable_gemm(split(a), split(b)))
assert torch.equal(found.isnan(), plain.isnan()) and plain.isnan().any()
assert torch.equal(found[plain.isinf()], plain[plain.isinf()]) and plain.isinf().any()
fits = exact.isfinite() & (exact.abs() > 1e-37)
assert ((found - exact).abs() / scale)[fits].max() < 3e-7
"""


def test_the_triton_kernels_equal_float64_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERPRETED],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
