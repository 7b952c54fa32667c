"""The evaluator: travels to other processes, names its figure, and trains over seeds."""

from __future__ import annotations

import pickle
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluators.accuracy import checkpoint, evaluator
from evaluators.accuracy.data import load_dataset
from evaluators.accuracy.evaluator import AccuracyEvaluator
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.seeds import SeedSummary
from evaluators.protocol import EvaluationError, Measured
from kernels.errors import NasError
from search_spaces.architecture import Architecture

ROOT = Path(__file__).parents[3]
NET = Architecture.parse("input 1x8x8; conv 4 k3 s2 bn relu; gap; flatten; linear 10")
TINY = Recipe(
    name="tiny", optimiser="adamw", learning_rate=1e-2, weight_decay=0.0, batch_size=128, epochs=2
)


def test_it_gives_the_same_figure_and_keys_in_another_process(tmp_path: Path) -> None:
    mine = AccuracyEvaluator(
        load_dataset("digits"), TINY, seed=3, metric="accuracy[recipe=tiny]", checkpoints=tmp_path
    )
    code = (
        "import pickle, sys; sys.path.insert(0, sys.argv[1]);"
        "e, net = pickle.load(sys.stdin.buffer); m = e.evaluate(net)[0];"
        "print(m.metric, repr(m.value), e.cache_key(net), e.slot)"
    )
    sent = pickle.dumps((mine, NET))
    assert len(sent) < 10_000
    out = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], input=sent, check=True, stdout=subprocess.PIPE
    ).stdout.decode()
    figure = mine.evaluate(NET)[0]
    expected = ["accuracy[recipe=tiny]", repr(figure.value), mine.cache_key(NET), "training"]
    assert out.split() == expected
    assert figure.metric == mine.metrics[0]


def test_unpickling_neither_loads_nor_fails(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    np.savez(file, x=np.arange(640, dtype=np.uint8).reshape(40, 4, 4), y=np.arange(40) % 2)
    sent = pickle.dumps(AccuracyEvaluator(load_dataset(f"npz:{file}"), TINY, seed=0))
    file.unlink()
    load_dataset.cache_clear()
    there = pickle.loads(sent)
    assert pickle.loads(pickle.dumps(there)).metrics == ("accuracy",)
    with pytest.raises(NasError, match="is not a readable"):
        there.evaluate(NET)


def test_a_figure_of_another_name_is_another_result() -> None:
    data = load_dataset("digits")
    first, second = (
        AccuracyEvaluator(data, TINY, seed=0, metric=name) for name in ("accuracy", "accuracy[x=1]")
    )
    assert first.cache_key(NET) != second.cache_key(NET)
    assert first.dense_key(NET) == second.dense_key(NET)
    assert first.metrics == ("accuracy",)


def test_layers_of_few_bits_are_judged_as_they_run() -> None:
    wide = Architecture.parse(
        "input 1x8x8; conv 16 k3 s2 bn relu; conv 16 k3 bn relu; gap; flatten; linear 10"
    )
    kept: dict[str, Mapping[str, torch.Tensor]] = {}

    def save(key: str, weights: Mapping[str, torch.Tensor]) -> None:
        kept[key] = weights

    recipe = replace(TINY, epochs=6)
    data = load_dataset("digits")
    judge = AccuracyEvaluator(data, recipe, seed=0, save=save, load=kept.__getitem__)
    dense = judge.evaluate(wide)[0].value
    found = [judge.evaluate(wide.with_variant([2], bits))[0].value for bits in ("w8a8", "w1a1")]
    assert abs(found[0] - dense) < 0.02
    assert found[1] < found[0]
    (weights,) = kept.values()
    test = evaluator.measure_test(wide.with_variant([2], "w8a8"), weights, data)[0].value
    assert abs(test - evaluator.measure_test(wide, weights, data)[0].value) < 0.02


def test_a_device_without_memory_is_an_evaluation_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore lines")

    monkeypatch.setattr("evaluators.accuracy.training.Loop.run_epoch", no_room)
    with pytest.raises(EvaluationError) as caught:
        AccuracyEvaluator(load_dataset("digits"), TINY, seed=0).evaluate(NET)
    assert str(caught.value) == (
        "The training failed: Out of memory on cpu with batches of 128 images: CUDA out of memory. "
        "Tried to allocate 2 GiB.; a smaller batch_size or a smaller network needs less."
    )


def test_a_killed_training_goes_on_in_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SAVE_SPACING", 0.0)
    kept: dict[str, Mapping[str, torch.Tensor]] = {}

    def evaluated(folder: Path | None) -> Measured:
        mine = AccuracyEvaluator(
            load_dataset("digits"), TINY, seed=3, save=kept.__setitem__, checkpoints=folder
        )
        return mine.evaluate(NET)[0]

    whole = evaluated(None)
    weights = kept.pop(whole.detail["dense_key"])
    real = evaluator.train

    def killed(*args: Any, **keywords: Any) -> Any:
        # The second epoch is not reached: the first is in the file.
        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("evaluators.accuracy.training.Checkpoint.save", saving(stop))
        return real(*args, **keywords)

    monkeypatch.setattr(evaluator, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path)
    monkeypatch.undo()
    files = list(tmp_path.iterdir())
    assert [file.name for file in files] == [f"{whole.detail['dense_key']}.pt"]
    again = evaluated(tmp_path)
    assert again.value == whole.value
    assert again.detail["history"] == whole.detail["history"]
    theirs = kept[whole.detail["dense_key"]]
    assert all(torch.equal(weights[name], theirs[name]) for name in weights)
    assert list(tmp_path.iterdir()) == []


def saving(then: Any) -> Any:
    real = checkpoint.Checkpoint.save

    def save(self: checkpoint.Checkpoint, state: Mapping[str, Any]) -> None:
        real(self, state)
        then()

    return save


def test_seeds_give_one_figure_each_and_their_spread() -> None:
    kept: dict[str, object] = {}
    data = load_dataset("digits?train=300")
    measured = [
        AccuracyEvaluator(data, TINY, seed=seed, save=kept.__setitem__).evaluate(NET)[0]
        for seed in (5, 6, 7)
    ]
    assert [figure.detail["seed"] for figure in measured] == [5, 6, 7]
    assert kept.keys() == {figure.detail["dense_key"] for figure in measured}
    assert len(kept) == 3
    single = AccuracyEvaluator(data, TINY, seed=6).evaluate(NET)[0]
    assert measured[1].value == single.value
    values = [figure.value for figure in measured]
    summary = SeedSummary.of(measured)
    assert (summary.seeds, summary.low, summary.high) == (3, min(values), max(values))
    assert summary.mean == pytest.approx(sum(values) / 3)
    assert summary.deviation == pytest.approx(statistics.stdev(values))


def test_one_seed_has_no_deviation() -> None:
    summary = SeedSummary.of([Measured("accuracy", 0.5)])
    assert summary == SeedSummary(seeds=1, mean=0.5, low=0.5, high=0.5, deviation=None)


def test_a_summary_of_nothing_is_an_error() -> None:
    with pytest.raises(NasError, match="at least one seed"):
        SeedSummary.of([])


def test_a_training_stops_on_its_way_and_goes_on_from_there(tmp_path: Path) -> None:
    data = load_dataset("digits?train=300")
    sent: list[Path] = []
    kept: dict[str, Mapping[str, torch.Tensor]] = {}
    whole, parts = (
        AccuracyEvaluator(
            data, TINY, seed=1, checkpoints=folder, send=sent.append, save=kept.__setitem__
        )
        for folder in (None, tmp_path)
    )
    expected = whole.evaluate(NET)[0]
    weights = kept.pop(expected.detail["dense_key"])
    first = parts.until(1, ("accuracy[epoch=1]",))
    (early,) = first.evaluate(NET)
    assert early.metric == "accuracy[epoch=1]"
    assert early.value == expected.detail["history"][0]["validation"]
    assert first.cache_key(NET) != parts.cache_key(NET)
    assert (list(tmp_path.iterdir()), kept) == (list(parts.state_files(NET)), {})
    assert sent == list(parts.state_files(NET))
    assert first.evaluate(NET)[0].detail["resumed"] == 1, "nothing is trained twice"
    done = parts.evaluate(NET)[0]
    assert (done.value, done.detail["resumed"]) == (expected.value, 1)
    theirs = kept[expected.detail["dense_key"]]
    assert all(torch.equal(weights[name], theirs[name]) for name in weights)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_fails_on_its_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = AccuracyEvaluator(load_dataset("digits"), TINY, seed=0, checkpoints=tmp_path).until(
        1, ("accuracy[epoch=1]",)
    )
    part.evaluate(NET)
    monkeypatch.setattr("evaluators.accuracy.training.Loop.load_state", lambda *_: None)
    monkeypatch.setattr("evaluators.accuracy.training.Loop.run_epoch", lambda _: float("nan"))
    later = part.until(2, ("accuracy[epoch=2]",))
    with pytest.raises(EvaluationError, match="The loss is nan in epoch 2"):
        later.evaluate(NET)
    assert list(tmp_path.iterdir()) == []
