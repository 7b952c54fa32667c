"""The audit lets a true export pass, and catches each fault that was planted in one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from evaluators.accuracy.data import Split
from evaluators.accuracy.evaluation import evaluate
from evaluators.audit import child
from evaluators.audit import latency as audit_latency
from evaluators.audit.audit import audit_export
from evaluators.audit.cases import cases_of, own_rounding
from evaluators.audit.process import run_jobs
from evaluators.audit.truth import Latency, Truth
from evaluators.audit.values import HEADER, Audit, Check
from evaluators.latency.latency import LatencyEvaluator
from kernels.device import detect
from search_spaces.architecture import Architecture
from search_spaces.export.programs import program_bytes, trace_program
from search_spaces.export.values import FORMATS, MODEL_FILES, Facts, Figure, Preprocessing
from search_spaces.export.write import Order, checksum, export_network
from tests.exporting import trained

NET = Architecture.parse(
    "input 1x8x8; conv 8 k3 bn relu; sliding 8 bn relu; gap; flatten; linear 3"
)
IMAGES = Preprocessing((1, 8, 8), (0.3,), (0.25,), ("cat", "dog", "hen"))
FACTS = Facts("one", "study", 3, {"accuracy": Figure(0.9, 0.8, 0.95)})
ORDER = Order("plain", ("python",), FACTS, IMAGES)
EVERY = dataclasses.replace(ORDER, to=FORMATS)


def _split(*, as_bytes: bool) -> Split:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (60,), generator=generator)
    levels = torch.tensor([IMAGES.mean, IMAGES.std]).mul(255).reshape(2, 1, 1, 1)
    if as_bytes:
        return Split(pixels, labels, levels)
    return Split((pixels.float() - levels[0]) / levels[1], labels)


def _truth(order: Order = ORDER, **changes: object) -> Truth:
    module, split = trained(NET), _split(as_bytes=True)
    stated = evaluate(module, split).value
    truth = Truth(NET, module, order, test=split, test_accuracy=stated)
    return dataclasses.replace(truth, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("audit") / "out"
    export_network(NET, trained(NET), directory, ORDER)
    return directory


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("every") / "out"
    export_network(NET, trained(NET), directory, EVERY)
    return directory


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def _forge(folder: Path, name: str, content: bytes) -> None:
    """Change a file and the checksum that would give it away."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "export.json").read_text())
    manifest["files"][name] = {"sha256": checksum(content), "bytes": len(content)}
    (folder / "export.json").write_text(json.dumps(manifest))


def _failed(audit: Audit) -> dict[str, str]:
    return {check.name: check.note for check in audit.failures}


@pytest.mark.parametrize("as_bytes", [True, False], ids=["bytes", "floats"])
def test_a_true_export_passes(exported: Path, as_bytes: bool) -> None:
    audit = audit_export(exported, _truth(test=_split(as_bytes=as_bytes)))
    assert audit.passed, audit.rows()
    checks = {check.name: check for check in audit.checks}
    assert list(checks) == [
        *("files", "network", "model card", "outputs of python", "test_accuracy of python"),
        "preprocessing",
    ]
    accuracy = checks["test_accuracy of python"]
    assert accuracy.stated == evaluate(trained(NET), _split(as_bytes=True)).value
    assert accuracy.gap == 0
    assert audit.key == NET.key
    assert audit.seconds > 0


def test_weights_of_another_point_in_every_format(everything: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(everything, tmp_path / "all"))
    export_network(NET, trained(NET, seed=1), tmp_path / "other", EVERY)
    for name in ("model.safetensors", "model.pt2", "model.onnx"):
        _forge(copy, name, (tmp_path / "other" / name).read_bytes())
    failed = _failed(audit_export(copy, _truth(EVERY)))
    assert {f"outputs of {kind}" for kind in FORMATS} <= failed.keys()
    assert "weights of safetensors" in failed
    assert "files" not in failed


def test_truncated_files_in_every_format(everything: Path, tmp_path: Path) -> None:
    """Their checksums are forged too: each must be found by loading it."""
    copy = Path(shutil.copytree(everything, tmp_path / "all"))
    for name in MODEL_FILES.values():
        content = (copy / name).read_bytes()
        _forge(copy, name, content[: len(content) // 2])
    failed = _failed(audit_export(copy, _truth(EVERY)))
    for kind in FORMATS:
        assert "does not load" in failed[f"outputs of {kind}"]
    assert "does not load" in failed["weights of safetensors"]
    assert "does not run" in failed["preprocessing"]
    assert "files" not in failed


def test_weights_that_differ_a_little(copy: Path) -> None:
    state = load((copy / "model.safetensors").read_bytes())
    name = next(key for key in state if key.startswith("linear") and key.endswith("bias"))
    state[name] = state[name] + 1e-3
    _forge(copy, "model.safetensors", save(state))
    failed = _failed(audit_export(copy, _truth()))
    assert set(failed) == {"outputs of python"}


def test_rounding_is_that_of_float32() -> None:
    truth = _truth()
    cases = cases_of(truth, training=False)
    rounding = own_rounding(truth.module, cases)
    assert 1e-9 < rounding < 1e-6  # float32 has a step of 1.2e-7
    with torch.no_grad():
        exact = [x.double() for x in cases[0].inputs]
        doubled = dataclasses.replace(cases[0], output=trained(NET).double()(*exact) * (1 + 1e-3))
    assert own_rounding(truth.module, [doubled]) == pytest.approx(1e-3, rel=1e-3)


def test_a_changed_normalisation(copy: Path) -> None:
    stated = json.loads((copy / "preprocessing.json").read_text())
    _forge(copy, "preprocessing.json", json.dumps({**stated, "mean": [0.31]}).encode())
    failed = _failed(audit_export(copy, _truth()))
    assert "preprocessing" in failed
    assert "mean is [0.31], that of the data [0.3]" in failed["preprocessing"]


def test_a_normalisation_that_is_stated_and_not_applied(copy: Path) -> None:
    source = (copy / "reload.py").read_text()
    changed = source.replace("return (images - mean) / std", "return images - mean")
    assert changed != source
    _forge(copy, "reload.py", changed.encode())
    failed = _failed(audit_export(copy, _truth()))
    assert "preprocessing" in failed


def test_swapped_classes(copy: Path) -> None:
    stated = json.loads((copy / "preprocessing.json").read_text())
    _forge(copy, "preprocessing.json", json.dumps({**stated, "classes": ["b", "a", "c"]}).encode())
    assert "preprocessing" in _failed(audit_export(copy, _truth()))


def test_a_truncated_file(copy: Path) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    failed = _failed(audit_export(copy, _truth()))
    assert f"model.safetensors is truncated: {len(data) // 2} of {len(data)}" in failed["files"]
    assert "does not load" in failed["outputs of python"]


def test_a_truncated_file_that_its_checksum_does_not_give_away(copy: Path) -> None:
    data = (copy / "model.safetensors").read_bytes()
    _forge(copy, "model.safetensors", data[:-8])
    assert "is damaged" in _failed(audit_export(copy, _truth()))["outputs of python"]


def test_a_model_card_that_disagrees(copy: Path) -> None:
    card = (copy / "model_card.md").read_text()
    _forge(copy, "model_card.md", card.replace("| 0.9 |", "| 0.99 |").encode())
    failed = _failed(audit_export(copy, _truth()))
    assert set(failed) == {"model card"}
    assert "0.99" in failed["model card"]
    assert "the record" in failed["model card"]


@pytest.mark.parametrize("keep", [5, 0])
def test_a_model_card_that_is_cut_short(copy: Path, keep: int) -> None:
    lines = (copy / "model_card.md").read_text().splitlines()[:keep]
    _forge(copy, "model_card.md", "\n".join(lines).encode())
    assert set(_failed(audit_export(copy, _truth()))) == {"model card"}


def test_an_accuracy_that_was_overstated(exported: Path) -> None:
    truth = _truth()
    assert truth.test_accuracy is not None
    stated = truth.test_accuracy + 0.05
    audit = audit_export(exported, dataclasses.replace(truth, test_accuracy=stated))
    assert set(_failed(audit)) == {"test_accuracy of python"}
    assert audit.failures[0].gap == pytest.approx(-0.05)


def test_another_network(copy: Path) -> None:
    other = Architecture.parse("input 1x8x8; conv 4 k3 bn relu; gap; flatten; linear 3")
    _forge(copy, "architecture.json", json.dumps(other.to_json()).encode())
    assert set(_failed(audit_export(copy, _truth()))) == {"network"}


def test_a_plain_export_that_needs_this_project(copy: Path) -> None:
    source = (copy / "model.py").read_text()
    _forge(copy, "model.py", f"import search_spaces\n{source}".encode())
    assert "search_spaces" in _failed(audit_export(copy, _truth()))["outputs of python"]


def test_an_export_that_ends_the_process(copy: Path) -> None:
    _forge(copy, "model.py", b"import os\nos._exit(3)\n")
    failed = _failed(audit_export(copy, _truth()))
    assert "the process ended: exit code 3" in failed["outputs of python"]
    assert "the process ended" in failed["test_accuracy of python"]


@pytest.mark.parametrize("name", sorted({"model.py", "reload.py", "model_card.md", "export.json"}))
def test_a_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert "files" in _failed(audit_export(copy, _truth()))


def _measured(study: float) -> Latency:
    return Latency("latency_ms", Figure(study, study * 0.9, study * 1.1), {"batch": 1})


def _slowed(folder: Path) -> None:
    source = (folder / "model.py").read_text()
    before = '        """Map x (b, 1, 8, 8) to (b, 3)."""\n'
    assert source.count(before) == 1
    slow = source.replace(before, f"{before}        time.sleep(0.02)\n")
    slow = slow.replace("import torch\n", "import time\n\nimport torch\n", 1)
    _forge(folder, "model.py", slow.encode())


class _Wasteful(nn.Module):
    """The network, and 2 x 1024^3 operations that change nothing."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("matrix", torch.randn(1024, 1024))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) + 0.0 * (self.matrix @ self.matrix)[0, 0]


def test_a_slower_kernel_in_a_packed_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_latency, "_TIMINGS", 1)
    order = dataclasses.replace(ORDER, form="packed", to=("python", "pt2"))
    (measured,) = LatencyEvaluator(detect("cpu")).evaluate(NET)
    # Ten times what it takes: other work on this machine must not decide, 20 ms more must.
    stated = measured.value * 10
    assert stated < 15
    truth = _truth(order, test=None, latencies=(_measured(stated),))
    export_network(NET, trained(NET), tmp_path / "out", order)
    audit = audit_export(tmp_path / "out", truth)
    assert audit.passed, audit.rows()
    names = [check.name for check in audit.checks[-2:]]
    assert names == ["latency_ms of python", "latency_ms of pt2"]
    _slowed(tmp_path / "out")
    example = [torch.randn(2, 1, 8, 8)]
    slow = program_bytes(trace_program(_Wasteful(trained(NET)), example))
    _forge(tmp_path / "out", "model.pt2", slow)
    audit = audit_export(tmp_path / "out", truth)
    assert set(_failed(audit)) == {*names}
    for check in audit.failures:
        assert check.gap is not None
        assert check.gap > 10
        assert "built by the study" in check.note


def _timed(export: float, *, native: float, traced: float | None, disturbed: bool) -> Check:
    """Judge a packed .pt2 that takes so long; the study measured 1 ms, 1.1 at the slow end."""
    answer = {
        "ms": {"pt2": export},
        "native": native,
        "traced": traced,
        "refused": {},
        "apart": {},
        "disturbed": ["9 of 10 rounds were disturbed"] if disturbed else [],
    }
    truth = _truth(dataclasses.replace(ORDER, form="packed", to=("pt2",)))
    return audit_latency._check(truth, _measured(1.0), "pt2", 0.15, answer)


def test_latencies_are_judged_by_the_studys_spread_and_what_running_a_graph_costs() -> None:
    limit = 1.1 * 1.15
    assert _timed(limit - 0.01, native=1.0, traced=None, disturbed=False).passed
    assert not _timed(limit + 0.01, native=1.0, traced=None, disturbed=False).passed
    assert _timed(limit + 0.19, native=1.0, traced=1.2, disturbed=False).passed
    assert not _timed(limit + 0.21, native=1.0, traced=1.2, disturbed=False).passed


def test_where_other_work_disturbs_an_export_is_judged_beside_the_studys_network() -> None:
    quiet = _timed(2.2, native=2.0, traced=None, disturbed=False)
    assert not quiet.passed  # the device is slower than it was, and nothing explains it
    beside = _timed(2.2, native=2.0, traced=None, disturbed=True)
    assert beside.passed
    assert beside.gap == pytest.approx(1.2)
    assert beside.tolerance == pytest.approx(2 * 1.1 * 1.15 - 1)
    assert "judged beside the study's network" in beside.note
    assert not _timed(2.6, native=2.0, traced=None, disturbed=True).passed


def test_the_latency_of_a_plain_export_is_shown_and_not_judged(
    everything: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(everything, tmp_path / "all"))
    _slowed(copy)
    truth = _truth(EVERY, latencies=(_measured(1e-3),), device_note="elsewhere")
    audit = audit_export(copy, truth)
    assert audit.passed, audit.remarks()
    shown = audit.checks[-3:]
    assert [check.name for check in shown] == [
        f"latency_ms of {kind}" for kind in ("python", "pt2", "onnx")
    ]
    assert all(check.tolerance is None and "elsewhere" in check.note for check in shown)
    assert all(check.found is not None and check.found > 0 for check in shown)
    assert shown[0].found is not None
    assert shown[0].found > 20


def test_a_format_that_cannot_be_timed_as_the_study_did_says_so() -> None:
    half = LatencyEvaluator(detect("cpu"), dtype="bfloat16")
    assert child._apart("python", half) == ""
    reason = child._apart("pt2", half)
    assert reason == "pt2 stays in float32, the study measured bfloat16"
    answer = {"ms": {}, "refused": {}, "apart": {"pt2": reason}, "disturbed": []}
    check = audit_latency._check(_truth(), _measured(1.0), "pt2", 0.15, answer)
    assert check.passed
    assert check.note == f"not timed: {reason}"
    assert Audit("packed", ("pt2",), "", (check,)).rows()[0][-1] == "not measured"


def test_an_audit_survives_json() -> None:
    checks = (
        Check("files", True),
        Check("outputs of onnx", False, 0.0, 0.5, 1e-5, "of the largest output", "why"),
        Check("latency_ms of python", True, 1.0, 2.0, None, "ms"),
    )
    audit = Audit("plain", ("python", "onnx"), "abc", checks, "cpu", 1.5)
    document = json.loads(json.dumps(audit.to_json()))
    assert Audit.from_json(document) == audit
    assert document["passed"] is False
    assert [item["gap"] for item in document["checks"]] == [None, 0.5, 1.0]


def test_the_gap_table_has_a_row_for_each_check() -> None:
    checks = (
        Check("files", True),
        Check("outputs of onnx", False, 0.0, 0.5, 1e-5, note="why"),
        Check("latency_ms of python", True, 1.0, 2.0, None, "ms", "busy"),
    )
    audit = Audit("plain", ("python",), "abc", checks)
    assert all(len(row) == len(HEADER) for row in audit.rows())
    assert [row[-1] for row in audit.rows()] == ["passed", "FAILED", "shown"]
    assert audit.rows()[2][:4] == ["latency_ms of python", "1", "2", "+1"]
    assert audit.remarks() == ["outputs of onnx: why", "latency_ms of python: busy"]


def test_packages_are_found_where_this_project_found_them_but_not_by_a_plain_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "far_away.py").write_text("WORD = 'here'\n")
    (tmp_path / "reload.py").write_text("import far_away\nraise RuntimeError(far_away.WORD)\n")
    monkeypatch.syspath_prepend(str(tmp_path / "far"))
    job = {"task": "weights", "directory": str(tmp_path), "format": "safetensors"}
    assert run_jobs([job], alone=False) == [{"error": "RuntimeError: here"}]
    (answer,) = run_jobs([job], alone=True)
    assert answer["error"].startswith("ModuleNotFoundError: No module named 'far_away'")
