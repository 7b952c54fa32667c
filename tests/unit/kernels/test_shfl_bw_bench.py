"""The bench of Shfl-BW without a GPU: its cases, its weights, its records; kernels by torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kernels import bench as records
from kernels.shfl_bw import bench, bench_layers, bench_weights, checks
from kernels.shfl_bw.activation import FUNCTIONS
from kernels.shfl_bw.images import Images
from kernels.shfl_bw.plan import refuses_plan
from kernels.shfl_bw.variants import variants
from kernels.shfl_bw.window import Window
from kernels.timing import TimingPolicy, time_interleaved

SHARED = Path(__file__).parents[4] / "shared" / "bench_cases.json"
QUICK = TimingPolicy(
    mode="eager",
    cache="warm",
    min_sample_us=1.0,
    warmup_min_seconds=0.0,
    warmup_max_seconds=0.01,
    max_seconds=0.01,
)


def matrix_of(images: Images, rows: int, columns: int) -> torch.Tensor:
    """Return the matrix that images hold."""
    tiles, height, _ = images.panels.shape
    place = torch.arange(8) ^ torch.arange(height)[:, None] % 8
    units = images.panels.view(tiles, height, 8, 8)
    plain = torch.take_along_dim(units, place[None, :, :, None], 2).flatten(2)
    matrix = torch.zeros(rows + 1, columns + 1)
    for group in range(images.groups):
        members = images.rows.view(-1, images.v)[group].long()
        for tile in range(int(images.tiles[group]), int(images.tiles[group + 1])):
            kept = images.columns[tile * 64 : (tile + 1) * 64].long()
            matrix[members[:, None], kept] = plain[tile, : images.v].float()
    return matrix[:-1, :-1]


@pytest.fixture
def dry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def spmm(
        x: torch.Tensor,
        images: Images,
        bias: torch.Tensor | None,
        *,
        out_features: int,
        activation: str = "none",
        plan: object = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        y = matrix_of(images, out_features, x.shape[0]) @ x.float()
        y = FUNCTIONS[activation](y if bias is None else y + bias[:, None]).half()
        return y if out is None else out.copy_(y)

    def convolution(
        x: torch.Tensor,
        images: Images,
        bias: None,
        window: Window,
        *,
        out_features: int,
        plan: object = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        channels = x.shape[0]
        matrix = matrix_of(images, out_features, 9 * channels)
        filters = matrix.view(-1, 3, 3, channels).permute(0, 3, 1, 2)
        y = F.conv2d(x.permute(3, 0, 1, 2).float(), filters, padding=1).permute(1, 2, 3, 0)
        return y.half() if out is None else out.copy_(y.half())

    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(bench_weights, "DEVICE", "cpu")
    for module in (bench, bench_layers):
        monkeypatch.setattr(module, "run_spmm", spmm)
        monkeypatch.setattr(module, "run_transpose", lambda x, leaves=False: x.T.contiguous())
        monkeypatch.setattr(module, "cold_sets", lambda set_bytes: 2)
    monkeypatch.setattr(bench_layers, "run_convolution", convolution)
    monkeypatch.setattr(bench_layers, "_TOKENS", 16)
    monkeypatch.setattr(bench_layers, "_IMAGES", 8)
    monkeypatch.setattr(torch, "compile", lambda function: function)

    def timed(turns: Any, *, device: str, policy: TimingPolicy) -> Any:
        return time_interleaved(turns, device="cpu", policy=policy)

    monkeypatch.setattr(records, "time_interleaved", timed)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")


def small() -> dict[str, bench.Case]:
    """Return one contest of each kind, in a size for a CPU."""
    return {
        "spmm": bench._product(128, 24, 96, 64),
        "linear": bench._layers(bench_layers.linear, 64, 128, 64),
        "mlp": bench._layers(bench_layers.mlp, 64, 128, 64),
        "convolution": bench._layers(bench_layers.convolution, 64, 4, 64),
    }


def test_cases_have_the_names_of_the_issue() -> None:
    assert len(bench.case_names()) == 14
    if not SHARED.exists():
        pytest.skip(f"{SHARED} has the cases of record")
    wanted = [row for row in json.loads(SHARED.read_text()) if row["system"] == bench.SYSTEM]
    assert {row["case"] for row in wanted} == set(bench.case_names())


def test_every_kind_of_case_is_right_and_recorded_with_the_fastest_plan(
    dry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    contests = small()
    monkeypatch.setattr(bench, "_cases", lambda: [(n, lambda c=c: c) for n, c in contests.items()])
    plans = [name for name in variants() if name.startswith("V64")][:2]
    found: Any = bench.bench(plans=plans, policy=QUICK, scouting=QUICK, commit="abc")
    assert [record["case"] for record in found] == list(contests)
    for record in found:
        tried = record["plans_us"]
        assert record["plan"] == min(plans, key=tried.__getitem__)
        assert record["error"] < 2e-3
        assert record["ratio"] == record["baseline_us"] / record["ours_us"]
        assert record["roofline_us"] == record["baseline_us"] / 4


def test_ours_and_the_baselines_compute_the_same(dry: None) -> None:
    plan = next(plan for plan in variants().values() if plan.v == 64)
    contests = small()
    for name in ("spmm", "linear", "mlp"):
        ours: Any = contests[name].ours(plan)[1]()
        for baseline in contests[name].baselines.values():
            theirs: Any = baseline[1]()
            assert float((ours.float() - theirs.float()).norm() / theirs.float().norm()) < 4e-3
    ours = contests["convolution"].ours(plan)[0]().permute(3, 0, 1, 2)  # type: ignore[attr-defined]
    theirs = contests["convolution"].baselines["cuDNN"][0]()
    assert float((ours.float() - theirs.float()).norm() / theirs.float().norm()) < 4e-3


def test_a_pattern_from_disk_is_the_one_that_was_found(dry: None) -> None:
    weight, pattern = bench_weights.drawn(100, 40, 32)
    again, read = bench_weights.drawn(100, 40, 32)
    assert torch.equal(weight, again)
    assert torch.equal(pattern.mask, read.mask)
    assert torch.equal(pattern.order, read.order)


def test_plans_that_are_tried_can_be_and_sound_ones_are_those_without_a_fault() -> None:
    assert all(refuses_plan(plan) is None for plan in variants().values())
    first, second, *_ = variants()
    rows: Any = [{"group": first, "passed": False}, {"group": second, "passed": True}]
    assert first not in bench.sound_plans(rows)
    assert second in bench.sound_plans(rows)
    assert bench.sound_plans([{"group": checks.TRANSPOSITION, "passed": False}]) == []
