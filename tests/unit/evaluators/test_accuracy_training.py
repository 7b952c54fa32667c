"""Training: reproducible by seed, failures recorded, and good enough on real digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evaluators.accuracy.data import Dataset, Split, load_dataset, make_dataset
from evaluators.accuracy.loop import parameter_groups
from evaluators.accuracy.recipe import Augmentation, Recipe, get_recipe
from evaluators.accuracy.score import Accuracy
from evaluators.accuracy.training import Epoch, TrainingStatus, evaluate, initialise, train
from kernels.errors import NasError

QUICK = Recipe(
    name="quick",
    optimiser="sgd",
    learning_rate=0.05,
    weight_decay=1e-3,
    nesterov=True,
    batch_size=8,
    epochs=2,
    augmentation=(Augmentation("shift", 1), Augmentation("flip", 0.5)),
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Forty images whose left or right half is bright."""
    images = np.random.default_rng(0).random((40, 1, 4, 4)) * 0.2
    labels = np.arange(40) % 2
    images[labels == 0, :, :, :2] += 0.7
    images[labels == 1, :, :, 2:] += 0.7
    return make_dataset("halves", images, labels)


def conv(c_in: int, c_out: int, *, k: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    layer = nn.Conv2d(c_in, c_out, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(c_out), nn.ReLU())


def separable(c_in: int, c_out: int, *, stride: int = 1) -> nn.Module:
    return nn.Sequential(conv(c_in, c_in, stride=stride, groups=c_in), conv(c_in, c_out, k=1))


class Residual(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x)


def reference_net() -> nn.Module:
    return nn.Sequential(
        conv(1, 16),
        separable(16, 32, stride=2),
        Residual(separable(32, 32)),
        separable(32, 64, stride=2),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


def small_net() -> nn.Module:
    return nn.Sequential(
        conv(1, 4),
        nn.Dropout(0.2),
        *(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Linear(8, 2)),
    )


def fresh(seed: int = 0) -> nn.Module:
    module = small_net()
    initialise(module, seed)
    return module


def same_state(first: nn.Module, second: nn.Module) -> bool:
    mine, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(mine[key], theirs[key]) for key in mine)


VARIATIONS = {
    "plain": QUICK,
    "adamw": dataclasses.replace(QUICK, optimiser="adamw", nesterov=False, learning_rate=0.01),
    "average": dataclasses.replace(QUICK, ema_decay=0.9),
    "clip": dataclasses.replace(QUICK, gradient_clip=0.1),
    "bf16": dataclasses.replace(QUICK, mixed_precision="bf16"),
    "layout": dataclasses.replace(QUICK, channels_last=True),
}


@pytest.mark.parametrize("recipe", VARIATIONS.values(), ids=VARIATIONS)
def test_same_seed_gives_bit_equal_weights(data: Dataset, recipe: Recipe) -> None:
    modules, results = [fresh() for _ in range(3)], []
    for module, seed in zip(modules, (1, 1, 2), strict=True):
        torch.rand(5)  # whatever the caller drew before must not matter
        results.append(train(module, data, recipe, seed=seed, threads=1))
    assert same_state(modules[0], modules[1])
    assert not same_state(modules[0], modules[2])
    assert results[0].history == results[1].history
    assert results[0].validation == results[0].history[-1].validation
    assert (results[0].status, results[0].reason, results[0].epochs) == ("ok", None, 2)
    assert results[0].validation == evaluate(modules[0], data.validation)


class Spy(nn.Module):
    """Notes what it is given while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.detach().clone())
        return x


def spied(data: Dataset, **changes: object) -> tuple[list[torch.Tensor], nn.Module, nn.Module]:
    """Return what the first and the last layer got in each step, and the trained module."""
    first, last = Spy(), Spy()
    layers = list(small_net())
    module = nn.Sequential(first, *layers[:-1], last, layers[-1])
    initialise(module, 0)
    recipe = dataclasses.replace(QUICK, **{"augmentation": (), **changes})  # type: ignore[arg-type]
    assert train(module, data, recipe, seed=0, threads=1).status is TrainingStatus.OK
    return first.seen, last, module


def test_bf16_computes_inside_and_keeps_float32_weights(data: Dataset) -> None:
    _, last, module = spied(data, mixed_precision="bf16")
    assert {x.dtype for x in last.seen} == {torch.bfloat16}
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    _, last, _ = spied(data)
    assert {x.dtype for x in last.seen} == {torch.float32}


def test_channels_last_is_for_training_only(data: Dataset) -> None:
    four = make_dataset("four", np.random.default_rng(0).random((40, 4, 4, 4)), np.arange(40) % 2)
    module = nn.Sequential(
        Spy(), conv(4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    plain = dataclasses.replace(QUICK, augmentation=())
    results = []
    for recipe in (plain, dataclasses.replace(plain, channels_last=True)):
        initialise(module, 0)
        module[0].seen.clear()
        train(module, four, recipe, seed=0, threads=1)
        strides = {x.stride()[1] for x in module[0].seen}
        assert strides == ({1} if recipe.channels_last else {16})
        assert all(p.is_contiguous() for p in module.parameters())
        results.append([p.detach().clone() for p in module.parameters()])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_an_epoch_of_fewer_images_draws_them_anew(data: Dataset) -> None:
    seen, _, _ = spied(data, epoch_images=16, epochs=3)
    assert [len(x) for x in seen] == [8] * 6
    epochs = [{row.numpy().tobytes() for row in torch.cat(seen[i : i + 2])} for i in (0, 2, 4)]
    assert [len(epoch) for epoch in epochs] == [16] * 3
    assert len(epochs[0] | epochs[1] | epochs[2]) > 16


def test_images_of_bytes_train_as_the_same_images_in_floats() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    labels = np.arange(40) % 2
    states = []
    for images in (raw, raw / 255):
        module = nn.Sequential(conv(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        initialise(module, 0)
        train(module, make_dataset("d", images, labels), QUICK, seed=0, threads=1)
        states.append(module.state_dict())
    for key in states[0]:
        torch.testing.assert_close(states[0][key], states[1][key], atol=1e-4, rtol=1e-4)


def test_training_leaves_global_state_alone(data: Dataset) -> None:
    module = fresh()
    module[1].eval()
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    numpy_before = np.random.get_state()[1].tolist()
    result = train(module, data, QUICK, seed=3, threads=1)
    initialise(module, 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert np.random.get_state()[1].tolist() == numpy_before
    assert result.threads == 1
    assert [module.training, module[1].training] == [True, False]


def test_training_learns_what_is_there_to_learn(data: Dataset) -> None:
    recipe = dataclasses.replace(QUICK, epochs=15, augmentation=())
    module = fresh()
    result = train(module, data, recipe, seed=0, threads=1)
    assert result.validation == Accuracy(correct=8, total=8)
    assert evaluate(module, data.test).value == 1.0
    assert result.history[-1].train_loss < result.history[0].train_loss
    assert [epoch.number for epoch in result.history] == list(range(1, 16))


def test_first_step_of_sgd_is_the_formula(data: Dataset) -> None:
    recipe = Recipe(
        name="one",
        optimiser="sgd",
        learning_rate=0.5,
        weight_decay=0.1,
        momentum=0,
        batch_size=len(data.train),
        epochs=1,
        schedule="constant",
        label_smoothing=0.2,
    )
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    initialise(module, 0)
    weight, bias = (p.detach().double().requires_grad_() for p in module.parameters())
    logits = data.train.images.flatten(1).double() @ weight.T + bias
    target = nn.functional.one_hot(data.train.labels, 2) * 0.8 + 0.2 / 2
    loss = -(target * logits.log_softmax(1)).sum(1).mean()
    by_weight, by_bias = torch.autograd.grad(loss, (weight, bias))
    result = train(module, data, recipe, seed=0, threads=1)
    assert result.history[0].train_loss == pytest.approx(loss.item(), abs=1e-6)
    new_weight, new_bias = (p.detach().double() for p in module.parameters())
    expected = weight - 0.5 * (by_weight + 0.1 * weight)
    torch.testing.assert_close(new_weight, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(new_bias, bias - 0.5 * by_bias, atol=1e-6, rtol=0)


def test_average_starts_at_the_first_step_and_moves_by_one_minus_decay(data: Dataset) -> None:
    recipe = dataclasses.replace(QUICK, batch_size=12, epochs=1, schedule="constant")
    assert len(data.train) == 24
    averaged = fresh()
    train(averaged, data, dataclasses.replace(recipe, ema_decay=0.75), seed=0, threads=1)
    first, second = _states_after_each_step(fresh(), data, recipe)
    for key, value in averaged.state_dict().items():
        if value.is_floating_point():  # BatchNorm's running statistics too
            torch.testing.assert_close(value, first[key].lerp(second[key], 0.25))
            assert not torch.equal(first[key], second[key])


def _states_after_each_step(
    module: nn.Module, data: Dataset, recipe: Recipe
) -> list[dict[str, torch.Tensor]]:
    states: list[dict[str, torch.Tensor]] = []

    def note(module: nn.Module, _: object) -> None:
        if module.training:
            states.append({key: value.clone() for key, value in module.state_dict().items()})

    handle = module.register_forward_pre_hook(note)
    train(module, data, recipe, seed=0, threads=1)
    handle.remove()
    return [*states[1:], module.state_dict()]


class Explode(nn.Module):
    def __init__(self, factor: float, after: int) -> None:
        super().__init__()
        self.factor, self.after, self.calls = factor, after, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        return x * self.factor if self.calls > self.after else x


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_is_a_recorded_failure(data: Dataset, factor: float) -> None:
    module = fresh().append(Explode(factor, after=4))
    result = train(module, data, QUICK, seed=0, threads=1)
    assert result.status is TrainingStatus.FAILED
    assert result.reason == "The loss is nan in epoch 2."
    assert (result.epochs, result.validation) == (1, None)


def test_weights_that_overflow_are_a_recorded_failure(data: Dataset) -> None:
    recipe = dataclasses.replace(
        QUICK, learning_rate=1e39, batch_size=24, epochs=1, schedule="constant"
    )
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    result = train(module, data, recipe, seed=0, threads=1)
    assert result.status is TrainingStatus.FAILED
    assert result.reason == "A weight or statistic is not finite after epoch 1."


def test_a_nan_statistic_is_a_recorded_failure_and_an_infinite_mask_is_none(data: Dataset) -> None:
    module = fresh()
    module.register_buffer("mask", torch.tensor([0.0, -float("inf")]))
    assert train(module, data, QUICK, seed=0, threads=1).status is TrainingStatus.OK
    module.register_buffer("mean", torch.tensor([float("nan")]))
    result = train(module, data, QUICK, seed=0, threads=1)
    assert result.reason == "A weight or statistic is not finite after epoch 1."


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no room"),
        MemoryError("no room"),
        RuntimeError("[alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: no room"),
    ],
)
def test_out_of_memory_is_a_recorded_failure(data: Dataset, error: Exception) -> None:
    result = train(raising(error), data, QUICK, seed=0, threads=1)
    assert result.status is TrainingStatus.FAILED
    assert result.reason is not None
    assert result.reason.startswith("Out of memory on cpu with batches of 8 images: ")
    assert "no room; a smaller batch_size" in result.reason


def test_an_error_of_the_network_is_no_lack_of_memory(data: Dataset) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        train(raising(RuntimeError("shapes do not match")), data, QUICK, seed=0)


def raising(error: Exception) -> nn.Module:
    class Raising(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error

    return Raising(1, 1)


def test_a_listener_sees_each_epoch_and_may_stop(data: Dataset) -> None:
    seen: list[Epoch] = []

    def stop_after_two(epoch: Epoch) -> bool:
        seen.append(epoch)
        return epoch.number == 2

    recipe = dataclasses.replace(QUICK, epochs=5, ema_decay=0.5)
    module = fresh()
    result = train(module, data, recipe, seed=0, threads=1, on_epoch=stop_after_two)
    assert result.status is TrainingStatus.STOPPED
    assert result.history == tuple(seen)
    assert result.validation == evaluate(module, data.validation)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Flatten(), "no parameters"),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), "2 classes, got 3"),
        (nn.Conv2d(1, 2, 4), r"logits \(8, classes\) from the module, got \(8, 2, 1, 1\)"),
    ],
)
def test_a_module_that_is_no_classifier_is_an_error(
    data: Dataset, module: nn.Module, message: str
) -> None:
    with pytest.raises(NasError, match=message):
        train(module, data, QUICK, seed=0, threads=1)


def test_norms_and_biases_are_not_decayed_and_shared_weights_counted_once() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LayerNorm([2, 3]))
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    module.extend([first, second])
    decayed, plain = parameter_groups(module)
    assert {id(p) for p in decayed} == {id(module[0].weight), id(first.weight)}
    assert len(decayed) == 2
    assert len(plain) == 1 + 2 + 2 + 2


def test_initial_weights_depend_on_seed_and_structure_only() -> None:
    torch.manual_seed(1)
    first = small_net()
    torch.manual_seed(2)
    second = small_net()
    for module in (first, second):
        initialise(module, 5)
    assert same_state(first, second)
    initialise(second, 6)
    assert not same_state(first, second)


def test_initial_values_of_convolutions_and_norms() -> None:
    module = nn.Sequential(
        nn.Conv2d(32, 256, 3, groups=4), nn.Conv2d(512, 512, 3, groups=512), nn.BatchNorm2d(4)
    )
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(7)
    initialise(module, 0)
    # Standard deviation sqrt(2 / (outputs of a group x 9)); 4608 or more draws: 3 % is 3 sigma.
    assert module[0].weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert module[1].weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.03)
    assert not module[0].bias.any()
    norm = module[2]
    expected = [norm.weight, norm.running_var, 1 - norm.bias, 1 - norm.running_mean]
    assert all(torch.equal(tensor, torch.ones(4)) for tensor in expected)
    assert int(norm.num_batches_tracked) == 0


def test_attention_is_initialised_and_a_bare_parameter_refused() -> None:
    attention = nn.MultiheadAttention(8, 2)
    initialise(attention, 0)
    weights = attention.in_proj_weight.detach().clone()
    initialise(attention, 0)
    assert torch.equal(weights, attention.in_proj_weight)

    bare = nn.Module()
    bare.register_parameter("scale", nn.Parameter(torch.ones(1)))
    with pytest.raises(NasError, match=r"Cannot initialise 0 \(Module\).*reset_parameters"):
        initialise(nn.Sequential(bare), 0)


class Fixed(nn.Module):
    """Answers with given logits, whatever the image; counts calls in training mode."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits, self.child, self.trained = logits, nn.ReLU(), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.trained += self.training or self.child.training
        number = x[:, 0, 0, 0].long()
        return self.logits[number]


def test_evaluate_counts_and_nan_is_wrong() -> None:
    nan = float("nan")
    logits = torch.tensor([[1.0, 0], [0, 1.0], [1.0, 0], [nan, 0], [0, nan], [2.0, 1.0], [0, 0]])
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    split = Split(torch.arange(7.0).view(7, 1, 1, 1), labels)
    for batch_size in (1, 3, 100):
        accuracy = evaluate(Fixed(logits), split, batch_size=batch_size)
        assert accuracy == Accuracy(correct=4, total=7)


def test_evaluate_restores_each_mode() -> None:
    module = Fixed(torch.zeros(3, 2))
    module.child.eval()
    split = Split(torch.zeros(3, 1, 1, 1), torch.zeros(3, dtype=torch.int64))
    evaluate(module, split)
    assert (module.training, module.child.training, module.trained) == (True, False, 0)
    module.logits = torch.zeros(3)
    with pytest.raises(NasError, match="Expected logits"):
        evaluate(module, split)
    assert (module.training, module.child.training) == (True, False)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17:857, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # All right: low is n / (n + z^2) = 29 / 32.8415.
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_interval(correct: int, total: int, low: float, high: float) -> None:
    accuracy = Accuracy(correct=correct, total=total)
    assert accuracy.low == pytest.approx(low, abs=5e-5)
    assert accuracy.high == pytest.approx(high, abs=5e-5)
    assert accuracy.low <= accuracy.value <= accuracy.high


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(correct: int, total: int) -> None:
    with pytest.raises(NasError, match="correct <= total"):
        Accuracy(correct=correct, total=total)


def test_digits_short_is_good() -> None:
    digits = load_dataset("digits")
    module = reference_net()
    initialise(module, 0)
    # One thread: see the note in train(); a busy machine may still be slow, so no time is checked.
    result = train(module, digits, get_recipe("digits-short"), seed=0, threads=1)
    assert result.status is TrainingStatus.OK
    assert evaluate(module, digits.test).value >= 0.97


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{}, {"mixed_precision": "bf16", "channels_last": True}])
def test_digits_on_a_gpu(changes: dict[str, Any], tmp_path: Path) -> None:
    """Bytes as they come, so that normalisation runs on the device as well."""
    floats = load_dataset("digits")
    images = floats.train.images * floats.std[0] + floats.mean[0]
    raw = (images * 255).round().to(torch.uint8).numpy()
    digits = make_dataset("bytes", raw, floats.train.labels.numpy())
    recipe = dataclasses.replace(get_recipe("digits-short"), ema_decay=0.98, **changes)
    module = reference_net()
    initialise(module, 0)

    def interrupt(epoch: Epoch) -> None:
        if epoch.number == 12 and stops:
            stops.pop()
            raise KeyboardInterrupt

    seen: list[Epoch] = []
    stops, file = [1], tmp_path / "file.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluators.accuracy.checkpoint.SAVE_SECONDS", 0.0)
        patch.setattr("evaluators.accuracy.checkpoint.SAVE_SPACING", 0.0)
        with pytest.raises(KeyboardInterrupt):
            train(
                *(module, digits, recipe),
                seed=0,
                device="cuda",
                on_epoch=interrupt,
                checkpoint=file,
            )
        module = reference_net()
        initialise(module, 0)
        listen = seen.append
        result = train(
            module, digits, recipe, seed=0, device="cuda", on_epoch=listen, checkpoint=file
        )
    assert [epoch.number for epoch in seen] == list(range(12, 25))
    assert (result.status, result.epochs, result.device) == ("ok", 24, "cuda")
    assert evaluate(module, digits.test).value >= 0.85
    assert all(p.is_contiguous() and p.dtype == torch.float32 for p in module.parameters())


@pytest.mark.gpu
def test_a_gpu_without_room_is_a_recorded_failure(data: Dataset) -> None:
    class Greedy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.empty(1 << 42, device=x.device)

    result = train(Greedy(1, 1), data, QUICK, seed=0, device="cuda")
    assert result.reason is not None
    assert result.reason.startswith("Out of memory on cuda with batches of 8 images: CUDA out of")
