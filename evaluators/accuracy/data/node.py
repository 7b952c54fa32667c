"""One copy of a data set a machine, whichever process loads it first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from evaluators.accuracy.data.text import TextDataset, TextSplit
from evaluators.accuracy.data.tokens import Tokeniser
from evaluators.accuracy.data.values import Dataset, Split
from kernels.shared_arrays import mapped, once, publish

LEAST_BYTES = 16 << 20
"""Smaller sets are loaded by each process, unless the machine has a copy: that is as quick."""
_SPLITS = ("train", "validation", "test")
_FACTS = ("name", "class_names", "mean", "std", "split_seed", "fingerprint", "source")
_TEXT_FACTS = ("name", "fingerprint", "source")


AnyDataset = Dataset | TextDataset
"""Images with their classes, or a text."""
_Arrays = dict[str, npt.NDArray[Any]]

_mapped: dict[str, AnyDataset] = {}


def shared(fingerprint: str, load: Callable[[], AnyDataset]) -> AnyDataset:
    """Return a data set from this machine's copy, which is made where there is none.

    Args:
        fingerprint: of the data set.
        load: loads it; what it returns may turn out to be another one, which is not kept.
    """
    loaded: list[AnyDataset] = []

    def make() -> None:
        loaded.append(load())
        if loaded[0].fingerprint == fingerprint:
            publish(node_name(fingerprint), *packed(loaded[0]))

    once(node_name(fingerprint), make)
    return kept(fingerprint) or (loaded[0] if loaded else load())


def kept(fingerprint: str) -> AnyDataset | None:
    """Return this machine's copy of a data set, if it has one."""
    if fingerprint not in _mapped:
        found = mapped(node_name(fingerprint))
        if found is None:
            return None
        about, arrays = found
        unpack = _text if "tokeniser" in about else _images
        _mapped[fingerprint] = unpack(about, arrays)
    return _mapped[fingerprint]


def packed(dataset: AnyDataset) -> tuple[dict[str, Any], _Arrays]:
    """Return a data set as plain values and arrays, as :func:`kernels.shared_arrays.publish`."""
    if isinstance(dataset, TextDataset):
        about = {fact: getattr(dataset, fact) for fact in _TEXT_FACTS}
        about |= {"tokeniser": dataset.tokeniser.to_json(), "context": dataset.train.context}
        return about, {name: getattr(dataset, name).ids.numpy() for name in _SPLITS}
    arrays = {}
    for name in _SPLITS:
        split: Split = getattr(dataset, name)
        arrays[f"{name}-images"] = split.images.numpy()
        arrays[f"{name}-labels"] = split.labels.numpy()
        if split.levels is not None:
            arrays[f"{name}-levels"] = split.levels.numpy()
    return {fact: getattr(dataset, fact) for fact in _FACTS}, arrays


def _images(about: dict[str, Any], arrays: _Arrays) -> Dataset:
    import torch

    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    facts: dict[str, Any] = {
        key: tuple(item) if isinstance(item, list) else item for key, item in about.items()
    }
    for name in _SPLITS:
        images, labels = tensors[f"{name}-images"], tensors[f"{name}-labels"]
        facts[name] = Split(images, labels, tensors.get(f"{name}-levels"))
    return Dataset(**facts)


def _text(about: dict[str, Any], arrays: _Arrays) -> TextDataset:
    import torch

    facts: dict[str, Any] = {fact: about[fact] for fact in _TEXT_FACTS}
    for name in _SPLITS:
        facts[name] = TextSplit(torch.from_numpy(arrays[name]), about["context"])
    return TextDataset(**facts, tokeniser=Tokeniser.from_json(about["tokeniser"]))


def node_name(fingerprint: str) -> str:
    """Return what a data set is called among the shared arrays of a machine."""
    return f"data-{fingerprint}"


def size_of(dataset: AnyDataset) -> int:
    """Return the bytes of a data set's arrays."""
    return sum(array.nbytes for array in packed(dataset)[1].values())
