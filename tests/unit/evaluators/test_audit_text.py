"""Language models exported: their tokens travel with them, their cache works, faults are caught."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from evaluators.accuracy.data.load import load_dataset
from evaluators.accuracy.data.text import TextDataset
from evaluators.accuracy.tasks import score_split
from evaluators.audit.audit import audit_export
from evaluators.audit.truth import Truth
from evaluators.audit.values import Audit
from search_spaces.export.values import TextProcessing
from search_spaces.export.write import Order, checksum, export_network
from search_spaces.zoo import load_space
from tests.exporting import trained

TEXT = "Ein Ei, zwei Eier;\nthe quick brown fox - naïve, 'twas 12 years old - jumps.\n\n" * 40
CONTEXT = 16


def _dataset(folder: Path, tokens: str) -> TextDataset:
    (folder / "some.txt").write_text(TEXT)
    dataset = load_dataset(f"text:{folder / 'some.txt'}?context={CONTEXT}&tokens={tokens}")
    assert isinstance(dataset, TextDataset)
    return dataset


def _truth(dataset: TextDataset) -> Truth:
    architecture = load_space("decoder-lm-small").sample(Random(3), dataset.spec).architecture
    about = dataset.tokeniser.to_json()
    processing = TextProcessing(about["kind"], tuple(about["tokens"]), CONTEXT)
    order = Order(to=("python", "safetensors"), preprocessing=processing)
    module = trained(architecture)
    loss = score_split(module, dataset, "test").value
    return Truth(
        architecture,
        module,
        order,
        test=dataset.test,
        tokeniser=dataset.tokeniser,
        test_loss=loss,
    )


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return _truth(_dataset(tmp_path_factory.mktemp("text"), "char"))


@pytest.fixture(scope="module")
def exported(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language") / "out"
    export_network(truth.architecture, truth.module, folder, truth.order)
    return folder


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def _forge(folder: Path, name: str, old: str, new: str) -> None:
    """Change a file and the checksum that would give it away."""
    before = (folder / name).read_text()
    assert before.count(old) == 1
    content = before.replace(old, new).encode()
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "export.json").read_text())
    manifest["files"][name] = {"sha256": checksum(content), "bytes": len(content)}
    (folder / "export.json").write_text(json.dumps(manifest))


def _failed(audit: Audit) -> set[str]:
    return {check.name for check in audit.failures}


def _reload(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("reload_language", folder / "reload.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_true_export_passes(exported: Path, truth: Truth) -> None:
    audit = audit_export(exported, truth)
    assert audit.passed, audit.rows()
    checks = {check.name: check for check in audit.checks}
    loss = checks["test_loss of python"]
    assert loss.stated == truth.test_loss
    assert loss.found == pytest.approx(truth.test_loss, abs=1e-6)
    assert {"outputs of python", "test_loss of safetensors", "preprocessing"} <= checks.keys()
    card = (exported / "model_card.md").read_text()
    assert "python reload.py --generate TEXT  # goes on with a text" in card
    assert f"t up to {CONTEXT}" in card


def test_exchanged_tokens(copy: Path, truth: Truth) -> None:
    _forge(copy, "preprocessing.json", '"a",\n  "b"', '"b",\n  "a"')
    assert _failed(audit_export(copy, truth)) == {"preprocessing"}


def test_a_text_that_is_cut_otherwise(copy: Path, truth: Truth) -> None:
    _forge(copy, "reload.py", "else text\n    tokens = []", "else text.lower()\n    tokens = []")
    assert _failed(audit_export(copy, truth)) == {"preprocessing"}


def test_a_cache_that_loses_what_it_holds(copy: Path, truth: Truth) -> None:
    """Whole sequences are right; what is read token by token is not."""
    _forge(
        copy, "model.py", "buffer[:, :, places % room] = last", "buffer[:, :, places % room] = 0"
    )
    assert _failed(audit_export(copy, truth)) == {"outputs of python"}


def test_an_overstated_loss(exported: Path, truth: Truth) -> None:
    assert truth.test_loss is not None
    other = dataclasses.replace(truth, test_loss=truth.test_loss - 0.01)
    failed = _failed(audit_export(exported, other))
    assert failed == {"test_loss of python", "test_loss of safetensors"}


def test_text_is_the_same_with_a_cache_and_without(exported: Path) -> None:
    """The likeliest text does not depend on how it is computed, within what the model can read."""
    reload = _reload(exported)
    count = CONTEXT - len("zwei")
    texts = [reload.generate("zwei", count, 0, kind) for kind in ("python", "safetensors")]
    assert texts[0] == texts[1]
    assert len(texts[0]) == CONTEXT
    torch.manual_seed(1)
    long = reload.generate("zwei", 5 * CONTEXT)
    assert len(long) == 4 + 5 * CONTEXT
    assert long.startswith("zwei")
    with pytest.raises(SystemExit, match="knows no 'Ω'"):
        reload.generate("Ω", 1)


@pytest.mark.parametrize("tokens", ["byte", "bpe"])
def test_other_tokens_travel_too(tokens: str, tmp_path: Path) -> None:
    truth = _truth(_dataset(tmp_path, tokens))
    export_network(truth.architecture, truth.module, tmp_path / "out", truth.order)
    reload = _reload(tmp_path / "out")
    assert truth.tokeniser is not None
    some = TEXT[:500] + " never seen: Ω ← über\t\u00a0x__y\n \n"
    assert reload.encode(some) == truth.tokeniser.encode(some).tolist()
    assert reload.decode(reload.encode(some)) == some
