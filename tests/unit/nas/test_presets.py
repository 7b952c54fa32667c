"""A baseline and a network from a file in a search, from the command line to the front."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from search_spaces.architecture import Architecture
from tests.unit.nas.conftest import Run

NET = Architecture.parse("input 3x32x32; conv 4 k3 s2 bn relu; gap; flatten; linear 10")


def test_a_baseline_is_trained_and_shown_beside_the_front_and_an_enqueued_network_comes_first(
    inside: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    np.savez("images.npz", x=images, y=np.arange(200) % 10)
    Path("net.json").write_text(json.dumps(NET.to_json()))
    presets = ("--baseline", "torchvision:resnet18", "--enqueue", "net.json")
    recipe = ("--recipe", "cifar-short?epochs=1&epoch_images=32", "--workers", 0)
    settings = ("--data", "npz:images.npz", "--objectives", "accuracy,params", "--trials", 1)
    code, out, lines = inside("search", "mobile-cnn-small", *settings, *presets, *recipe, "--json")
    summary = json.loads(out)
    assert (code, summary["complete"]) == (0, 1), "a baseline does not count"
    assert "torchvision:resnet18 accuracy" in lines
    (point,) = summary["front"]
    assert (point["key"], point["trial"]) == (NET.key, 1)

    code, out, _ = inside("front", "runs/mobile-cnn-small", "--json")
    result = json.loads(out)
    (baseline,) = result["baselines"]
    assert (baseline["name"], baseline["trial"]) == ("torchvision:resnet18", 0)
    assert baseline["values"]["params"]["value"] == 11_181_642  # with 10 classes
    assert 0 <= baseline["values"]["test_accuracy"]["value"] <= 1
    assert [item["key"] for item in result["points"]] == [NET.key]
    text = inside("show", "runs/mobile-cnn-small")[1]
    assert "1 complete, of 1 wanted" in text
    assert text.rstrip().endswith("torchvision:resnet18")
    assert (
        "origin   baseline, name torchvision:resnet18"
        in inside("show", "runs/mobile-cnn-small", 0)[1]
    )
