"""What ``nas profile`` says, against a space that can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluators.cost import analytic_cost
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space


@pytest.fixture(scope="module")
def every_params(space_file: Path) -> list[int]:
    found = load_space(str(space_file)).enumerate(DataSpec((1, 8, 8), 10))
    return sorted(analytic_cost(item.architecture).params for item in found)


def test_the_ends_of_a_small_space_are_found(
    nas, space_file: Path, every_params: list[int]
) -> None:
    low, high = every_params[0], every_params[-1]
    bounds = ("--constraint", f"params<={low}", "--constraint", f"params<={every_params[5]}")
    done = nas("profile", space_file, "--data", "digits", "--candidates", 200, *bounds, "--json")
    result = json.loads(done.stdout)
    assert result["size"]["exact"]
    assert result["size"]["count"] == len(every_params)
    costs = result["costs"]["params"]
    assert (costs["lowest_found"], costs["highest_found"]) == (low, high)
    tight, loose = result["constraints"]
    assert tight["met"] == loose["met"] == "yes"
    share = sum(value <= every_params[5] for value in every_params) / len(every_params)
    assert loose["share"] == pytest.approx(share, abs=0.15)


def test_a_constraint_below_everything_ends_with_code_1(
    nas, space_file: Path, every_params: list[int]
) -> None:
    bound = f"params<={every_params[0] - 1}"
    done = nas("profile", space_file, "--data", "digits", "--constraint", bound, code=1)
    assert "CANNOT BE MET by anything found" in done.stdout
    assert "not a proof" in done.stdout


def test_a_latency_is_measured_and_an_accuracy_is_not_known(nas, space_file: Path) -> None:
    bounds = ("latency_ms<=1000", "latency_ms<=0.000001", "accuracy>=0.5")
    flags = [item for bound in bounds for item in ("--constraint", bound)]
    few = ("--data", "digits", "--candidates", 10, "--device", "cpu", "--json")
    result = json.loads(nas("profile", space_file, *few, *flags, code=1).stdout)
    assert [item["met"] for item in result["constraints"]] == ["yes", "not found", "unknown"]
    assert "cpu" in result["latencies"]["latency_ms"]["device"]


def test_choices_that_matter_come_first(nas, space_file: Path) -> None:
    done = nas("profile", space_file, "--data", "digits", "--candidates", 300, "--json")
    choices = json.loads(done.stdout)["choices"]
    assert {item["choice"] for item in choices} == {"width", "kind"}
    shares = [item["share"] for item in choices]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1.05
