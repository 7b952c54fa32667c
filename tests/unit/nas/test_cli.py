"""The command line end to end, on a study small enough to train in seconds."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.unit.nas.conftest import RECIPE


def test_the_same_command_again_repeats_nothing(nas, run: Path, options: list[object]) -> None:
    again = nas("search", *options, "--out", run)
    assert again.stderr == ""
    assert "3 complete" in again.stdout


def test_front_writes_its_table_and_page(nas, run: Path) -> None:
    result = json.loads(nas("front", run, "--json").stdout)
    with (run / "front.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [point["key"] for point in result["points"]]
    needed = {"key", "text", "validation_accuracy", "test_accuracy", "params", "macs"}
    needed |= {"latency_ms", "latency_ms_p10", "latency_ms_p90"}
    assert needed <= rows[0].keys()
    for row in rows:
        assert float(row["latency_ms_p10"]) <= float(row["latency_ms"])
        assert float(row["latency_ms"]) <= float(row["latency_ms_p90"])
        assert 0.0 <= float(row["test_accuracy"]) <= 1.0
    page = (run / "front.html").read_text()
    assert all(row["key"][:8] in page for row in rows)
    assert "cpu" in page.lower()


def test_confirm_pays_missing_seeds_only(nas, run: Path) -> None:
    first = nas("front", run, "--confirm", 2, "--json")
    confirmed = json.loads(first.stdout)["confirmed"]
    assert first.stderr.count("seed 1") == len(confirmed)
    for item in confirmed:
        own, other = item["seeds"]
        assert own["reused"], "the search trained from the study's seed already"
        assert not other["reused"]
        assert own["validation"] == pytest.approx(item["searched"])
        mean = (own["validation"] + other["validation"]) / 2
        assert item["validation"]["mean"] == pytest.approx(mean)
        test = (own["test"] + other["test"]) / 2
        assert item["gap"] == pytest.approx(mean - test)
        assert item["luck"] == pytest.approx(item["searched"] - mean)
    again = nas("front", run, "--confirm", 2, "--json")
    assert json.loads(again.stdout)["confirmed"] == confirmed
    assert again.stderr == ""
    more = json.loads(nas("front", run, "--confirm", 3, "--json").stdout)["confirmed"]
    assert [seed["reused"] for seed in more[0]["seeds"]] == [True, True, False]


def test_export_reloads_and_best_is_the_most_accurate(nas, run: Path) -> None:
    points = json.loads(nas("front", run, "--json").stdout)["points"]
    (export,) = json.loads(nas("export", run, "--best", "--json").stdout)
    assert export["passed"]
    assert (run / "best" / "model.py").is_file()
    best = max(point["values"]["accuracy"]["value"] for point in points)
    assert export["values"]["accuracy"]["value"] == best
    names = [points[0]["key"][:10], *(str(item["trial"]) for item in points[1:2])]
    some = nas("export", run, *names)
    assert some.stdout.count("reloaded with torch alone, same outputs") == len(names)
    assert some.stderr.count("passed") == (len(names) if len(names) > 1 else 0)


def test_an_audit_that_fails_ends_with_1_is_kept_and_shown(nas, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    point = json.loads(nas("front", copy, "--json").stdout)["points"][0]
    with sqlite3.connect(copy / "record.db") as connection:
        statement = "update value set value = value - 0.1 where metric = 'test_accuracy'"
        assert connection.execute(statement).rowcount
    connection.close()
    done = nas("export", copy, point["trial"], code=1)
    assert "AUDIT FAILED" in done.stdout
    trial = json.loads(nas("show", copy, point["trial"], "--json").stdout)
    (export,) = [item for item in trial["exports"] if item["directory"].startswith(str(copy))]
    assert [check["name"] for check in export["audit"]["checks"]] == [
        *("files", "network", "model card", "outputs of python", "test_accuracy of python"),
        *("preprocessing", "latency_ms of python"),
    ]
    assert not export["audit"]["passed"]
    shown = nas("show", copy, point["trial"]).stdout
    assert f"Exported to {export['directory']}: plain, AUDIT FAILED" in shown
    table = shown[shown.index(f"Exported to {export['directory']}") :]
    row = next(line for line in table.splitlines() if line.startswith("test_accuracy of"))
    assert row.split()[-2:] == ["0.002786", "FAILED"]
    assert float(row.split()[-3]) == pytest.approx(0.1, abs=1e-3)
    assert "AUDIT FAILED: test_accuracy of python" in nas("show", copy).stdout


def test_networks_are_compared_wherever_they_are(nas, run: Path) -> None:
    first, second = (json.loads(nas("show", run, n, "--json").stdout) for n in (0, 1))
    found = json.loads(nas("export", run, "--compare", 0, second["key"][:9], "--json").stdout)
    assert found["keys"] == [first["key"], second["key"]]
    assert found["params"] == [first["params"], second["params"]]
    text = nas("export", run, "--compare", 0, 1).stdout
    assert f"parameters: {first['params']:,} -> {second['params']:,}" in text
    elsewhere = (f"{run}:{first['key'][:9]}", "input 1x8x8; gap; flatten; linear 10")
    assert "parameters: " in nas("export", "--compare", *elsewhere).stdout
    assert "Name the run" in nas("export", code=2).stderr
    assert "JSON file, RUN:KEY" in nas("export", "--compare", 0, 1, code=2).stderr


def test_show_a_study_and_a_trial_by_number_and_by_key(nas, run: Path) -> None:
    study = json.loads(nas("show", run, "--json").stdout)
    assert study["counts"]["complete"] == 3
    assert study["driver"] is None
    key = study["front"][0]["key"]
    trial = json.loads(nas("show", run, key[:9], "--json").stdout)
    assert trial["key"] == key
    assert json.loads(nas("show", run, trial["trial"], "--json").stdout) == trial
    layers = trial["layers"]
    assert sum(layer["params"] for layer in layers) == trial["values"]["params"]["value"]
    assert sum(layer["macs"] for layer in layers) == trial["values"]["macs"]["value"]
    assert layers[0]["shape"] == [1, 8, 8]
    assert layers[-1]["shape"] == [10]
    assert trial["figures"]["accuracy"]["detail"]["recipe"] == RECIPE
    text = nas("show", run, trial["trial"]).stdout
    assert key in text
    assert trial["text"].split("; ")[1] in text
    assert nas("show", run).stdout.startswith("r\n")


def test_train_repeats_the_training_of_the_search(nas, run: Path, tmp_path: Path) -> None:
    point = json.loads(nas("show", run, "--json").stdout)["front"][0]
    common = ("--data", "digits", "--recipe", RECIPE, "--device", "cpu")
    out = ("--seeds", 2, "--out", tmp_path / "t", "--json")
    done = nas("train", f"{run}:{point['key'][:10]}", *common[2:], *out)  # data: the study's
    result = json.loads(done.stdout)
    assert result["data"] == "digits"
    values = [row["validation"]["value"] for row in result["seeds"]]
    assert values[0] == pytest.approx(point["values"]["accuracy"]["value"])
    assert result["validation"]["mean"] == pytest.approx(sum(values) / 2)
    weights = load_file(result["seeds"][1]["file"])
    trained = sum(tensor.numel() for name, tensor in weights.items() if "running_" not in name)
    counters = sum(name.endswith("num_batches_tracked") for name in weights)
    assert trained - counters == result["params"]
    more = ("--seeds", 3, "--out", tmp_path / "t", "--json")
    again = nas("train", tmp_path / "t" / "architecture.json", *common, *more)
    grown = json.loads(again.stdout)
    assert grown["key"] == point["key"]
    assert grown["seeds"][:2] == result["seeds"]
    assert again.stderr.count("trained before") == 2, "seeds that are there are not paid again"
    text = nas("train", point["text"], *common)
    assert re.search(r"mean +\d+\.\d%", text.stdout)


def test_studies_are_listed_archived_exported_and_deleted(nas, run: Path, tmp_path: Path) -> None:
    settings = (
        "mobile-cnn-small",
        "--objectives",
        "params,macs",
        "--workers",
        0,
        "--out",
        tmp_path,
    )
    nas("search", *settings, "--trials", 3, "--name", "a")
    nas("search", *settings, "--trials", 4, "--name", "b", "--seed", 1)
    assert "choose one with --study" in nas("show", tmp_path, code=2).stderr
    listed = json.loads(nas("studies", "list", tmp_path, "--json").stdout)
    assert [(line["name"], line["counts"]["complete"]) for line in listed] == [("a", 3), ("b", 4)]
    compared = json.loads(nas("studies", "compare", tmp_path, "a", "b", "--json").stdout)
    assert [item["name"] for item in compared["studies"]] == ["a", "b"]
    assert "hypervolume" in nas("studies", "compare", tmp_path, "a", "b").stdout.lower()
    nas("studies", "archive", tmp_path, "a")
    assert nas("studies", "list", tmp_path).stdout.count("mobile-cnn-small") == 1
    nas("studies", "archive", tmp_path, "a", "--back")
    nas("studies", "export", tmp_path, "b", tmp_path / "b.csv")
    with (tmp_path / "b.csv").open() as file:
        assert len(list(csv.DictReader(file))) >= 4
    nas("studies", "delete", tmp_path, "a", "--yes")
    assert "b" in nas("studies", "show", tmp_path, "b").stdout
    assert "Unknown study 'a'" in nas("studies", "show", tmp_path, "a", code=2).stderr


def test_a_study_without_a_complete_trial_ends_with_code_1(nas, tmp_path: Path) -> None:
    settings = ("mobile-cnn-small", "--objectives", "params,macs", "--workers", 0)
    bound = ("--constraint", "params<=1", "--max-drops", 5, "--out", tmp_path / "r", "--json")
    summary = json.loads(nas("search", *settings, *bound, code=1).stdout)
    assert summary["ending"] == "dropping"
    assert summary["dropped"] == {"cost": 5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "mobilnet"), "Unknown space 'mobilnet'"),
        (("search",), "Name a space"),
        (("search", "mobile-cnn", "--data", "digit"), "Did you mean 'digits'?"),
        (("search", "mobile-cnn", "--objectives", "acuracy"), "Did you mean 'accuracy'?"),
        (("search", "mobile-cnn", "--constraint", "parms<=3"), "Did you mean 'params'?"),
        (("search", "mobile-cnn", "--sampler", "grid"), "Unknown sampler 'grid'"),
        (("search", "mobile-cnn", "--recipe", "digits"), "Unknown recipe 'digits'"),
        (("search", "mobile-cnn", "--trials", "0"), "'trials'"),
        (("search", "mobile-cnn", "--trials", "many"), "Invalid value for '--trials'"),
        (("search", "mobile-cnn", "--trails", "3"), "--trials"),
        (("search", "mobile-cnn", "--funnel", "rf_gain:half"), "METRIC:SHARE"),
        (("search", "mobile-cnn", "--data", "npz:missing.npz"), "missing.npz"),
        (("search", "missing.py"), "There is no Python file"),
        (("search", "--config", "missing.toml"), "missing.toml"),
        (("serch",), "search"),
        (("front", "nowhere"), "There is no record"),
        (("show", "nowhere"), "There is no record"),
        (("studies", "list", "nowhere"), "There is no record"),
        (("export", "nowhere"), "There is no record"),
        (("profile", "mobilenet", "--data", "digits"), "Unknown space 'mobilenet'"),
        (("profile", "mobile-cnn", "--data", "digit"), "Did you mean 'digits'?"),
        (("profile", "mobile-cnn", "--data", "digits", "--constraint", "params"), "params"),
        (("train", "missing.json", "--data", "digits"), "missing.json"),
        (("train", "input 1x8x8; gap; flatten", "--data", "digits"), "10 classes"),
        (("train", "input 1x8x8; cnv 8", "--data", "digits"), "'cnv'"),
        (("spaces", "mobilenet"), "Unknown space 'mobilenet'"),
        (("spaces", "--input-shape", "3x32"), "--input-shape CxHxW"),
        (("bench", "speed"), "No such command 'speed'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    nas, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    extra = ("--out", tmp_path / "out") if arguments[0] == "search" else ()
    done = nas(*arguments, *extra, code=2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_unknown_point_lists_those_there_are(nas, run: Path) -> None:
    done = nas("export", run, "zzzz", code=2)
    assert "Unknown point of the front 'zzzz'. Known: " in done.stderr
    assert "no trial of the number or key 'zzzz'" in nas("show", run, "zzzz", code=2).stderr


def test_other_settings_for_a_recorded_study_are_refused(nas, run: Path) -> None:
    done = nas("search", "mobile-cnn", "--out", run, "--trials", 3, code=2)
    assert "give the same" in done.stderr.lower()


def test_a_damaged_record_is_one_line(nas, tmp_path: Path) -> None:
    (tmp_path / "record.db").write_bytes(b"no database at all" * 100)
    for command in (("show", tmp_path), ("search", "mobile-cnn-small", "--out", tmp_path)):
        done = nas(*command, code=2)
        assert "is not a database" in done.stderr
        assert done.stderr.count("\n") == 1


def test_settings_come_from_a_file_too(nas, tmp_path: Path) -> None:
    settings = 'space = "mobile-cnn-small"\ndata = "digits"\nobjectives = ["params", "macs"]\n'
    (tmp_path / "study.toml").write_text(settings + "trials = 4\nseed = 3\nworkers = 0\n")
    done = nas("search", "--config", tmp_path / "study.toml", "--out", tmp_path / "r", "--json")
    assert json.loads(done.stdout)["complete"] == 4
    (tmp_path / "bad.toml").write_text(settings + "trails = 4\n")
    bad = nas("search", "--config", tmp_path / "bad.toml", "--out", tmp_path / "b", code=2)
    assert "Did you mean 'trials'?" in bad.stderr
    (tmp_path / "torn.toml").write_text(settings + "trials = [\n")
    torn = nas("search", "--config", tmp_path / "torn.toml", "--out", tmp_path / "t", code=2)
    assert "torn.toml" in torn.stderr
    assert torn.stderr.count("\n") == 1


def test_spaces_and_bench_print_figures(nas) -> None:
    rows = json.loads(nas("spaces", "mobile-cnn-small", "--json").stdout)
    assert rows[0]["low"] <= 3.0632e12 <= rows[0]["high"]
    result = json.loads(nas("bench", "candidates", "--seconds", "0.2", "--json").stdout)
    assert result["p10"] <= result["median"] <= result["p90"]


@pytest.mark.slow
def test_a_trial_costs_little_and_no_more_after_100000(nas) -> None:
    """The whole way of a trial, from ask to tell, through the driver; needs a quiet machine."""
    result = json.loads(nas("bench", "record", "--trials", 100_000, "--json").stdout)
    assert result["trials"] >= 100_000
    assert result["last"] <= 5
    assert result["last"] <= 2 * result["first"]
    assert max(result["front"], result["summary"]) <= 2000
