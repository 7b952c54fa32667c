"""A study that was really trained: its export is a file that loads, its layers are measured."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from studies.config import StudyConfig
from studies.search import run_study
from studies.storage import Repository
from studies.variant_tables import KIND

SPACE = """
from search_spaces.builder import NetworkBuilder
from search_spaces.space import space


@space("tiny", version=1)
def tiny(choose, data):
    net = NetworkBuilder(data.input_shape)
    x = net.conv(net.input, choose("width", [4, 6, 8, 12]), kernel=3, stride=2)
    return net.classifier(x, data.classes)
"""


@pytest.fixture(scope="session", name="trained")
def train_once(tmp_path_factory):
    place = tmp_path_factory.mktemp("trained")
    (place / "space.py").write_text(SPACE)
    config = StudyConfig(
        name="digits",
        space=str(place / "space.py"),
        data="digits",
        objectives=["accuracy", "latency_ms"],
        trials=1,
        device="cpu",
        workers=0,
    )
    run_study(config, place)
    return place


@pytest.fixture(name="place")
def workspace(trained):
    return trained


def downloaded(page, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("link", name="Download .zip").first.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(folder)
    (inner,) = folder.iterdir()
    return inner


def test_the_export_button_ends_in_a_file_that_loads_and_shows_its_audit(
    place, visit, shots, tmp_path
):
    page = visit("trial?study=digits&n=0")
    page.get_by_role("button", name="Export and audit").click()
    page.wait_for_selector(".requests .working")
    page.wait_for_selector("text=audit passed", timeout=300_000)
    page.get_by_text("What the audit found").click()
    page.screenshot(path=shots / "export.png", full_page=True)
    with Repository.open(place / "record.db") as repository:
        (trial,) = repository.trials(repository.study("digits").id)
        (kept,) = [a for a in repository.artifacts(trial.id) if a.kind == "audit"]
    audit = json.loads((place / "artifacts" / f"{kept.content_hash}.json").read_text())["audit"]
    shown = page.get_by_role("table", name="Checks of the audit").locator("tbody tr")
    assert shown.locator("td:nth-child(1)").all_inner_texts() == [
        check["name"] for check in audit["checks"]
    ]
    folder = downloaded(page, tmp_path / "unpacked")
    done = subprocess.run(
        [sys.executable, "-I", "reload.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    example = load_file(folder / "example.safetensors")
    namespace = {"__name__": "model"}
    exec((folder / "model.py").read_text(), namespace)
    module = next(
        item
        for item in namespace.values()
        if isinstance(item, type)
        and issubclass(item, torch.nn.Module)
        and item.__module__ == "model"
    )()
    module.load_state_dict(load_file(folder / "model.safetensors"))
    inputs = [example[name] for name in sorted(example) if name.startswith("input")]
    outputs = [example[name] for name in sorted(example) if name.startswith("output")]
    with torch.inference_mode():
        assert torch.allclose(module.eval()(*inputs), outputs[0], atol=1e-5)


def test_every_way_of_computing_a_layer_is_measured_and_shown_with_its_reason(place, visit, shots):
    page = visit("trial?study=digits&n=0")
    page.get_by_role("button", name="Measure every way at each layer").click()
    page.wait_for_selector("text=All in one table", timeout=300_000)
    page.get_by_text("All in one table").click()
    page.screenshot(path=shots / "variants.png", full_page=True)
    with Repository.open(place / "record.db") as repository:
        (trial,) = repository.trials(repository.study("digits").id)
        kept = [a for a in repository.artifacts(trial.id) if a.kind == KIND][-1]
    rows = json.loads((place / "artifacts" / f"{kept.content_hash}.json").read_text())["table"][
        "rows"
    ]
    table = page.get_by_role("table", name="Ways of computing each layer")
    head = table.locator("th button").all_inner_texts()
    cells = [row.locator("td").all_inner_texts() for row in table.locator("tbody tr").all()]
    shown = [dict(zip(head, row, strict=True)) for row in cells]
    assert [(r["Workload"], r["Way"], r["Why"], r["Offered"] == "offered") for r in shown] == [
        (r["workload"], r["name"], r["reason"], r["offered"]) for r in rows
    ]
    for row, of in zip(shown, rows, strict=True):
        if of["time"]:
            assert float(row["Median (µs)"]) == pytest.approx(of["time"]["median_us"], rel=0.01)


def test_what_cannot_be_exported_says_why(place, visit):
    page = visit("trial?study=digits&n=0")
    weights = next((place / "artifacts").glob("*.safetensors"))
    hidden = weights.rename(weights.with_suffix(".hidden"))
    try:
        page.get_by_label("ONNX").check()
        page.get_by_role("button", name="Export and audit").click()
        reason = page.wait_for_selector(".requests .reason", timeout=120_000).inner_text()
    finally:
        hidden.rename(weights)
    assert "There are no trained weights" in reason
