"""``folder:PATH``: image files in one folder per class, perhaps below train, val and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.accuracy.data.raw import Array, RawSet, checked
from kernels.errors import NasError

_SPLITS = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}
_NAMED = 3
"""Files that a message names before it counts the rest."""
_GREY = ("L", "1")


@dataclass(frozen=True, slots=True)
class _File:
    """An image file whose header was read: ``(width, height)`` and Pillow's mode."""

    path: Path
    label: int
    size: tuple[int, int]
    mode: str


def read_folder(name: str, root: Path, size: int | None) -> RawSet:
    """Read ``root/<class>/<image>``, or the same below ``train``, ``val`` and ``test``.

    Classes are numbered in the order of their names. Images are grey if all are, colour otherwise.

    Args:
        name: the data set's name, for messages.
        root: the folder.
        size: side in pixels: each image is scaled and its longer side cropped in the middle; None:
            as they are, which must be one size.

    Raises:
        NasError: there is no such folder or class, a class is empty, an image cannot be read, or
            there are images of several sizes.
    """
    if not root.is_dir():
        raise NasError(f"{name!r}: there is no folder {root}.")
    folders = {
        which: next((root / item for item in names if (root / item).is_dir()), None)
        for which, names in _SPLITS.items()
    }
    if folders["train"] is None:
        folders = {"train": root, "validation": None, "test": None}
    train_folder = folders["train"]
    assert train_folder is not None
    classes = _class_names(name, train_folder)
    files: dict[str, list[_File]] = {}
    for which, folder in folders.items():
        if folder is not None:
            _check_classes(name, folder, classes)
            files[which] = _headers(name, folder, classes)
    everything = [file for part in files.values() for file in part]
    grey = all(file.mode in _GREY for file in everything)
    if size is None:
        _check_sizes(name, everything)
    parts = {
        which: checked(name, _pixels(name, part, grey, size), [file.label for file in part])
        for which, part in files.items()
    }
    return RawSet(parts["train"], parts.get("validation"), parts.get("test"), classes)


def _class_names(name: str, folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise NasError(
            f"{name!r}: {folder} needs a folder for each of at least two classes, "
            f"got {', '.join(names) or 'none'}."
        )
    return names


def _check_classes(name: str, folder: Path, classes: Sequence[str]) -> None:
    other = set(_class_names(name, folder)) ^ set(classes)
    if other:
        raise NasError(
            f"{name!r}: {folder} must have the classes of the training folder; "
            f"{', '.join(sorted(other))} is in one of them only."
        )


def _headers(name: str, folder: Path, classes: Sequence[str]) -> list[_File]:
    from PIL import Image, UnidentifiedImageError

    endings = set(Image.registered_extensions())
    found: list[_File] = []
    broken: list[Path] = []
    for label, class_name in enumerate(classes):
        paths = sorted(
            path
            for path in (folder / class_name).rglob("*")
            if path.suffix.lower() in endings and path.is_file() and not path.name.startswith(".")
        )
        if not paths:
            raise NasError(f"{name!r}: {folder / class_name} holds no image.")
        for path in paths:
            try:
                with Image.open(path) as file:
                    found.append(_File(path, label, file.size, file.mode))
            except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
                broken.append(path)
    _refuse_broken(name, broken, len(found) + len(broken))
    return found


def _check_sizes(name: str, files: Sequence[_File]) -> None:
    first = files[0]
    for file in files:
        if file.size != first.size:
            raise NasError(
                f"{name!r}: images of several sizes: {first.path.name} is "
                f"{first.size[0]}x{first.size[1]}, {file.path.name} is "
                f"{file.size[0]}x{file.size[1]}; name one: {name}?size=64."
            )


def _pixels(name: str, files: Sequence[_File], grey: bool, size: int | None) -> Array:
    """Decode to uint8 ``(n, c, h, w)``."""
    from PIL import Image, ImageOps

    width, height = files[0].size if size is None else (size, size)
    images = np.empty((len(files), 1 if grey else 3, height, width), dtype=np.uint8)
    broken: list[Path] = []
    for i, file in enumerate(files):
        try:
            with Image.open(file.path) as opened:
                image: Image.Image = opened.convert("L" if grey else "RGB")
        except (OSError, SyntaxError, ValueError):
            broken.append(file.path)
            continue
        if size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        images[i] = pixels if grey else pixels.transpose(2, 0, 1)
    _refuse_broken(name, broken, len(files))
    return images


def _refuse_broken(name: str, broken: Sequence[Path], total: int) -> None:
    if broken:
        named = ", ".join(map(str, broken[:_NAMED]))
        more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        raise NasError(
            f"{name!r}: {len(broken)} of {total} images cannot be read: {named}{more}; "
            "remove or replace them."
        )
