"""``nas proxies``: against a table, against a study, and the networks that it improves."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

import nas as api
from evaluators.cost import analytic_cost
from search_spaces.architecture import Architecture
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space
from search_spaces.zoo.nas_bench_201 import to_string

CIFAR = DataSpec((3, 32, 32), 10)
VGG = (
    "input 3x32x32; conv 16 k3 bn relu; conv 16 k3 bn relu; maxpool k2 s2; conv 32 k3 bn relu; "
    "conv 32 k3 bn relu; conv 32 k3 bn relu; gap; flatten; linear 10"
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a table whose quality is the number of layers, dead networks first."""
    space = load_space("nas-bench-201")
    lines = ["index,arch_str,quality", "0,|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,99"]
    for index in range(1, 41):
        drawn = space.sample(Random(index), CIFAR)
        layers = analytic_cost(drawn.architecture).layers
        lines.append(f"{index},{to_string(drawn.decisions)},{layers}")
    file = tmp_path_factory.mktemp("table") / "table.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_bench_ranks_the_live_networks_of_a_table(nas, table: Path) -> None:
    done = nas("proxies", "bench", table, "--truth", "quality", "--networks", 0, "--json")
    result = json.loads(done.stdout)
    found = result["truths"]["quality"]
    assert result["networks"] <= 40  # the dead one is left out
    assert found["layers"]["rho"] == pytest.approx(1)
    assert found["layers"]["tau"] == pytest.approx(1)
    assert found["layers"]["found"] == found["layers"]["best"] < 99
    assert 0 < found["joint_rank"]["tau"] < 1


def test_bench_scores_fresh_networks_over_seeds(nas, table: Path) -> None:
    options = ("--truth", "quality", "--networks", 4, "--proxy", "naswot", "--seeds", 2)
    done = nas("proxies", "bench", table, *options, "--device", "cpu")
    assert "deviation over 2 seeds" in done.stdout
    assert "naswot" in done.stdout


def test_bench_goes_on_where_it_was_cut_off(nas, table: Path, tmp_path: Path) -> None:
    """A cut off run leaves whole lines and perhaps a part of one; two processes do the rest."""
    out = tmp_path / "fresh.jsonl"
    options = ("--truth", "quality", "--networks", 5, "--proxy", "narrowest", "--seeds", 2)
    command = ("proxies", "bench", table, *options, "--device", "cpu", "--out", out, "--json")
    whole = json.loads(nas(*command).stdout)
    lines = out.read_text().splitlines(keepends=True)
    assert len(lines) == len({json.loads(line)["key"] for line in lines}) >= 8
    out.write_text("".join(lines[:3]) + lines[3][:20])
    again = nas(*command, "--processes", 2)
    assert f"3 fresh networks are in {out}" in again.stderr
    assert json.loads(again.stdout)["truths"] == whole["truths"]
    assert out.read_text().splitlines(keepends=True)[:3] == lines[:3]
    assert len(out.read_text().splitlines()) == len(lines)


def test_bench_refuses_a_file_that_is_none_of_its_own(nas, table: Path, tmp_path: Path) -> None:
    options = ("--truth", "quality", "--networks", 2, "--proxy", "narrowest", "--device", "cpu")
    for text in ("a,b\n1,2\n", "a,b"):
        (tmp_path / "own.csv").write_text(text)
        done = nas("proxies", "bench", table, *options, "--out", tmp_path / "own.csv", code=2)
        assert "line 1: expected scores of a fresh network" in done.stderr
        assert (tmp_path / "own.csv").read_text() == text


def test_bench_builds_networks_for_a_data_set_and_shows_its_images(nas, table: Path) -> None:
    options = ("--truth", "quality", "--networks", 4, "--proxy", "naswot", "--seeds", 1, "--json")
    command = ("proxies", "bench", table, *options, "--device", "cpu")
    noise, digits = (json.loads(nas(*command, *more).stdout) for more in ((), ("--data", "digits")))
    assert noise["truths"]["quality"]["params"] == digits["truths"]["quality"]["params"]
    assert all(-1 <= item["truths"]["quality"]["naswot"]["tau"] <= 1 for item in (noise, digits))


def test_bench_names_what_it_cannot_read(nas, table: Path) -> None:
    assert "--truth" in nas("proxies", "bench", table, code=2).stderr
    assert (
        "score of fresh"
        in nas("proxies", "bench", table, "--truth", "quality", "--proxy", "x", code=2).stderr
    )


def test_a_study_judges_its_proxies(nas, tmp_path: Path) -> None:
    """The truth is the depth of a network, negated: parameters rank it better than that does."""

    def shallow(module, data):
        return -float(sum(1 for item in module.modules() if type(item).__name__ == "Conv2d"))

    run = tmp_path / "run"
    api.search(
        "mobile-cnn-small",
        data="digits",
        objectives={"shallow": "max", "trainability": "max", "narrowest": "max"},
        evaluate=shallow,
        out=run,
        trials=25,
        sampler="random",
    )
    result = json.loads(nas("proxies", run, "--json").stdout)
    assert result["trained"] >= 20
    proxies = {item["proxy"]: item for item in result["proxies"]}
    assert proxies["depth"]["tau"] < proxies["params"]["tau"]
    assert proxies["depth"]["off"]
    assert not proxies["params"]["off"]
    assert -1 < proxies["joint_probe"]["tau"] < 1  # joined from what the trials recorded
    assert "joint_rank" in nas("proxies", "check", run).stdout


def test_organise_prints_before_and_after_and_writes_what_a_study_takes(
    nas, tmp_path: Path
) -> None:
    room = ("--params", 100_000, "--macs", 20e6)
    done = nas("proxies", "organise", VGG, *room, "--out", tmp_path, "--results", 2, "--json")
    before, best, second = json.loads(done.stdout)["rows"]
    assert before["depths"] == [1, 2]
    assert best["rf_gain"] >= second["rf_gain"]
    assert best["rf_gain"] > before["rf_gain"]
    assert before["params"] < best["params"] <= 100_000
    assert best["macs"] <= 20e6
    written = Architecture.from_json((tmp_path / "organised0.json").read_text())
    assert (written.params, written.macs) == (best["params"], best["macs"])
    own = nas("proxies", "organise", VGG, "--out", tmp_path)
    assert "--enqueue" in own.stdout


def test_organise_measures_latency(nas) -> None:
    done = nas("proxies", "organise", VGG, "--latency-ms", 1000, "--device", "cpu", "--json")
    assert all(row["latency_ms"] > 0 for row in json.loads(done.stdout)["rows"])
    few = ("--latency-ms", 1e-6, "--results", 1, "--device", "cpu")
    assert "best choices keeps" in nas("proxies", "organise", VGG, *few, code=2).stderr


def test_kernels_prints_swaps(nas, tmp_path: Path) -> None:
    done = nas("proxies", "kernels", VGG, "--out", tmp_path)
    assert "DW+PW" in done.stdout
    assert "fewer parameters" in done.stdout
    assert Architecture.from_json((tmp_path / "kernels0.json").read_text()).params < 17000
