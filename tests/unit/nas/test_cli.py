"""The command line end to end, on a study small enough to train in seconds."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SPACE = """
from search_spaces.builder import NetworkBuilder
from search_spaces.space import space


@space("tiny", version=1)
def tiny(choose, data):
    net = NetworkBuilder(data.input_shape)
    x = net.conv(net.input, choose("width", [4, 6, 8, 12]), kernel=3, stride=2)
    x = net.conv_block(x, 8, kind=choose("kind", ["standard", "separable", "sliding"]), stride=2)
    return net.classifier(x, data.classes)
"""


def nas(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line and check its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "nas", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "space.py").write_text(SPACE)
    objectives = "accuracy,latency_ms,params"
    options = ("--objectives", objectives, "--trials", 3, "--device", "cpu", "--out", folder / "r")
    first = nas("search", folder / "space.py", *options, "--json")
    summary = json.loads(first.stdout)
    assert summary["complete"] == 3
    assert first.stderr.count("accuracy") == 3
    return folder / "r"


def test_the_same_command_again_repeats_nothing(run: Path) -> None:
    objectives = "accuracy,latency_ms,params"
    space = run.parent / "space.py"
    options = ("--objectives", objectives, "--trials", 3, "--device", "cpu", "--out", run)
    again = nas("search", space, *options)
    assert again.stderr == ""
    assert "3 trained" in again.stdout


def test_front_writes_its_table_and_page(run: Path) -> None:
    points = json.loads(nas("front", run, "--json").stdout)
    with (run / "front.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [point["key"] for point in points]
    needed = {"key", "text", "validation_accuracy", "test_accuracy", "params", "macs"}
    needed |= {"latency_ms", "latency_ms_p10", "latency_ms_p90"}
    assert needed <= rows[0].keys()
    for row in rows:
        assert float(row["latency_ms_p10"]) <= float(row["latency_ms"])
        assert float(row["latency_ms"]) <= float(row["latency_ms_p90"])
        assert 0.0 <= float(row["test_accuracy"]) <= 1.0
    page = (run / "front.html").read_text()
    assert all(point["key"][:8] in page for point in points)
    assert "cpu" in page.lower()


def test_export_reloads_and_best_is_the_most_accurate(run: Path) -> None:
    points = json.loads(nas("front", run, "--json").stdout)
    (export,) = json.loads(nas("export", run, "--best", "--json").stdout)
    assert export["passed"]
    assert (run / "best" / "model.py").is_file()
    best = max(point["values"]["accuracy"]["value"] for point in points)
    assert export["values"]["accuracy"]["value"] == best
    one = nas("export", run, points[0]["key"][:10])
    assert "reloaded with torch alone, same outputs" in one.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "mobilnet"), "Unknown space 'mobilnet'"),
        (("search",), "Name a space"),
        (("search", "mobile-cnn", "--data", "digit"), "Did you mean 'digits'?"),
        (("search", "mobile-cnn", "--objectives", "acuracy"), "Did you mean 'accuracy'?"),
        (("search", "mobile-cnn", "--sampler", "grid"), "Unknown sampler 'grid'"),
        (("search", "mobile-cnn", "--trials", "0"), "'trials'"),
        (("search", "missing.py"), "There is no space file missing.py"),
        (("search", "--config", "missing.toml"), "missing.toml"),
        (("front", "nowhere"), "There is no record"),
        (("export", "nowhere"), "There is no record"),
        (("spaces", "mobilenet"), "Unknown space 'mobilenet'"),
        (("spaces", "--input-shape", "3x32"), "--input-shape CxHxW"),
        (("bench", "speed"), "Unknown benchmark 'speed'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    extra = ("--out", tmp_path / "out") if arguments[0] == "search" else ()
    done = nas(*arguments, *extra, code=2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_unknown_point_lists_those_there_are(run: Path) -> None:
    done = nas("export", run, "zzzz", code=2)
    assert "Unknown point of the front 'zzzz'. Known: " in done.stderr


def test_other_settings_for_a_recorded_study_are_refused(run: Path) -> None:
    done = nas("search", "mobile-cnn", "--out", run, "--trials", 3, code=2)
    assert "give the same" in done.stderr.lower()


def test_settings_come_from_a_file_too(tmp_path: Path) -> None:
    settings = 'space = "mobile-cnn-small"\ndata = "digits"\nobjectives = ["params", "macs"]\n'
    (tmp_path / "study.toml").write_text(settings + "trials = 4\nseed = 3\n")
    done = nas("search", "--config", tmp_path / "study.toml", "--out", tmp_path / "r", "--json")
    assert json.loads(done.stdout)["complete"] == 4
    (tmp_path / "bad.toml").write_text(settings + "trails = 4\n")
    bad = nas("search", "--config", tmp_path / "bad.toml", "--out", tmp_path / "b", code=2)
    assert "Did you mean 'trials'?" in bad.stderr


def test_spaces_and_bench_print_figures() -> None:
    rows = json.loads(nas("spaces", "mobile-cnn-small", "--json").stdout)
    assert rows[0]["low"] <= 3.0632e12 <= rows[0]["high"]
    result = json.loads(nas("bench", "--seconds", "0.2", "--json").stdout)
    assert result["p10"] <= result["median"] <= result["p90"]
