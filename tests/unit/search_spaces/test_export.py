"""The plain export reloads to the same outputs where only torch can be imported."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluators.audit import audit_plain
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.export.plain import export_plain
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space

TEXT = (
    "input 4x6x6; conv 8 k3 bn relu; sliding 8 bn; dropout p0.1 path; add @1,3; gap; flatten; "
    "linear 3"
)


def _trained(architecture: Architecture) -> torch.nn.Module:
    """Return a module whose weights and statistics are no initial ones."""
    torch.manual_seed(0)
    module = build(architecture)
    for _ in range(3):
        module(torch.randn(4, *architecture.inputs[0].shape)).sum().backward()
    return module


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("export") / "best"
    architecture = Architecture.parse(TEXT)
    export_plain(architecture, _trained(architecture), directory)
    return directory


def test_a_clean_process_reloads_the_same_outputs(exported: Path) -> None:
    audit = audit_plain(exported)
    assert audit.passed
    assert audit.max_difference <= 1e-5 * max(audit.output_scale, 1.0)
    assert audit.output_scale > 0


def test_files_import_torch_and_the_standard_library_alone(exported: Path) -> None:
    allowed = {"torch", "math", "fractions", "json", "struct", "sys", "pathlib", "model"}
    for name in ("model.py", "reload.py"):
        tree = ast.parse((exported / name).read_text())
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {item.split(".")[0] for item in names} <= allowed


def test_the_description_travels_along(exported: Path) -> None:
    document = json.loads((exported / "architecture.json").read_text())
    assert Architecture.from_json(document) == Architecture.parse(TEXT)


def test_the_module_is_left_as_it_was(tmp_path: Path) -> None:
    architecture = Architecture.parse("input 1x4x4; conv 2 k3 bn; gap; flatten")
    module = _trained(architecture).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export_plain(architecture, module, tmp_path / "out")
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_exporting_again_replaces_the_folder_whole(exported: Path, tmp_path: Path) -> None:
    target = tmp_path / "best"
    architecture = Architecture.parse(TEXT)
    export_plain(architecture, _trained(architecture), target)
    (target / "stray").write_text("left over")
    export_plain(architecture, _trained(architecture), target)
    assert {item.name for item in target.iterdir()} == {item.name for item in exported.iterdir()}
    assert [item.name for item in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize("name", ["mobile-cnn-small", "nas-bench-201"])
def test_random_candidates_pass_their_audit(name: str, tmp_path: Path) -> None:
    architecture = load_space(name).sample(Random(4), DataSpec((3, 16, 16), 10)).architecture
    export_plain(architecture, _trained(architecture), tmp_path / "out")
    assert audit_plain(tmp_path / "out").passed


def _copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for item in source.iterdir():
        (target / item.name).write_bytes(item.read_bytes())
    return target


def test_the_audit_sees_other_weights(exported: Path, tmp_path: Path) -> None:
    copy = _copy(exported, tmp_path / "copy")
    state = load_file(copy / "model.safetensors")
    name = next(key for key in state if key.startswith("linear") and key.endswith("bias"))
    save_file({**state, name: state[name] + 0.01}, copy / "model.safetensors")
    audit = audit_plain(copy)
    assert not audit.passed
    assert audit.max_difference == pytest.approx(0.01, rel=1e-3)


def test_the_audit_tells_of_a_truncated_file(exported: Path, tmp_path: Path) -> None:
    copy = _copy(exported, tmp_path / "copy")
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(NasError, match="does not load"):
        audit_plain(copy)


def test_the_audit_tells_of_an_export_that_needs_this_project(
    exported: Path, tmp_path: Path
) -> None:
    copy = _copy(exported, tmp_path / "copy")
    source = (copy / "model.py").read_text()
    (copy / "model.py").write_text("import search_spaces\n" + source)
    with pytest.raises(NasError, match="search_spaces"):
        audit_plain(copy)
