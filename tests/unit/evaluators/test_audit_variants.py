"""Variants that round to few bits: what rounding does to outputs is granted, faults are not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save, save_file

from evaluators.audit import audit as module_of_audit
from evaluators.audit.audit import audit_export
from evaluators.audit.cases import Case, cases_of
from evaluators.audit.truth import Truth
from search_spaces.architecture import Architecture
from search_spaces.export.values import Format
from search_spaces.export.write import Order, checksum, example_inputs, export_network
from search_spaces.pack import prepare
from tests.exporting import trained

DENSE = Architecture.parse("input 1x8x8; conv 8 k3 bn relu; conv 8 k3; gap; flatten; linear 3")
LOW = DENSE.with_variant([2], "w8a8")


def _truth(net: Architecture, form: str = "plain") -> Truth:
    module = trained(net)
    if net.regions:
        module = prepare(net, module, example_inputs(net, 16))
    return Truth(net, module.eval(), Order(form, ("python",)))  # type: ignore[arg-type]


def _passes(truth: Truth, kind: Format, difference: float, folder: Path) -> bool:
    """Tell whether outputs pass that are off by a share of the largest."""
    output = torch.tensor([[1.0, -0.5]])
    save_file({"0000.output": output + torch.tensor([[0.0, difference]])}, folder / "results")
    job = {"format": kind, "results": str(folder / "results")}
    case = Case((torch.zeros(1, 1, 8, 8),), False, output, {})
    return module_of_audit._check_outputs(truth, job, {}, [case]).passed


@pytest.mark.parametrize("form", ["plain", "packed"])
@pytest.mark.parametrize(("own", "granted"), [(0.0, 1e-4), (0.002, 0.02), (0.5, 0.1)])
def test_ten_times_their_own_rounding_is_granted_and_no_more_than_a_tenth(
    form: str, own: float, granted: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_of_audit, "own_rounding", lambda *_: own)
    truth = _truth(LOW, form)
    assert _passes(truth, "python", 0.95 * granted, tmp_path)
    assert not _passes(truth, "python", 1.05 * granted, tmp_path)


def test_a_network_that_does_not_round_is_held_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_of_audit, "own_rounding", lambda *_: 0.5)
    truth = _truth(DENSE)
    assert not _passes(truth, "python", 2e-5, tmp_path)
    assert _passes(truth, "onnx", 0.9e-3, tmp_path)
    assert not _passes(truth, "onnx", 1.1e-3, tmp_path)


def test_a_packed_form_that_is_wrong_is_not_granted_its_own_error(tmp_path: Path) -> None:
    truth = _truth(LOW)
    right = cases_of(truth, training=False)
    wrong = [dataclasses.replace(case, output=1.05 * case.output) for case in right]
    results = {f"{n:04d}.output": case.output.contiguous() for n, case in enumerate(right)}
    save_file(results, tmp_path / "results")
    job = {"format": "python", "results": str(tmp_path / "results")}
    assert module_of_audit._check_outputs(truth, job, {}, right).passed
    assert not module_of_audit._check_outputs(truth, job, {}, wrong).passed


def test_weights_that_differ_are_a_fault(tmp_path: Path) -> None:
    truth, folder = _truth(LOW), tmp_path / "out"
    export_network(truth.architecture, truth.module, folder, truth.order)
    assert audit_export(folder, truth).passed
    state = load((folder / "model.safetensors").read_bytes())
    name = next(key for key in state if key.startswith("linear") and key.endswith("bias"))
    state[name] = state[name] + 1.0
    content = save(state)
    (folder / "model.safetensors").write_bytes(content)
    about = json.loads((folder / "export.json").read_text())
    about["files"]["model.safetensors"] = {"sha256": checksum(content), "bytes": len(content)}
    (folder / "export.json").write_text(json.dumps(about))
    failed = [check.name for check in audit_export(folder, truth).failures]
    assert failed == ["outputs of python"]
