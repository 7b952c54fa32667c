"""The bench and the checks of extended precision, dry: what a GPU would do is stood in for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import kernels.bench as records
from kernels import checks as runner
from kernels.checks import Row
from kernels.errors import NasError, UnknownNameError
from kernels.extended_precision import bench, launch
from kernels.extended_precision.split import SplitMatrix, split_matrix
from kernels.timing import TimingPolicy, time_interleaved
from nas.jobs import kernels as job

SHARED = Path(__file__).parents[4] / "shared" / "bench_cases.json"
QUICK = TimingPolicy(
    mode="eager",
    cache="warm",
    min_sample_us=1.0,
    warmup_min_seconds=0.0,
    warmup_max_seconds=0.01,
    max_seconds=0.01,
)


@pytest.fixture
def dry(monkeypatch: pytest.MonkeyPatch) -> None:
    def multiply(name: str, a: SplitMatrix, b: SplitMatrix, out: torch.Tensor | None = None) -> Any:
        return torch.matmul(a.source, b.source.mT, out=out)

    def nearest(a: SplitMatrix, b: SplitMatrix, norms: torch.Tensor) -> Any:
        return (norms - 2 * a.source[0] @ b.source[0].T).min(1)

    monkeypatch.setattr(bench, "_DEVICE", "cpu")
    monkeypatch.setattr(bench, "_GEMMS", ((2, 24, 20, 40, "bmm 2 of M24 N20 K40"),))
    monkeypatch.setattr(bench, "_KMEANS", (300, 8, 12))
    monkeypatch.setattr(bench, "_DEPTHS", (64,))
    monkeypatch.setattr(bench, "cold_sets", lambda set_bytes: 2)

    def timed(turns: Any, *, device: str, policy: TimingPolicy) -> Any:
        return time_interleaved(turns, device="cpu", policy=policy)

    monkeypatch.setattr(records, "time_interleaved", timed)
    monkeypatch.setattr(bench, "_split", lambda name, x: split_matrix(x))
    monkeypatch.setattr(bench, "_multiply", multiply)
    monkeypatch.setattr(launch, "run_split", lambda x: split_matrix(x))
    monkeypatch.setattr(launch, "run_nearest", nearest)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: launch.HOPPER)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")


def test_cases_have_the_names_of_the_issue() -> None:
    assert len(bench.case_names()) == 11
    if not SHARED.exists():
        pytest.skip(f"{SHARED} has the cases of record")
    wanted = [row for row in json.loads(SHARED.read_text()) if row["system"] == bench.SYSTEM]
    assert {row["case"] for row in wanted} == set(bench.case_names())


def test_every_case_is_recorded_with_the_fastest_plan(dry: None) -> None:
    plans = ["256x128", "128x128 scaled", "portable 64x64"]
    found: Any = bench.bench(plans=plans, policy=QUICK, scouting=QUICK, commit="abc")
    assert [record["case"] for record in found] == bench.case_names()
    for record in found:
        tried = record["plans_us"]
        assert record["plan"] == min(set(tried) & {*plans, "nearest"}, key=tried.__getitem__)
        assert record["ratio"] == record["baseline_us"] / record["ours_us"]
        assert record["system"] == "extended_precision"
        assert 0 <= record["error"] < 1e-6
        assert (record["device"], record["commit"]) == ("a GPU", "abc")
    assert [key for key in found[0]["plans_us"] if key not in plans] == ["NN", "NT", "TN", "TT"]
    assert json.dumps(found)


def test_one_case_by_name_and_no_plan_left(dry: None) -> None:
    found: Any = bench.bench("kmeans", policy=QUICK, scouting=QUICK)
    assert [record["case"] for record in found] == ["kmeans assignment 300x8 k12"]
    with pytest.raises(NasError, match="No plan"):
        bench.bench(plans=[])


def test_errors_stand_beside_those_of_the_baseline(dry: None) -> None:
    rows: Any = bench.accuracy(["256x128"])
    assert [row["distribution"] for row in rows] == list(bench._KINDS)
    for row in rows:  # here both are torch's product
        assert 0 < row["frobenius"] == row["frobenius_cublas"] < 1e-6
        assert row["frobenius"] < 10 * row["share"] < 1e-4


def test_plans_that_fail_a_check_are_left_out(dry: None) -> None:
    def row(group: str, passed: bool) -> dict[str, Any]:
        return {"group": group, "what": "", "passed": passed, "detail": ""}

    rows = [row("product 256x128", False), row("portable 64x64", False), row("nearest", False)]
    left = bench.sound_plans([*rows, row("split", True)])
    assert set(bench.plan_names()) - set(left) == {"chosen", "256x128", "portable 64x64"}
    assert bench.sound_plans([row("split", False)]) == []


def test_groups_that_hang_crash_or_fail_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(script: str, seconds: float = 60) -> list[Row]:
        original = runner.subprocess.run
        monkeypatch.setattr(
            runner,
            "subprocess",
            SimpleNamespace(
                run=lambda _, **options: original([sys.executable, "-c", script], **options),
                TimeoutExpired=runner.subprocess.TimeoutExpired,
            ),
        )
        found = runner.run_group("a.module", "split", seconds=seconds)
        monkeypatch.undo()
        return found

    line = json.dumps({"group": "split", "what": "a", "passed": True, "detail": ""})
    assert run(f"print({line!r})") == [Row("split", "a", True)]
    crashed = run(f"print({line!r}, flush=True); raise SystemExit('CUDA error: illegal address')")
    assert crashed[0] == Row("split", "a", True)
    assert crashed[1:] == [Row("split", "ends", False, "CUDA error: illegal address")]
    (hung,) = run("import time; time.sleep(60)", seconds=1)
    assert not hung.passed
    assert "within 1 s" in hung.detail


# nas bench KERNEL


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **options: Any) -> Any:
    said: list[str] = []

    def one(only: str, commit: str, plans: list[str]) -> list[Any]:
        assert plans == ["good"]
        if only == "second":
            raise NasError("out of memory")
        return [{"case": only, "ours_us": 2.0, "baseline_us": 6.0, "ratio": 3.0, "error": 1e-7,
                 "baseline": "cuBLAS"}]  # fmt: skip

    failed = {"group": "g", "what": "w", "passed": False, "detail": "d"}
    module = SimpleNamespace(
        case_names=lambda: ["first", "second"],
        compile_kernels=lambda: said.append("prepared"),
        check_kernels=lambda say: [failed],
        sound_plans=lambda rows: ["good"],
        accuracy=lambda plans: [{"plan": "good"}],
        bench=one,
    )
    monkeypatch.setattr(job, "_module", lambda what: module)
    monkeypatch.setattr(job, "detect", lambda: SimpleNamespace(kind="cuda"))
    settings = {"case": "", "out": tmp_path / "o" / "f.json", "compile_only": False, "commit": ""}
    return job.bench("x", **{**settings, "say": said.append, **options}), said


def test_each_part_is_kept_when_a_later_one_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(NasError, match="out of memory"):
        run(monkeypatch, tmp_path)
    kept = json.loads((tmp_path / "o" / "f.json").read_text())
    assert [record["case"] for record in kept["records"]] == ["first"]
    assert kept["accuracy"] == [{"plan": "good"}]
    result, said = run(monkeypatch, tmp_path, case="first")
    assert "prepared" in said
    text = job.bench_text(result)
    assert "does not hold: g: w: d" in text
    assert "3.00" in text
    compiled, _ = run(monkeypatch, tmp_path, compile_only=True)
    assert job.bench_text(compiled) == "x: every kernel compiles."


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: job._module("nix"), "candidates, dual-module, extended-precision"),
        (lambda: _bench("extended-precision", "no such case"), "Unknown case 'no such case'"),
        (lambda: _bench("sliding-channel", ""), "needs a GPU"),
    ],
)
def test_what_cannot_be_benched_is_one_line(call: Callable[[], object], message: str) -> None:
    if message == "needs a GPU" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises((NasError, UnknownNameError), match=message):
        call()


def _bench(what: str, case: str) -> object:
    return job.bench(
        what, case=case, out=None, compile_only=False, commit="", say=lambda line: None
    )
