"""A variant's system joins through one object: it is packed, exported, audited and loaded again."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluators.audit.audit import audit_export
from evaluators.audit.truth import Truth
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.export.load import load
from search_spaces.export.write import Order, checksum, export_network
from search_spaces.pack import pack
from search_spaces.source import Home, register_layer
from search_spaces.variants import VARIANTS, realise, tolerance_of
from tests.exporting import trained
from tests.rounding import enrol

ROOT = Path(__file__).parents[3]
NET = Architecture.parse(
    "input 3x6x6; conv 8 k3 bn relu; gap; flatten; linear 24 gelu; linear 16; linear 12 @4; "
    "linear 16 @6; add @5,7; linear 3"
)
ONE = NET.with_variant([5], "rounded")
TWO = ONE.with_variant([6, 7], "rounded")
X = torch.randn(9, 3, 6, 6, generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True, scope="module")
def _system() -> Iterator[None]:
    enrol()
    yield
    VARIANTS._entries.pop("rounded")


def test_a_region_becomes_one_operator() -> None:
    realised = realise(TWO, "packed")
    assert [node.op.kind for node in realised.architecture.nodes] == [
        *("input", "conv", "gap", "flatten", "linear", "rounded", "rounded", "add", "linear"),
    ]
    assert realised.origin == (0, 1, 2, 3, 4, 5, 7, 8, 9)
    assert [node.inputs for node in realised.architecture.nodes[5:]] == [(4,), (4,), (5, 6), (7,)]
    assert realised.architecture.output.shape == (3,)
    assert not realised.architecture.regions


def test_a_network_without_variants_is_left_alone() -> None:
    module = trained(NET)
    assert realise(NET, "packed").architecture is NET
    assert pack(NET, module) is module
    assert tolerance_of(NET) == 0.0
    assert tolerance_of(TWO) == 0.02


@pytest.mark.parametrize("network", [ONE, TWO], ids=["a layer", "and a chain"])
def test_both_forms_compute_nearly_what_was_trained(network: Architecture) -> None:
    module = trained(NET)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    packed, plain = (pack(network, module, form) for form in ("packed", "plain"))  # type: ignore[arg-type]
    with torch.no_grad():
        outputs = [made(X) for made in (module, packed, plain)]
    scale = outputs[1].abs().max().item()
    differences = [(item - outputs[1]).abs().max().item() / scale for item in outputs]
    assert 1e-5 < differences[2] < 0.02
    assert 1e-5 < differences[0] < 0.03
    assert "int8" in {str(x.dtype).split(".")[1] for x in packed.state_dict().values()}
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (NET.with_variant([5], "sparse(density=0.25)"), r"sparse.* on 5.*are: .*rounded"),
        (NET.with_variant([1], "rounded"), "takes linear layers with a bias, not conv 8"),
        (NET.with_variant([4, 5], "rounded"), "reads the middle of a region"),
    ],
)
def test_what_no_system_runs_is_one_line(network: Architecture, message: str) -> None:
    for form in ("packed", "plain"):
        with pytest.raises(NasError, match=message) as caught:
            realise(network, form)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_a_layer_has_one_home() -> None:
    register_layer("RoundedLinear", Home("tests.rounding", "tests.rounding"))
    with pytest.raises(NasError, match="registered twice"):
        register_layer("RoundedLinear", Home("somewhere", "else"))


def test_a_packed_export_is_whole_and_audited(tmp_path: Path) -> None:
    order = Order("packed", ("python", "pt2"))
    truth = Truth(TWO, trained(NET), order)
    folder = tmp_path / "packed"
    export_network(TWO, truth.module, folder, order)
    audit = audit_export(folder, truth)
    assert audit.passed, audit.remarks()
    outputs = {check.name: check.found for check in audit.checks}
    assert outputs["outputs of python"] == outputs["outputs of pt2"] == 0.0
    source = (folder / "model.py").read_text()
    assert "from tests.rounding import RoundedLinear" in source
    assert TWO.text.rpartition("; ")[2] in " ".join(source.split())
    weights = load_file(folder / "model.safetensors")
    assert any(tensor.dtype == torch.int8 for tensor in weights.values())
    with torch.no_grad():
        assert torch.equal(load(folder)(X), pack(TWO, truth.module)(X))
    assert Architecture.from_json(json.loads((folder / "architecture.json").read_text())) == TWO


def test_a_plain_export_needs_torch_alone_and_keeps_the_tolerance(tmp_path: Path) -> None:
    order = Order("plain", ("python",))
    truth = Truth(TWO, trained(NET), order)
    folder = tmp_path / "plain"
    export_network(TWO, truth.module, folder, order)
    audit = audit_export(folder, truth)
    assert audit.passed, audit.remarks()
    (python,) = [check for check in audit.checks if check.name == "outputs of python"]
    assert python.tolerance == 0.02
    assert python.found is not None
    assert 1e-5 < python.found < 0.02
    assert "rounding" not in (folder / "model.py").read_text()
    _forge_weights(folder, pack(TWO, trained(NET, seed=1), "plain"))
    failed = {check.name for check in audit_export(folder, truth).failures}
    assert failed == {"outputs of python"}


def _forge_weights(folder: Path, module: torch.nn.Module) -> None:
    save_file(module.state_dict(), folder / "model.safetensors")
    manifest = json.loads((folder / "export.json").read_text())
    content = (folder / "model.safetensors").read_bytes()
    manifest["files"]["model.safetensors"]["sha256"] = checksum(content)
    (folder / "export.json").write_text(json.dumps(manifest))


def test_a_packed_export_names_the_kernels_that_are_missing(tmp_path: Path) -> None:
    order = dataclasses.replace(Order("packed"), to=("pt2",))
    export_network(ONE, trained(NET), tmp_path / "out", order)
    code = (
        "import sys; sys.modules['tests'] = None; sys.path.insert(0, '.'); import reload; "
        "reload.load_model()"
    )
    command = [sys.executable, "-I", "-B", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path / "out", check=False
    )
    assert done.returncode == 1
    assert "tests" in done.stderr
    assert done.stderr.strip().endswith("pip install paretonas")
    assert done.stderr.count("\n") == 1


def test_what_is_built_stays_the_dense_network() -> None:
    assert isinstance(build(TWO), torch.nn.Module)
    assert build(TWO).state_dict().keys() == build(NET).state_dict().keys()
