"""Finding a data set by its reference, once per process; and sending one to another process."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from evaluators.accuracy.data.folder import read_folder
from evaluators.accuracy.data.node import LEAST_BYTES, AnyDataset, kept, shared, size_of
from evaluators.accuracy.data.npz import read_npz
from evaluators.accuracy.data.prepare import prepare
from evaluators.accuracy.data.raw import RawSet, channels_first, checked
from evaluators.accuracy.data.reference import Options, parse_reference
from evaluators.accuracy.data.text import TextDataset, parse_text_options, read_text
from evaluators.accuracy.data.values import Dataset
from evaluators.accuracy.data.vision import VISION_SETS, read_vision
from kernels.errors import NasError
from kernels.references import load_reference
from kernels.registry import Registry

_NPZ, _FOLDER, _TEXT = "npz:", "folder:", "text:"

DATASETS: Registry[Callable[[], RawSet]] = Registry("data set")
"""Data sets by name; each function reads the raw images."""


@cache
def load_dataset(name: str) -> AnyDataset:
    """Load a data set, once per process.

    Args:
        name: a registered name; ``npz:PATH`` (see ``npz.read_npz``); ``folder:PATH`` (see
            ``folder.read_folder``); ``text:PATH`` (see ``text.read_text``); or ``file.py:function``
            or ``module:function``, a function without arguments that returns images and labels, or
            a data set. Options may follow: ``?train=5000&validation=1000&test=1000`` keeps that
            many images (or tokens) of a split, the same ones each time, ``folder:PATH?size=64``
            brings images to one size, ``text:PATH?tokens=bpe`` cuts a text (see
            ``text.TextOptions``). A file is not read again in this process if it changes.

    Example:
        >>> load_dataset("digits").input_shape
        (1, 8, 8)

    Raises:
        NasError: the name is unknown, or what it names cannot make a data set.
    """
    if name.startswith(_TEXT):
        return _from_text(name)
    place, options = parse_reference(name)
    if options.size is not None and not place.startswith(_FOLDER):
        raise NasError(f"Data set {name!r}: size is for folder:PATH only; leave it out.")
    mark = name[len(place) :]
    for prefix in (_NPZ, _FOLDER):
        if place.startswith(prefix):
            path = Path(place.removeprefix(prefix)).expanduser()
            raw = read_npz(name, path) if prefix == _NPZ else read_folder(name, path, options.size)
            # Absolute: another process may run in another folder.
            source = f"{prefix}{path.absolute()}{mark}"
            return replace(prepare(name, raw, options=options), source=source)
    if ":" in place:
        return _from_function(name, place, options)
    return replace(prepare(name, DATASETS.get(place)(), options=options), source=name)


@DATASETS.register("digits")
def _digits() -> RawSet:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return RawSet(checked("digits", bunch.images[:, None] / 16.0, bunch.target))


def _register_vision(name: str) -> None:
    DATASETS.add(name, lambda: read_vision(name))


for _name in VISION_SETS:
    _register_vision(_name)


def _from_text(name: str) -> TextDataset:
    place, mark, options = name.removeprefix(_TEXT).partition("?")
    path = Path(place).expanduser()
    made = read_text(name, path, parse_text_options(name, options))
    return replace(made, source=f"{_TEXT}{path.absolute()}{mark}{options}")


def _from_function(name: str, place: str, options: Options) -> AnyDataset:
    function = load_reference(place, "data set")
    try:
        made = function()
    except NasError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())
        raise NasError(
            f"Data set {name!r}: {place} raised {type(error).__name__}: {why}"
        ) from error
    if isinstance(made, Dataset | TextDataset):
        if options != Options():
            raise NasError(
                f"Data set {name!r}: {place} returns a Dataset, which is taken as it is; let it "
                "return (images, labels), or select in the function."
            )
        return replace(made, name=name)
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise NasError(
            f"Data set {name!r}: {place} must return (images, labels) or a Dataset, "
            f"got {type(made).__name__}."
        )
    raw = RawSet(checked(name, channels_first(name, made[0]), made[1]))
    return prepare(name, raw, options=options)


def _reload(name: str, source: str, fingerprint: str, size: int = 0) -> AnyDataset:
    """Load in this process what another process loaded; of a large set, map the machine's copy.

    Raises:
        NasError: it cannot be loaded here, or is another one than there.
    """
    dataset = kept(fingerprint)
    if dataset is None and size >= LEAST_BYTES:
        dataset = shared(fingerprint, lambda: load_dataset.__wrapped__(source))
    dataset = dataset or load_dataset(source)
    if dataset.fingerprint != fingerprint:
        raise NasError(
            f"Data set {source!r} has changed: its fingerprint was {fingerprint} where it was "
            f"loaded first and is {dataset.fingerprint} here; put the old files back or start anew."
        )
    return replace(dataset, name=name)


def _reduce(dataset: AnyDataset) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    if dataset.source:
        return _reload, (dataset.name, dataset.source, dataset.fingerprint, size_of(dataset))
    return type(dataset), tuple(getattr(dataset, entry.name) for entry in fields(dataset))


# Here and not as a method: the value must not know how it is loaded.
copyreg.pickle(Dataset, _reduce)
copyreg.pickle(TextDataset, _reduce)
