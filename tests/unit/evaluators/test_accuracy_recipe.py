"""Recipes: validated, one canonical form, and a digest that sees every field but the name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from evaluators.accuracy.augment import AUGMENTATIONS, augment
from evaluators.accuracy.recipe import RECIPES, Augmentation, Recipe, get_recipe, scaled
from kernels.errors import NasError, UnknownNameError

BASE = Recipe(
    name="base",
    optimiser="sgd",
    learning_rate=0.1,
    weight_decay=1e-4,
    batch_size=32,
    epochs=3,
    warmup=0.25,
)
OTHER: dict[str, Any] = {
    "optimiser": "adamw",
    "learning_rate": 0.2,
    "weight_decay": 0.0,
    "momentum": 0.8,
    "nesterov": True,
    "batch_size": 64,
    "epochs": 4,
    "schedule": "one-cycle",
    "warmup": 0.0,
    "label_smoothing": 0.1,
    "augmentation": (Augmentation("shift", 1),),
    "ema_decay": 0.9,
    "gradient_clip": 1.0,
    "mixed_precision": "bf16",
    "channels_last": True,
    "epoch_images": 1000,
    "beta2": 0.95,
    "compile": True,
}


def test_digest_sees_every_field_but_the_name() -> None:
    assert OTHER.keys() | {"name"} == {entry.name for entry in dataclasses.fields(Recipe)}
    changed = [dataclasses.replace(BASE, **{key: value}) for key, value in OTHER.items()]
    assert len({recipe.digest for recipe in changed} | {BASE.digest}) == len(OTHER) + 1
    assert dataclasses.replace(BASE, name="renamed").digest == BASE.digest


def test_digest_sees_strength_and_order_of_augmentation() -> None:
    shift, flip = Augmentation("shift", 1), Augmentation("flip", 0.5)
    orders = [(shift,), (flip,), (shift, flip), (flip, shift), (Augmentation("shift", 2),)]
    recipes = [dataclasses.replace(BASE, augmentation=order) for order in orders]
    assert len({recipe.digest for recipe in recipes}) == len(orders)


def test_digest_is_stable() -> None:
    # Stored accuracies are named by it: a change here must come with a new RECIPE_VERSION.
    assert BASE.digest == "dc44d2cb5f21629b0b55ad0ce5f8e850"


def test_digests_from_before_later_fields_still_name_the_same_trainings() -> None:
    assert get_recipe("digits-short").digest == "34b16ad3918978095757033053e23ffd"
    assert get_recipe("digits-full").digest == "e68bd311cdb79bff1c9dd451a177b5ac"


@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 0.4), ("adamw", 0.2)])
def test_a_batch_four_times_as_large_scales_the_rate(optimiser: Any, rate: float) -> None:
    recipe = dataclasses.replace(BASE, optimiser=optimiser)
    larger = scaled(recipe, 128)
    assert (larger.batch_size, larger.learning_rate) == (128, pytest.approx(rate))
    assert larger.name == "base[batch=128]"
    back = dataclasses.replace(larger, batch_size=32, learning_rate=0.1, name="base")
    assert back == scaled(recipe, 32) == recipe


def test_scaling_to_no_batch_is_an_error() -> None:
    with pytest.raises(NasError, match="batch_size must be 2 or more"):
        scaled(BASE, 1)


def test_equal_numbers_of_other_types_give_one_digest() -> None:
    whole = dataclasses.replace(BASE, learning_rate=1, augmentation=(("shift", 1),))
    real = dataclasses.replace(BASE, learning_rate=1.0, augmentation=(("shift", 1.0),))
    assert whole.digest == real.digest
    assert whole == real


@pytest.mark.parametrize("name", RECIPES.names())
def test_json_round_trip(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json(recipe.to_json()).to_json() == recipe.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "Not a recipe"),
        ("{", "Not a recipe"),
        (BASE.to_json().replace('"version":1', '"version":0'), "version 1, got 0"),
        (BASE.to_json().replace('"warmup"', '"warm"'), "recipe field 'warm'.*Did you mean"),
        (BASE.to_json().replace('"epochs":3,', ""), "Not a recipe"),
        (BASE.to_json().replace('"warmup":0.25', '"warmup":"much"'), "Not a recipe"),
        (BASE.to_json().replace('"augmentation":[]', '"augmentation":[1]'), "Not a recipe"),
    ],
)
def test_bad_json_gives_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(NasError, match=message):
        Recipe.from_json(text)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimiser", "adam", "Unknown optimiser 'adam'. Known: adamw, sgd"),
        ("schedule", "step", "Unknown schedule 'step'. Known: constant, cosine, one-cycle"),
        ("augmentation", (("blur", 1),), "Unknown augmentation 'blur'. Known: cutout, flip, shift"),
        ("augmentation", (("shift", 1.5),), "strength 1.5 is out of range"),
        ("augmentation", (("flip", 1.5),), "strength 1.5 is out of range"),
        ("augmentation", (("flip", math.nan),), "strength nan is out of range"),
        ("learning_rate", math.nan, "learning_rate must be positive"),
        ("learning_rate", math.inf, "learning_rate must be positive"),
        ("weight_decay", -1, "weight_decay must be"),
        ("momentum", 1, "momentum must be"),
        ("batch_size", 1, "batch_size must be 2 or more"),
        ("epochs", 0, "epochs must be"),
        ("epochs", 2.5, "epochs must be"),
        ("warmup", 1, "warmup must be"),
        ("label_smoothing", 1, "label_smoothing must be"),
        ("ema_decay", 1, "ema_decay must be"),
        ("gradient_clip", 0, "gradient_clip must be"),
        ("mixed_precision", "fp16", "Unknown mixed precision 'fp16'. Known: bf16, none"),
        ("channels_last", 1, "channels_last must be true or false"),
        ("epoch_images", 31, "epoch_images must be"),
        ("epoch_images", 64.0, "epoch_images must be"),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(NasError, match=message):
        dataclasses.replace(BASE, **{field: value})  # type: ignore[arg-type]


def test_nesterov_needs_sgd_with_momentum() -> None:
    with pytest.raises(NasError, match="nesterov needs sgd"):
        dataclasses.replace(BASE, optimiser="adamw", nesterov=True)
    with pytest.raises(NasError, match="nesterov needs sgd"):
        dataclasses.replace(BASE, momentum=0, nesterov=True)


def test_unknown_recipe_lists_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match="Known: cifar-full, cifar-short, digits-full, digits-short"
    ):
        get_recipe("digits")


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", (0.1, 0.1, 0.1)), ("one-cycle", (0.1, 0.05, 0)), ("cosine", (0.1, 0.05, 0))],
)
def test_learning_rate_schedule(schedule: Any, rates: tuple[float, ...]) -> None:
    recipe = dataclasses.replace(BASE, schedule=schedule)
    assert recipe.learning_rate_at(0.0) == 0.0
    assert recipe.learning_rate_at(0.125) == pytest.approx(0.05)
    for progress, rate in zip((0.25, 0.625, 1.0), rates, strict=True):
        assert recipe.learning_rate_at(progress) == pytest.approx(rate, abs=1e-12)


def test_cosine_and_one_cycle_differ_between_their_common_points() -> None:
    quarter = 0.25 + 0.75 / 4
    cosine = dataclasses.replace(BASE, schedule="cosine").learning_rate_at(quarter)
    linear = dataclasses.replace(BASE, schedule="one-cycle").learning_rate_at(quarter)
    assert cosine == pytest.approx(0.1 * (1 + math.sqrt(0.5)) / 2)
    assert linear == pytest.approx(0.075)


def test_shift_moves_each_image_and_fills_with_black() -> None:
    images = torch.arange(2 * 64 * 9.0).view(64, 2, 3, 3)
    black = torch.tensor([-1.0, -2.0]).view(2, 1, 1)
    out = augment(images, [("shift", 1)], black=black, generator=torch.Generator().manual_seed(0))
    moves = set()
    for image, moved in zip(images, out, strict=True):
        padded = black.expand(2, 5, 5).clone()
        padded[:, 1:4, 1:4] = image
        windows = {(y, x): padded[:, y : y + 3, x : x + 3] for y in range(3) for x in range(3)}
        moves |= {at for at, window in windows.items() if torch.equal(window, moved)}
    assert moves == {(y, x) for y in range(3) for x in range(3)}


def test_flip_mirrors_about_its_share() -> None:
    images = torch.arange(1000 * 4.0).view(1000, 1, 1, 4)
    generator = torch.Generator().manual_seed(0)
    out = augment(images, [("flip", 0.25)], black=torch.zeros(1, 1, 1), generator=generator)
    flipped = (out == images.flip(-1)).all((1, 2, 3))
    same = (out == images).all((1, 2, 3))
    assert (flipped ^ same).all()
    # Four standard deviations of a binomial of 1000 and 0.25.
    assert abs(int(flipped.sum()) - 250) < 55


def test_cutout_hides_a_square_about_any_pixel() -> None:
    images = torch.ones(2000, 2, 5, 4)
    out = augment(
        images,
        [("cutout", 3)],
        black=-torch.ones(2, 1, 1),
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(out[:, 0], out[:, 1])
    squares = set()
    for y in range(5):
        for x in range(4):
            square = torch.ones(5, 4)
            square[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = 0
            squares.add(square.numpy().tobytes())
    assert {image.numpy().tobytes() for image in out[:, 0]} == squares


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_augmentation_depends_on_its_generator_only(name: str) -> None:
    images = torch.rand(32, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    before, kept = torch.get_rng_state(), images.clone()
    strength = 1.0 if AUGMENTATIONS.get(name).whole else 0.5
    outs = [
        augment(
            images,
            [(name, strength)],
            black=torch.zeros(1, 1, 1),
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    assert torch.equal(images, kept)
    assert torch.equal(torch.get_rng_state(), before)
