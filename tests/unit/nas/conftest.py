"""A study small enough to train in seconds, made through the command line once for all tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RECIPE = "digits-short?epochs=4"
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
Command = Callable[..., subprocess.CompletedProcess[str]]
Run = Callable[..., tuple[int, str, str]]
"""Takes arguments; gives the exit code and what stands on the two outputs."""


def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
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


@pytest.fixture(scope="session")
def nas() -> Command:
    return call


@pytest.fixture
def inside(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: what is imported once is there for all."""
    from nas import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli._run([str(item) for item in arguments])
        out, problems = capsys.readouterr()
        return code, out, problems

    return run


@pytest.fixture(scope="session")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("space") / "space.py"
    file.write_text(SPACE)
    return file


@pytest.fixture(scope="session")
def options(space_file: Path) -> list[object]:
    objectives = "accuracy,latency_ms,params"
    quick = ("--recipe", RECIPE, "--device", "cpu")
    return [space_file, "--objectives", objectives, "--trials", 3, *quick]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, options: list[object]) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "r"
    first = call("search", *options, "--out", folder, "--json")
    summary = json.loads(first.stdout)
    assert summary["complete"] == 3
    assert first.stderr.count("accuracy") == 3
    return folder
