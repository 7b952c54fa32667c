"""Flags, TOML keys and settings are one and the same list."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nas.commands.settings import POSITIONAL, flags_of, given_settings
from studies.config import StudyConfig
from tests.unit.nas.conftest import Run

_OF_THE_COMMAND = {"--out", "--config", "--database", "--plain", "--json", "--help"}


def test_help_lists_a_flag_for_every_setting_and_no_other(nas) -> None:
    text = nas("search", "--help").stdout
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - _OF_THE_COMMAND
    made = {
        flag for name in StudyConfig.model_fields if name != POSITIONAL for flag in flags_of(name)
    }
    assert shown == made


def test_every_setting_is_described_and_says_its_default(nas) -> None:
    text = " ".join(nas("search", "--help").stdout.split())
    assert "How candidates are trained: a name" in text
    assert f"[{StudyConfig.model_fields['recipe'].default}]" in text
    assert f"[{StudyConfig.model_fields['trials'].default}]" in text


_GIVEN = {
    "name": "n",
    "space": "mobile-cnn-small",
    "data": "digits",
    "objectives": ["params,latency_ms[batch=8,cache=cold]", "macs"],
    "constraints": ["params<=20k", "macs<=1M"],
    "funnel": ["rf_gain:0.5"],
    "rungs": ["0.25", "2:0.5"],
    "control": 0.2,
    "trials": 3,
    "candidates": 30,
    "minutes": 1.5,
    "device_minutes": 2.0,
    "recipe": "digits-full",
    "repeat": 2,
    "seed": 5,
    "device": "cpu",
    "threads": 2,
    "sampler": "random",
    "workers": 2,
    "ray": "local",
    "gpus": 0.5,
    "lookahead": 2,
    "trial_minutes": 0.5,
    "trial_memory_mb": 900,
    "baselines": ["torchvision:resnet18"],
    "enqueue": ["a.json", "b.json"],
    "evaluators": ["own.py:score"],
    "max_repeats": 7,
    "max_failures": 8,
    "max_drops": 9,
}


def test_flags_give_the_settings_a_file_gives(tmp_path) -> None:
    both = _GIVEN.keys() | {"from_model", "variants"}  # which stand in place of a space
    assert both == StudyConfig.model_fields.keys(), "a new setting needs a row above"
    lines = [
        f"{key} = {_toml(value)}" for key, value in _GIVEN.items() if key not in ("objectives",)
    ]
    lines.append('objectives = ["params", "latency_ms[batch=8,cache=cold]", "macs"]')
    (tmp_path / "study.toml").write_text("\n".join(lines))
    from_file = StudyConfig.from_toml(tmp_path / "study.toml")
    assert StudyConfig(**given_settings(_GIVEN)) == from_file
    assert from_file.names == ("params", "latency_ms[batch=8,cache=cold]", "macs")
    model = {"from_model": "torchvision:resnet18", "variants": ["shfl_bw"]}
    rest = {key: value for key, value in _GIVEN.items() if key != "space"} | model
    assert StudyConfig(**given_settings(rest)).from_model == model["from_model"]


def test_a_run_lies_where_the_flag_the_file_or_a_name_says(
    inside: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ("--objectives", "params,macs", "--trials", 1, "--workers", 0, "--json")

    def place(*arguments: object) -> tuple[str, str]:
        code, out, problems = inside("search", *arguments, *settings)
        assert code == 0, problems
        summary = json.loads(out)
        return summary["run"], summary["study"]

    small = "mobile-cnn-small"
    Path("mine.toml").write_text(f'space = "{small}"\n')
    Path("there.toml").write_text(f'space = "{small}"\nout = "there/it is"\nname = "s"\n')
    assert place(small) == (f"runs/{small}", small)
    assert place(small, "--name", "first") == ("runs/first", "first")
    assert place("--config", "mine.toml") == ("runs/mine", "mine")
    assert place("--config", "there.toml") == ("there/it is", "s")
    assert place("--config", "there.toml", "--out", "here") == ("here", "s")


def _toml(value: object) -> str:
    return str(value).replace("'", '"') if isinstance(value, list) else repr(value)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("nas search mobile-cnn-s", "mobile-cnn-small"),
        ("nas search mobile-cnn --sampler evo", "evolution"),
        ("nas search mobile-cnn --recipe digits-f", "digits-full"),
        ("nas search mobile-cnn --data dig", "digits"),
        ("nas search mobile-cnn --objectives params,lat", "params,latency_ms"),
        ("nas search mobile-cnn --trial-mi", "--trial-minutes"),
        ("nas profile nas-b", "nas-bench-201"),
        ("nas doc", "doctor"),
    ],
)
def test_the_shell_completes_names(words: str, offered: str) -> None:
    import os
    import subprocess
    import sys

    environment = {
        **os.environ,
        "_NAS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "nas"], env=environment, capture_output=True, text=True, check=False
    )
    assert offered in done.stdout.split()
