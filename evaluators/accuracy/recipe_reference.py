"""How a recipe is written: ``NAME``, or a TOML file; perhaps with ``?field=value&field=value``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from evaluators.accuracy.recipe import RECIPES, Recipe, get_recipe, scaled
from kernels.errors import NasError, UnknownNameError

BY_DATA = ("short", "full")
"""Names that stand for a recipe of each kind of data: for a trial of a search, and for a front."""
_BASE = "base"
_DIGIT_SIDE = 16
"""Pixels up to which images are as small as digits."""
_FIELDS = tuple(entry.name for entry in fields(Recipe))


def find_recipe(reference: str, input_shape: tuple[int, ...] = (3, 32, 32)) -> Recipe:
    """Return the recipe that a reference stands for.

    Args:
        reference: a registered name; ``short`` or ``full``, which depend on the data; or
            ``path/to/recipe.toml``, a table of the fields of :class:`Recipe`, where ``base`` may
            name a recipe that gives the others. ``?epochs=5&batch_size=128`` changes fields. A
            changed batch size brings its learning rate with it, by :func:`scaled`, unless that is
            given too.
        input_shape: of an image, ``(c, h, w)``, or of a text, ``(tokens,)``.

    Example:
        >>> find_recipe("short", (1, 8, 8)).name, find_recipe("cifar-short?epochs=5").epochs
        ('digits-short', 5)

    Raises:
        NasError: there is no such recipe, the file cannot be read, or a field is wrong.
    """
    place, mark, text = reference.partition("?")
    recipe = _from_file(place, input_shape) if is_file(place) else _named(place, input_shape)
    if not mark:
        return recipe
    return replace(_changed(recipe, _options(reference, text)), name=f"{recipe.name}?{text}")


def check_name(reference: str) -> None:
    """Refuse a recipe that has no file and is not known by name.

    Raises:
        UnknownNameError: lists those there are.
    """
    place = reference.partition("?")[0]
    if not is_file(place):
        _named(place, (3, 32, 32))


def recipe_names() -> list[str]:
    """Return all names of recipes."""
    return sorted([*BY_DATA, *RECIPES.names()])


def is_file(place: str) -> bool:
    """Tell whether a reference without options names a file."""
    return place.endswith(".toml")


def _named(name: str, input_shape: tuple[int, ...]) -> Recipe:
    if name not in BY_DATA and name not in RECIPES:
        raise UnknownNameError("recipe", name, recipe_names())
    return get_recipe(f"{_family(input_shape)}-{name}" if name in BY_DATA else name)


def _family(input_shape: tuple[int, ...]) -> str:
    channels, *sides = input_shape
    if not sides:  # tokens of a text
        return "text"
    if max(sides) <= _DIGIT_SIDE:
        return "digits"
    return "mnist" if channels == 1 else "cifar"


def _from_file(place: str, input_shape: tuple[int, ...]) -> Recipe:
    path = Path(place).expanduser()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise NasError(f"Cannot read the recipe {place}: {problem}.") from None
    base = values.pop(_BASE, None)
    try:
        values = {"name": path.stem, **values}
        if base is not None:
            return _changed(find_recipe(str(base), input_shape), values)
        return _made(values)
    except NasError as problem:
        raise NasError(f"{place}: {problem}") from None


def _options(reference: str, text: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in text.split("&"):
        name, _, value = item.partition("=")
        if name in values or not value:
            raise NasError(
                f"Recipe {reference!r}: give each field once, as {name or 'NAME'}=VALUE."
            )
        values[name] = _value(name, value)
    return values


def _value(name: str, text: str) -> Any:
    """Read a value as TOML does; ``none`` switches something off, other words are text."""
    if text == "none":
        return "none" if name == "mixed_precision" else () if name == "augmentation" else None
    if name == "augmentation":
        steps = [item.split(":") for item in text.split(",")]
        if any(len(step) != 2 for step in steps):
            raise NasError(f"Write augmentation=NAME:STRENGTH,..., got {text!r}.")
        return steps
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _changed(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    batch = values.get("batch_size")
    if isinstance(batch, int) and batch > 1 and "learning_rate" not in values:
        rate = scaled(replace(recipe, epoch_images=None), batch).learning_rate
        values = {**values, "learning_rate": rate}
    return _made({**{name: getattr(recipe, name) for name in _FIELDS}, **values})


def _made(values: Mapping[str, Any]) -> Recipe:
    for name in values.keys() - set(_FIELDS):
        raise UnknownNameError("recipe field", name, (*_FIELDS, _BASE))
    try:
        return Recipe(**values)
    except (TypeError, ValueError) as problem:
        why = str(problem).removeprefix("Recipe.__init__() ")
        raise NasError(f"Not a recipe: {why}.") from None
