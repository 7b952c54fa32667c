"""Language modelling as a task: loss, bits a byte, training that learns, resumes and fails."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evaluators.accuracy import checkpoint
from evaluators.accuracy.data import TextDataset, load_dataset
from evaluators.accuracy.evaluator import AccuracyEvaluator, measure_test
from evaluators.accuracy.initialise import initialise
from evaluators.accuracy.recipe import Recipe, get_recipe
from evaluators.accuracy.score import Likelihood
from evaluators.accuracy.tasks import make_task, metrics_of, score_split
from evaluators.accuracy.training import TrainingStatus, train
from evaluators.protocol import EvaluationError
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.builder import NetworkBuilder

LICENCE = Path(__file__).parents[3] / "LICENSE"
QUICK = Recipe(
    name="quick",
    optimiser="adamw",
    learning_rate=1e-2,
    weight_decay=0.0,
    beta2=0.99,
    batch_size=16,
    epochs=2,
    gradient_clip=1.0,
)


def network(data: TextDataset, width: int = 16) -> Architecture:
    net = NetworkBuilder(data.input_shape, data.classes)
    embedding = x = net.embedding(net.input, width)
    x = net.add(x, net.self_attention(net.norm(x, "rms"), heads=2, causal=True, theta=1e4))
    x = net.add(x, net.mlp(net.norm(x, "rms"), 2 * width, kind="swiglu"))
    return net.freeze(net.unembedding(net.norm(x, "rms"), embedding))


@pytest.fixture(scope="module")
def data() -> TextDataset:
    made = load_dataset(f"text:{LICENCE}?context=32")
    assert isinstance(made, TextDataset)
    return made


class Frequencies(nn.Module):
    """Foretells every token by how often it occurs; ignores what came before."""

    def __init__(self, counts: np.ndarray) -> None:
        super().__init__()
        self.logs = nn.Parameter(torch.from_numpy(counts / counts.sum()).log().float())

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.logs.expand(*ids.shape, -1)


# Figures.


def test_the_loss_of_frequencies_is_their_cross_entropy(data: TextDataset) -> None:
    """What is foretold are the tokens behind the first, up to the last whole window."""
    ids = data.validation.ids.numpy()
    seen = ids[1 : len(data.validation) * 32 + 1]
    counts = np.bincount(ids, minlength=data.classes) + 0.5
    expected = -np.log(counts / counts.sum())[seen].mean()
    found = score_split(Frequencies(counts), data, "validation")
    assert isinstance(found, Likelihood)
    assert found.tokens == len(seen)
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(expected / math.log(2), rel=1e-5)  # ASCII
    loss, bits = found.figures
    assert (loss.metric, bits.metric) == ("loss", "bits_per_byte") == metrics_of(data)
    assert loss.low < loss.value < loss.high
    assert (loss.high - loss.value) / loss.value == pytest.approx(
        (bits.high - bits.value) / bits.value
    )


def test_bits_a_byte_compare_between_vocabularies(tmp_path: Path) -> None:
    """The same distribution over bytes, told by bytes and by pairs that a uniform model expects."""
    file = tmp_path / "a.txt"
    file.write_text("é" * 4000, encoding="utf-8")
    by_char, by_byte = (
        load_dataset(f"text:{file}?context=16&tokens={k}") for k in ("char", "byte")
    )
    half = np.zeros(256)
    half[list("é".encode())] = 1.0
    found = score_split(Frequencies(half + 1e-12), by_byte, "test")
    assert found.figures[0].value == pytest.approx(math.log(2), rel=1e-4)
    assert found.figures[1].value == pytest.approx(1.0, rel=1e-4)
    sure = score_split(Frequencies(np.ones(1)), by_char, "test")
    assert sure.figures[1].value == 0.0
    assert sure.length == 2 * sure.tokens


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """95 % of the intervals around means of 64 windows of noise hold the true mean."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        windows = rng.gamma(20.0, 1.5, 64)  # sums of 20 tokens, mean 1.5 each
        made = Likelihood(windows.sum(), 64 * 20, 64 * 20, windows.std(ddof=1) * math.sqrt(64))
        hits += made.figures[0].low <= 1.5 <= made.figures[0].high
    assert 0.91 < hits / 400 < 0.98


# Batches.


def test_an_epoch_reads_nearly_all_of_the_text_cut_another_way_each_time(data) -> None:
    task = make_task(data, QUICK, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    seen, firsts = torch.zeros(len(data.train.ids), dtype=torch.bool), []
    for _ in range(2):
        inputs, targets = task.batch(torch.arange(task.samples), generator)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        firsts.append(inputs[:50, 0])
    assert not torch.equal(*firsts)
    task_ids = data.train.ids.long()
    shift = torch.randint(0, 32, (task.samples,), generator=torch.Generator().manual_seed(0))
    starts = (torch.arange(task.samples) * 32 + shift).clamp(max=len(task_ids) - 33)
    for start in starts:
        seen[start : start + 33] = True
    assert seen.float().mean() > 0.6


def test_recipes_for_images_are_refused(data: TextDataset) -> None:
    with pytest.raises(NasError, match="'cifar-short' is for images; text has text-short"):
        train(build(network(data)), data, get_recipe("cifar-short"), seed=0)


# Training.


def test_it_learns_more_than_frequencies_and_repeats_itself(data: TextDataset) -> None:
    counts = np.bincount(data.train.ids.numpy(), minlength=data.classes) + 0.5
    alone = score_split(Frequencies(counts), data, "validation").value
    results = []
    for _ in range(2):
        module = build(network(data))
        initialise(module, 1)
        results.append(train(module, data, replace(QUICK, epochs=12), seed=1, threads=1))
    first, again = results
    assert first.status is TrainingStatus.OK
    assert first.validation == again.validation
    assert first.validation.value < alone - 0.3
    assert first.history[-1].validation == score_split(module, data, "validation")


def test_a_killed_training_goes_on_as_if_it_had_not_been(
    data: TextDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 0.0)
    recipe = replace(QUICK, epochs=3, epoch_images=64)

    def trained(file: Path | None, stop: bool = False) -> tuple[Any, Mapping[str, torch.Tensor]]:
        module = build(network(data))
        initialise(module, 2)
        real = checkpoint.Checkpoint.save

        def save(self: Any, state: Mapping[str, Any]) -> None:
            real(self, state)
            if stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(checkpoint.Checkpoint, "save", save)
        try:
            result = train(module, data, recipe, seed=2, threads=1, checkpoint=file)
        finally:
            monkeypatch.setattr(checkpoint.Checkpoint, "save", real)
        return result, module.state_dict()

    whole, weights = trained(None)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run.pt", stop=True)
    again, theirs = trained(tmp_path / "run.pt")
    assert again.history == whole.history
    assert all(torch.equal(weights[name], theirs[name]) for name in weights)


def test_a_loss_that_is_no_number_ends_the_training_early(data: TextDataset) -> None:
    """A recipe that blows up: the epoch has more than a hundred steps, it ends before."""
    seen: list[int] = []

    class Bursting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(data.classes))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            seen.append(1)
            return self.table.expand(*ids.shape, -1) * (math.nan if len(seen) > 3 else 1.0)

    recipe = replace(QUICK, batch_size=2, gradient_clip=None)
    result = train(Bursting(), data, recipe, seed=0)
    assert result.status is TrainingStatus.FAILED
    assert "The loss is nan in epoch 1" in str(result.reason)
    assert len(seen) == 64
    assert len(data.train) // 2 > 64


def test_the_evaluator_gives_both_figures_and_the_test_split_its_own(data: TextDataset) -> None:
    kept: dict[str, Mapping[str, torch.Tensor]] = {}
    architecture = network(data)
    mine = AccuracyEvaluator(
        data, QUICK, seed=0, metric="loss[recipe=quick]", save=kept.__setitem__
    )
    assert mine.metrics == ("loss[recipe=quick]", "bits_per_byte[recipe=quick]")
    mine = pickle.loads(pickle.dumps(mine))
    found = AccuracyEvaluator(data, QUICK, seed=0, save=kept.__setitem__).evaluate(architecture)
    assert [item.metric for item in found] == ["loss", "bits_per_byte"]
    assert found[0].detail["history"][-1]["validation"] == found[0].value
    assert found[0].detail["tokens"] == len(data.validation) * 32
    (weights,) = kept.values()
    tested = measure_test(architecture, weights, data)
    assert [item.metric for item in tested] == ["test_loss", "test_bits_per_byte"]
    module = build(architecture)
    assert tested[0].value < score_split(module, data, "test").value
    assert mine.cache_key(architecture) != AccuracyEvaluator(data, QUICK, seed=0).cache_key(
        architecture
    )


@pytest.mark.parametrize(
    "line", ["input 32 ids70; embedding 70 d8", "input 32 ids70; embedding 70 d8; linear 9"]
)
def test_outputs_of_another_form_are_refused(data: TextDataset, line: str) -> None:
    architecture = Architecture.parse(line.replace("70", str(data.classes)))
    with pytest.raises((NasError, EvaluationError), match=r"Expected logits \(16, 32"):
        AccuracyEvaluator(data, QUICK, seed=0).evaluate(architecture)


def test_text_short_beats_pairs_of_characters_in_seconds() -> None:
    """On tiny-shakespeare bigrams give 2.48 nats a character, trigrams 2.06."""
    file = LICENCE.parents[1] / "shared" / "data" / "text" / "tinyshakespeare.txt.gz"
    if not file.is_file():
        pytest.skip(f"needs {file} (shared data beside the repository)")
    whole = load_dataset(f"text:{file}?context=64&validation=20000")
    recipe = replace(get_recipe("text-short"), epochs=2, epoch_images=1600)
    found = AccuracyEvaluator(whole, recipe, seed=0).evaluate(network(whole, 64))
    assert found[0].value < 2.4


def test_a_training_on_text_stops_on_its_way(data: TextDataset, tmp_path: Path) -> None:
    mine = AccuracyEvaluator(data, QUICK, seed=0, checkpoints=tmp_path)
    names = ("loss[epoch=1]", "bits_per_byte[epoch=1]")
    early = mine.until(1, names).evaluate(network(data))
    assert tuple(item.metric for item in early) == names
    whole = mine.evaluate(network(data))
    assert whole[0].detail["resumed"] == 1
    assert early[0].value == whole[0].detail["history"][0]["validation"]
