"""The tool from Python."""

from __future__ import annotations

import inspect
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch

import nas
from kernels.errors import NasError
from search_spaces.builder import NetworkBuilder


@nas.space("in-a-test", version=1)
def in_a_test(choose, data):
    net = NetworkBuilder(data.input_shape)
    x = net.conv(net.input, choose("width", [2, 3, 4, 5, 6, 8]), kernel=3, stride=2)
    return net.classifier(x, data.classes)


def test_a_space_and_a_lambda_make_a_study(tmp_path: Path) -> None:
    calls: list[int] = []

    def weight(module: torch.nn.Module, data: object) -> float:
        calls.append(1)
        return sum(tensor.abs().sum().item() for tensor in module.parameters())

    arguments = {
        "data": "digits",
        "objectives": {"weight": "min", "params": "min"},
        "evaluate": lambda module, data: weight(module, data),
        "out": tmp_path / "run",
        "trials": 4,
        "sampler": "random",
    }
    study = nas.search(in_a_test, **arguments)
    assert len(calls) == 4
    front = study.front()
    assert front
    assert study.best().values["weight"] == min(point.values["weight"] for point in front)
    assert study.best("params").values["params"] == min(p.values["params"] for p in front)
    states = [trial.state for trial in study.trials()]
    assert states.count("complete") == 4
    for point in front:
        module = point.build(weights=False)
        assert isinstance(module, torch.nn.Module)
        assert sum(p.numel() for p in module.parameters()) == point.values["params"]
    with pytest.raises(NasError, match="no trained weights"):
        front[0].build()
    assert nas.search(in_a_test, **arguments).front() == front
    assert len(calls) == 4, "the same call goes on; nothing is left to do"


def test_a_recorded_front_is_built_with_its_weights_and_exported(run: Path, tmp_path: Path) -> None:
    from evaluators.accuracy.data import load_dataset
    from evaluators.accuracy.evaluation import evaluate

    study = nas.open_study(run)
    best = study.best()
    module = best.build()
    accuracy = evaluate(module, load_dataset("digits").validation).value
    assert accuracy == pytest.approx(best.values["accuracy"])
    low, high = best.spread["accuracy"]
    assert low <= accuracy <= high
    folder = best.export(tmp_path / "model")
    assert (folder / "model.safetensors").is_file()
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(nas.load(folder)(x), module(x))


def test_exports_from_python_have_all_that_the_command_has(run: Path) -> None:
    copy = Path(shutil.copytree(run, run.parent / "for-python"))
    study = nas.open_study(copy)
    best = study.best()
    folder = best.export(form="packed", to="python, pt2", device="cpu", latency_tolerance=1000.0)
    assert folder == copy / "exports" / f"r-{best.key[:12]}-packed"
    assert {"model.py", "model.pt2"} <= {item.name for item in folder.iterdir()}
    audit = best.audits()[-1]
    assert (audit.form, audit.formats, audit.passed) == ("packed", ("python", "pt2"), True)
    assert study.export() == [
        copy / "exports" / f"r-{point.key[:12]}-plain" for point in study.front()
    ]
    with pytest.raises(NasError, match="Unknown format of an export 'tflite'"):
        best.export(to="tflite")
    with pytest.raises(NasError, match="Unknown form of an export 'flat'"):
        study.export(form="flat")


def test_a_failed_audit_is_raised_with_its_reason(run: Path) -> None:
    copy = Path(shutil.copytree(run, run.parent / "for-failing"))
    study = nas.open_study(copy)
    best = study.best()
    best.export()
    with sqlite3.connect(copy / "record.db") as connection:
        connection.execute("update value set value = 2 where metric = 'test_accuracy'")
    connection.close()
    for export in (best.export, study.export):
        with pytest.raises(NasError, match="failed its audit: test_accuracy of python") as caught:
            export()
        assert "\n" not in str(caught.value)
    assert not best.audits()[-1].passed


def test_networks_are_compared(run: Path) -> None:
    first, second = (nas.Architecture.parse(f"input 3x8x8; conv {n} k3; gap") for n in (4, 8))
    found = nas.compare(first, second)
    assert found.params == (108, 216)
    assert "~ conv1: conv 4 k3, 4x8x8 -> conv 8 k3, 8x8x8" in str(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": "mobilnet"}, "Unknown space"),
        ({"space": 3}, "decorated with @space"),
        ({"trails": 3}, "Unknown setting 'trails'"),
        ({"objectives": {"params": "max"}}, "better when it is small"),
        ({"objectives": ["params"], "evaluate": abs}, "What does evaluate return"),
    ],
)
def test_bad_arguments_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    good = {"space": "mobile-cnn-small", "data": "digits", "objectives": ["params", "macs"]}
    with pytest.raises(NasError, match=message):
        nas.search(**{**good, "out": tmp_path / "run", **change})


def test_nothing_is_recorded_under_another_name() -> None:
    assert "space" in inspect.signature(nas.search).parameters


def test_an_unknown_study_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(NasError, match="Unknown study"):
        nas.open_study(run, "other")
    with pytest.raises(NasError, match="no record"):
        nas.open_study(tmp_path)
