"""The spaces that ship, and how a space is found by name or in a user's file."""

from __future__ import annotations

import importlib
import re
from importlib.metadata import entry_points
from pathlib import Path

from kernels.errors import NasError, UnknownNameError
from kernels.references import is_file_reference, load_entry, load_file, split_reference
from search_spaces.errors import SpaceError
from search_spaces.space import Space

_SHIPPED = {
    "decoder-lm": "search_spaces.zoo.decoder_lm:decoder_lm",
    "decoder-lm-small": "search_spaces.zoo.decoder_lm:decoder_lm_small",
    "decoder-lm-variants": "search_spaces.zoo.decoder_lm:decoder_lm_variants",
    "mobile-cnn": "search_spaces.zoo.mobile_cnn:mobile_cnn",
    "mobile-cnn-small": "search_spaces.zoo.mobile_cnn:mobile_cnn_small",
    "nas-bench-201": "search_spaces.zoo.nas_bench_201:nas_bench_201",
    "vit": "search_spaces.zoo.vit:vit",
    "vit-small": "search_spaces.zoo.vit:vit_small",
    "vit-variants": "search_spaces.zoo.vit:vit_variants",
}
ENTRY_POINTS = "paretonas.spaces"
"""The entry-point group under which other distributions offer spaces."""


def space_names() -> list[str]:
    """Return the names of the spaces that ship and of those that installed packages offer."""
    return sorted([*_SHIPPED, *entry_points(group=ENTRY_POINTS).names])


def plain_name(reference: str) -> str:
    """Return a name for runs of a space that may be a file: its last part.

    Example:
        >>> plain_name("mobile-cnn"), plain_name("mine/spaces.py"), plain_name("spaces.py:wide")
        ('mobile-cnn', 'spaces', 'wide')
    """
    place, name = split_reference(reference)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name or place).stem).strip("-.") or "space"


def load_space(reference: str) -> Space:
    """Find a space.

    Args:
        reference: a name; ``path/to/file.py`` with one space in it; or ``path/to/file.py:name``.

    Raises:
        SpaceError: the file cannot be read or does not hold the space.
        UnknownNameError: there is no space of that name.
    """
    if is_file_reference(reference):
        path, name = split_reference(reference)
        return _from_file(Path(path), name)
    if reference in _SHIPPED:
        module, _, attribute = _SHIPPED[reference].partition(":")
        return _checked(getattr(importlib.import_module(module), attribute), reference)
    for entry in entry_points(group=ENTRY_POINTS, name=reference):
        return _checked(load_entry(entry, "space"), reference)
    raise UnknownNameError("space", reference, space_names())


def _checked(found: object, reference: str) -> Space:
    if not isinstance(found, Space):
        raise SpaceError(f"{reference} is not a space; decorate its function with @space(...).")
    return found


def _from_file(path: Path, name: str) -> Space:
    try:
        module = load_file(path)
    except NasError as problem:
        raise SpaceError(str(problem)) from problem
    found = {item.name: item for item in vars(module).values() if isinstance(item, Space)}
    own = {key: item for key, item in found.items() if key not in _SHIPPED} or found
    if name:
        if name not in own:
            raise UnknownNameError(f"space in {path}", name, own)
        return own[name]
    if len(own) != 1:
        listing = ", ".join(sorted(own)) or "none"
        raise SpaceError(
            f"{path} must hold one space, or be followed by :name. It holds: {listing}."
        )
    return next(iter(own.values()))
