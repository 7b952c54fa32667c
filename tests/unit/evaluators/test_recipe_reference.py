"""How recipes are named: by the data, with changed fields, and from files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from evaluators.accuracy.recipe import RECIPES, Augmentation, get_recipe
from evaluators.accuracy.recipe_reference import BY_DATA, check_name, find_recipe, recipe_names
from kernels.errors import NasError

DIGITS, GREY, COLOUR, LARGE = (1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 224, 224)


@pytest.mark.parametrize("length", BY_DATA)
@pytest.mark.parametrize(
    ("shape", "family"), [(DIGITS, "digits"), (GREY, "mnist"), (COLOUR, "cifar"), (LARGE, "cifar")]
)
def test_short_and_full_follow_the_images(shape: tuple[int, ...], family: str, length: str) -> None:
    assert find_recipe(length, shape) == get_recipe(f"{family}-{length}")


def test_a_name_alone_is_the_registered_recipe() -> None:
    for name in RECIPES.names():
        assert find_recipe(name) == get_recipe(name)
        check_name(name)
    assert set(recipe_names()) == {*BY_DATA, *RECIPES.names()}


def test_fields_change_and_name_the_recipe() -> None:
    found = find_recipe("cifar-short?epochs=5&augmentation=shift:4,flip:0.5&gradient_clip=none")
    expected = dataclasses.replace(
        get_recipe("cifar-short"),
        name="cifar-short?epochs=5&augmentation=shift:4,flip:0.5&gradient_clip=none",
        epochs=5,
        augmentation=(Augmentation("shift", 4), Augmentation("flip", 0.5)),
        gradient_clip=None,
    )
    assert found == expected
    assert find_recipe("short?schedule=cosine", COLOUR).schedule == "cosine"
    assert find_recipe("cifar-full?mixed_precision=none").mixed_precision == "none"
    assert find_recipe("cifar-full?augmentation=none").augmentation == ()
    assert find_recipe("cifar-short?channels_last=false").channels_last is False
    assert find_recipe("cifar-short?epochs=3").digest == get_recipe("cifar-short").digest


def test_a_batch_brings_its_learning_rate_along_unless_that_is_given() -> None:
    sgd, adamw = get_recipe("cifar-short"), get_recipe("mnist-short")
    assert (sgd.optimiser, adamw.optimiser) == ("sgd", "adamw")
    assert find_recipe("cifar-short?batch_size=128").learning_rate == pytest.approx(
        4 * sgd.learning_rate
    )
    assert find_recipe("mnist-short?batch_size=256").learning_rate == pytest.approx(
        2 * adamw.learning_rate
    )
    given = find_recipe("cifar-short?batch_size=128&learning_rate=0.05")
    assert (given.batch_size, given.learning_rate) == (128, 0.05)
    assert given.epoch_images == sgd.epoch_images


def test_a_file_is_a_recipe_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'optimiser = "adamw"\nlearning_rate = 1e-3\nweight_decay = 0.05\nbatch_size = 64\n'
        'epochs = 7\naugmentation = [["flip", 0.5], ["cutout", 4]]\n'
    )
    recipe = find_recipe(str(tmp_path / "mine.toml"))
    assert (recipe.name, recipe.optimiser, recipe.epochs) == ("mine", "adamw", 7)
    assert recipe.augmentation == (Augmentation("flip", 0.5), Augmentation("cutout", 4))
    longer = find_recipe(f"{tmp_path}/mine.toml?epochs=70")
    assert (longer.epochs, longer.name) == (70, "mine?epochs=70")


def test_a_file_may_change_a_recipe_it_names(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "short"\nbatch_size = 128\nema_decay = 0.9\n')
    recipe = find_recipe(str(tmp_path / "mine.toml"), DIGITS)
    base = get_recipe("digits-short")
    changed = {"batch_size": 128, "ema_decay": 0.9, "learning_rate": 2 * base.learning_rate}
    assert recipe == dataclasses.replace(base, name="mine", **changed)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("cifar-shrot", "Did you mean 'cifar-short'"),
        ("cifar-short?epoch=3", "Unknown recipe field 'epoch'.*Did you mean 'epochs'"),
        ("cifar-short?epochs=3&epochs=4", "give each field once"),
        ("cifar-short?epochs", "as epochs=VALUE"),
        ("cifar-short?", "as NAME=VALUE"),
        ("cifar-short?epochs=0", "epochs must be 1 or more"),
        ("cifar-short?learning_rate=fast", "could not convert string to float: 'fast'"),
        ("cifar-short?optimiser=lion", "Unknown optimiser 'lion'"),
        ("cifar-short?augmentation=flip", "augmentation=NAME:STRENGTH"),
        ("cifar-short?augmentation=flp:0.5", "Unknown augmentation 'flp'"),
        ("missing.toml", "Cannot read the recipe missing.toml"),
        ("{folder}/torn.toml", "Cannot read the recipe .*torn.toml"),
        ("{folder}/typo.toml", "typo.toml: Unknown recipe field 'epoch'"),
        ("{folder}/bare.toml", "bare.toml: Not a recipe: missing .* 'optimiser'"),
        ("{folder}/loop.toml", "Unknown recipe 'mine'"),
    ],
)
def test_what_is_no_recipe_is_one_line(reference: str, message: str, tmp_path: Path) -> None:
    files = {
        "torn": "epochs = [",
        "typo": 'base = "short"\nepoch = 3\n',
        "bare": "epochs = 3\n",
        "loop": 'base = "mine"\n',
    }
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text)
    with pytest.raises(NasError, match=message) as caught:
        find_recipe(reference.format(folder=tmp_path))
    assert "\n" not in str(caught.value)


def test_names_are_checked_without_files_and_data() -> None:
    check_name("no/such/file.toml?epochs=3")
    check_name("full?epochs=3")
    with pytest.raises(NasError, match="Did you mean 'full'"):
        check_name("ful")
