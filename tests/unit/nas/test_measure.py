"""``nas measure`` and ``nas.measure``: what is asked for, what is said, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nas
from nas.jobs.measurements import run_of
from nas.jobs.measuring import networks_of
from nas.jobs.measuring_text import measured_text, recorded_text
from search_spaces.architecture import Architecture
from tests.unit.nas.conftest import Run

NET = "input 1x8x8; conv 4 k3; gap; flatten; linear 10"
METRIC = ("--metric", "peak_memory_mb", "--device", "cpu")
"""A real measurement that no other work on the machine changes."""


def test_measured_stored_listed_and_exported(inside: Run, space_file: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "w")
    code, table, said = inside("measure", space_file, NET, "--trials", 2, *METRIC, *out)
    assert code == 0
    assert len(said.splitlines()) == 3
    assert said.startswith("[1/3] ")
    assert "3 networks on cpu" in table
    assert "3 measured in" in table
    code, table, said = inside("measure", space_file, NET, "--trials", 2, *METRIC, *out)
    assert (code, said.count(", stored")) == (0, 3)
    assert "3 stored in" in table
    code, table, said = inside("measure", "--list", tmp_path / "w", "--versions")
    assert (code, said) == (0, "")
    assert table.startswith(f"3 measurements in {tmp_path / 'w'}\ndevice ")
    assert Architecture.parse(NET).key[:8] in table
    code, text, _ = inside("measure", tmp_path / "w", "--export", tmp_path / "m.json", "--json")
    assert json.loads(text)["measurements"] == 3
    rows = json.loads((tmp_path / "m.json").read_text())["measurements"]
    assert [row["metric"] for row in rows] == 3 * ["peak_memory_mb"]
    listed = json.loads(inside("measure", "--list", *out, "--json")[1])["measurements"]
    assert listed == rows


def test_a_file_a_trial_and_python_name_the_same_network(
    inside: Run, run: Path, tmp_path: Path
) -> None:
    trial = nas.open_study(run).trials()[0]
    document = tmp_path / "net.json"
    point = next(item for item in nas.open_study(run).front())
    document.write_text(json.dumps(point.architecture.to_json()))
    out = tmp_path / "w"
    found = nas.measure(point.architecture, ["peak_memory_mb"], out=out, device="cpu")
    assert [item.how for item in found] == ["measured"]
    for reference in (document, f"{run}:{point.key[:12]}"):
        code, text, _ = inside("measure", reference, *METRIC, "--out", out, "--json")
        (row,) = json.loads(text)["measurements"]
        assert (code, row["how"], row["network"]) == (0, "stored", point.key)
    assert [row.network for row in nas.measurements(out)] == [point.key]
    latencies = [row for row in nas.measurements(run) if row.metric == "latency_ms"]
    assert trial.key in {row.network for row in latencies}, "what the search measured is there too"


def test_a_network_that_cannot_run_says_why_in_one_line(inside: Run, tmp_path: Path) -> None:
    huge = "input 1x8x8; conv 2000000000000 k3; gap; flatten; linear 10"
    code, table, said = inside("measure", huge, NET, *METRIC, "--out", tmp_path)
    assert code == 1
    assert "1 measured, 1 failed" in table
    assert "1 x peak_memory_mb failed: The network cannot run on cpu" in table
    assert "can't allocate memory" in table
    assert [("failed" in line) for line in said.splitlines()] == [True, False]
    assert "can't allocate memory" in inside("measure", "--list", tmp_path)[1]


@pytest.mark.parametrize(
    ("asked", "run"),
    [
        ("mobile-cnn-small", "runs/mobile-cnn-small"),
        ("own.py:wide", "runs/wide"),
        (NET, "runs/measured"),
        ("torchvision:resnet18", "runs/measured"),
        ("net.json", "runs/measured"),
        ("old:abc", "old"),
        ("old", "old"),
        ("old/gone", "old/gone"),
        ("mine/own.py", "runs/own"),
    ],
)
def test_the_run_that_is_meant(
    asked: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old").mkdir()
    assert run_of([asked]) == Path(run)
    assert run_of([asked], Path("out")) == Path("out")


def test_the_space_of_python_is_drawn_as_that_of_its_name() -> None:
    space = nas.load_space("mobile-cnn-small")
    drawn = [
        [net.key for net in networks_of([item], data="digits", trials=3, seed=1)[0]]
        for item in (space, "mobile-cnn-small")
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3


def row(network: str, metric: str, value: float | None, **detail: object) -> dict[str, object]:
    how = "failed" if value is None else "measured"
    reason = str(detail.get("reason", ""))
    figure = {"value": value, "low": value and value - 0.1, "high": value and value + 0.1}
    known = {"network": network, "metric": metric, "how": how, "reason": reason, "text": ""}
    return {**known, **figure, "detail": detail, "study": "", "ended": "2026-11-27T02:29:55+00:00"}


ROWS = [
    row("a" * 32, "latency_ms", 0.5, device="cpu (X)", mode="eager", threads=1, torch="2.14"),
    row("b" * 32, "latency_ms", 0.7, device="cpu (X)", mode="eager", threads=1, disturbed=["x"]),
    row("b" * 32, "energy_mj", None, device="cpu (X)", reason="No counter."),
]


def test_the_table_of_what_was_asked_for() -> None:
    result = {"run": "w", "device": "cpu (X)", "seconds": 3, "wanted": 3, "measurements": ROWS}
    assert measured_text(result) == (
        "2 networks on cpu (X): 2 measured, 1 failed in 3 s; recorded in w\n"
        "No more than 2 different networks were found.\n\n"
        "network          latency_ms  energy_mj\n"
        "aaaaaaaa   0.5 (0.4 to 0.6)\n"
        "bbbbbbbb  0.7 (0.6 to 0.8)*     failed\n\n"
        "* 1 disturbed: recorded, but never reused; the same command tries again.\n\n"
        "1 x energy_mj failed: No counter."
    )


def test_the_table_of_what_is_recorded() -> None:
    result = {"run": "w", "measurements": ROWS}
    assert recorded_text(result) == (
        "3 measurements in w\n"
        "device      cpu (X)\n"
        "conditions  eager, 1 thread\n\n"
        "network   metric                 value  measured (UTC)\n"
        "aaaaaaaa  latency_ms  0.5 (0.4 to 0.6)  2026-11-27 02:29\n"
        "bbbbbbbb  latency_ms  0.7 (0.6 to 0.8)  2026-11-27 02:29  disturbed\n"
        "bbbbbbbb  energy_mj             failed  2026-11-27 02:29\n\n"
        "1 x energy_mj failed: No counter."
    )
    assert "torch" in recorded_text(result, versions=True)
    assert "make some with" in recorded_text({"run": "w", "measurements": []})
