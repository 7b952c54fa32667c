"""Checkpoints: a training that is killed goes on and ends as if it had not been."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evaluators.accuracy import checkpoint
from evaluators.accuracy.data import Dataset, make_dataset
from evaluators.accuracy.recipe import Augmentation, Recipe
from evaluators.accuracy.training import Epoch, TrainingResult, initialise, train

ROOT = Path(__file__).parents[3]
RECIPE = Recipe(
    name="four",
    optimiser="sgd",
    learning_rate=0.05,
    weight_decay=1e-3,
    nesterov=True,
    batch_size=8,
    epochs=4,
    augmentation=(Augmentation("shift", 1), Augmentation("flip", 0.5), Augmentation("cutout", 1)),
)
RECIPES = {
    "sgd": RECIPE,
    "average": dataclasses.replace(RECIPE, ema_decay=0.9, epoch_images=16),
    "adamw": dataclasses.replace(RECIPE, optimiser="adamw", nesterov=False, mixed_precision="bf16"),
    "layout": dataclasses.replace(RECIPE, channels_last=True, gradient_clip=0.1),
}


def noise(seed: int = 0) -> Dataset:
    images = np.random.default_rng(seed).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    return make_dataset("noise", images, np.arange(40) % 2)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return noise()


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SAVE_SPACING", 0.0)


def network(seed: int = 0) -> nn.Module:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        *(nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
    )
    initialise(module, seed)
    return module


class Interrupt:
    """Behaves like Ctrl-C in the given epoch, once."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, [0]

    def __call__(self, epoch: Epoch) -> None:
        self.seen.append(epoch.number)
        if epoch.number == self.at:
            self.at = 0
            raise KeyboardInterrupt


def interrupted(
    data: Dataset, recipe: Recipe, file: Path, at: int
) -> tuple[nn.Module, TrainingResult, list[int]]:
    listen = Interrupt(at)
    with pytest.raises(KeyboardInterrupt):
        train(network(), data, recipe, seed=1, threads=1, on_epoch=listen, checkpoint=file)
    torch.rand(3)  # whatever is drawn in between must not matter
    module = network()
    result = train(module, data, recipe, seed=1, threads=1, on_epoch=listen, checkpoint=file)
    return module, result, listen.seen[1:]


def assert_same(mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_an_interrupted_training_ends_bit_equal(
    data: Dataset, recipe: Recipe, tmp_path: Path
) -> None:
    whole = network()
    expected = train(whole, data, recipe, seed=1, threads=1)
    file = tmp_path / "made" / "file.pt"
    module, result, seen = interrupted(data, recipe, file, at=3)
    # The interrupted epoch was not saved, so it is trained again; those before are not.
    assert seen == [1, 2, 3, 3, 4]
    assert_same(module.state_dict(), whole.state_dict())
    assert (result.history, result.validation) == (expected.history, expected.validation)
    assert list(file.parent.iterdir()) == []


def test_a_checkpoint_changes_nothing_in_a_training_that_is_not_interrupted(
    data: Dataset, tmp_path: Path
) -> None:
    modules = [network(), network()]
    train(modules[0], data, RECIPE, seed=1, threads=1)
    train(modules[1], data, RECIPE, seed=1, threads=1, checkpoint=tmp_path / "file.pt")
    assert_same(modules[0].state_dict(), modules[1].state_dict())


def test_a_file_is_saved_only_when_it_is_due(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, seen = tmp_path / "file.pt", []
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 3600.0)
    train(
        *(network(), data, RECIPE),
        seed=1,
        on_epoch=lambda _: seen.append(file.exists()),
        checkpoint=file,
    )
    assert seen == [False] * 4


def test_saves_keep_a_distance_that_makes_them_cheap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of the test: an epoch of 1.1 s is saved each time, unless saving takes long."""
    now = took = 0.0
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 1.0)
    monkeypatch.setattr(checkpoint, "SAVE_SPACING", 20.0)
    monkeypatch.setattr("time.monotonic", lambda: now)
    real = torch.save

    def slow(*arguments: Any) -> None:
        nonlocal now
        real(*arguments)
        now += took

    monkeypatch.setattr(torch, "save", slow)
    for duration, expected in ((0.01, 10), (0.5, 1)):
        now, took = 0.0, duration
        kept = checkpoint.Checkpoint(tmp_path / "file.pt", "run")
        saves = 0
        for _ in range(10):
            now += 1.1
            if kept.due:
                kept.save({})
                saves += 1
        assert saves == expected


def test_wall_time_adds_up_over_interruptions(data: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "file.pt"

    def slow(epoch: Epoch) -> None:
        time.sleep(0.2)
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network(), data, RECIPE, seed=1, on_epoch=slow, checkpoint=file)
    start = time.perf_counter()
    result = train(network(), data, RECIPE, seed=1, checkpoint=file)
    # One epoch with its 0.2 s was saved before.
    assert result.wall_seconds >= 0.2
    assert result.wall_seconds > time.perf_counter() - start - 0.05


def _others() -> dict[str, dict[str, Any]]:
    return {
        "recipe": {"recipe": dataclasses.replace(RECIPE, weight_decay=0.5)},
        "seed": {"seed": 2},
        "weights": {"module": network(5)},
        "network": {"module": nn.Sequential(*network()[:3], *network()[4:])},
        "data": {"dataset": noise(9)},
    }


@pytest.mark.parametrize("other", _others())
def test_the_file_of_another_training_is_not_used(
    data: Dataset, tmp_path: Path, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file.pt"
    mine: dict[str, Any] = {"module": network(), "dataset": data, "recipe": RECIPE, "seed": 1}
    theirs = {**mine, "module": network(), **_others()[other]}
    with pytest.raises(KeyboardInterrupt):
        train(**theirs, threads=1, on_epoch=Interrupt(at=3), checkpoint=file)
    assert file.exists()
    assert_starts_anew(mine, data, file, caplog, "is of another training")


def assert_starts_anew(
    mine: dict[str, Any], data: Dataset, file: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    whole = network()
    train(whole, data, RECIPE, seed=1, threads=1)
    seen: list[int] = []
    with caplog.at_level(logging.WARNING):
        train(**mine, threads=1, on_epoch=lambda epoch: seen.append(epoch.number), checkpoint=file)
    assert seen == [1, 2, 3, 4]
    assert [record for record in caplog.messages if text in record]
    assert_same(mine["module"].state_dict(), whole.state_dict())
    assert not file.exists()


@pytest.mark.parametrize("damage", ["text", "empty", "torn", "flipped", "pickle", "list"])
def test_a_damaged_file_is_not_used(
    data: Dataset, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file.pt"
    with pytest.raises(KeyboardInterrupt):
        train(network(), data, RECIPE, seed=1, on_epoch=Interrupt(at=3), checkpoint=file)
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        state = torch.load(io.BytesIO(content[32:]), weights_only=True)["state"]
        weight = state["loop"]["module"]["0.weight"].numpy().tobytes()
        content[content.index(weight) + 2] ^= 0xFF
        file.write_bytes(content)
    elif damage in ("pickle", "list"):
        other = io.BytesIO()
        torch.save(Exploding() if damage == "pickle" else [1], other)
        file.write_bytes(hashlib.sha256(other.getvalue()).digest() + other.getvalue())
    else:
        ends = {"text": b"hello", "empty": b"", "torn": bytes(content[: len(content) // 2])}
        file.write_bytes(ends[damage])
    mine = {"module": network(), "dataset": data, "recipe": RECIPE, "seed": 1}
    assert_starts_anew(mine, data, file, caplog, "cannot be read")


class Exploding:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


def test_a_folder_that_cannot_be_written_stops_no_training(
    data: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    result = train(network(), data, RECIPE, seed=1, checkpoint=tmp_path / "file" / "x.pt")
    assert result.status == "ok"
    assert [text for text in caplog.messages if "cannot be written" in text]


@pytest.mark.parametrize("ending", ["failed", "stopped"])
def test_no_file_stays_whatever_the_end(data: Dataset, tmp_path: Path, ending: str) -> None:
    file = tmp_path / "file.pt"
    module = network()

    def third(epoch: Epoch) -> bool:
        if epoch.number == 2:
            assert file.exists()
            if ending == "failed":
                with torch.no_grad():
                    module[-1].weight.fill_(float("nan"))
        return epoch.number == 3

    result = train(module, data, RECIPE, seed=1, on_epoch=third, checkpoint=file)
    assert result.status == ending
    assert not file.exists()


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from evaluators.accuracy import checkpoint
from tests.unit.evaluators import test_accuracy_checkpoint as here
from evaluators.accuracy.training import train
checkpoint.SAVE_SECONDS = checkpoint.SAVE_SPACING = 0.0
module = here.network()

def note(epoch):
    print(epoch.number, flush=True)
    if epoch.number == 3 and sys.argv[3] == "hang":
        time.sleep(600)

recipe = here.RECIPES["average"]
train(module, here.noise(), recipe, seed=1, threads=1, on_epoch=note, checkpoint=Path(sys.argv[2]))
torch.save(module.state_dict(), sys.argv[2] + ".weights")
"""


def test_a_killed_process_goes_on_bit_equal(data: Dataset, tmp_path: Path) -> None:
    whole, file = network(), tmp_path / "file.pt"
    train(whole, data, RECIPES["average"], seed=1, threads=1)

    def start(mode: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SCRIPT, str(ROOT), str(file), mode]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with start("hang") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["1\n", "2\n", "3\n"]
        process.send_signal(signal.SIGKILL)
    assert file.exists()
    with start("finish") as process:
        assert process.stdout is not None
        assert process.stdout.read().split() == ["3", "4"]
    assert process.returncode == 0
    assert_same(torch.load(f"{file}.weights", weights_only=True), whole.state_dict())
