"""Image classification data sets: fixed splits, normalised once at load, named by content.

Images are brought to 0..1 (raw), split, and then normalised once per channel with the mean and
standard deviation of the training split; every ``Split`` holds normalised images, and the data set
keeps the two figures so that an exported model can be fed raw images.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kernels.errors import NasError
from kernels.registry import Registry

if TYPE_CHECKING:
    import torch

SPLIT_SEED = 2024
_VALIDATION_SHARE = 0.2
_TEST_SHARE = 0.2
_NPZ_PREFIX = "npz:"
_MAX_CHANNELS = 4
# All that np.load raises on files that are no .npz, broken, pickled or without the two arrays.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    AttributeError,
    TypeError,
    zipfile.BadZipFile,
)

_Floats: TypeAlias = npt.NDArray[np.float32]
_Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Normalised images and their labels.

    Args:
        images: float32, ``(n, c, h, w)``.
        labels: int64, ``(n,)``, class numbers from 0.
    """

    images: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or labels.shape != images.shape[:1] or not len(labels):
            raise NasError(
                "A split needs images (n, c, h, w) and labels (n,) with n >= 1, "
                f"got {tuple(images.shape)} and {tuple(labels.shape)}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> Split:
        """Return the split with both tensors on ``device``."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Three disjoint splits and what was done to make them; build with :func:`make_dataset`.

    Args:
        name: the name it is loaded by.
        train: what weights are fitted on.
        validation: what a search selects on.
        test: what is looked at once, at the end.
        class_names: one per class number.
        mean: per channel, of the raw training images.
        std: per channel, of the raw training images.
        split_seed: seed of the split.
        fingerprint: hash of raw images, labels and split; part of every cache key.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    split_seed: int
    fingerprint: str

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(c, h, w)`` of one image."""
        _, c, h, w = self.train.images.shape
        return (c, h, w)

    @property
    def black(self) -> tuple[float, ...]:
        """Per channel, the normalised value of a raw 0: what augmentation fills with."""
        return tuple(-m / s for m, s in zip(self.mean, self.std, strict=True))


DATASETS: Registry[Callable[[], Dataset]] = Registry("data set")


@cache
def load_dataset(name: str) -> Dataset:
    """Load a registered data set, or ``npz:PATH``, once per process.

    A file holds ``x``, uint8 or float in 0..1 of ``(n, h, w)``, ``(n, h, w, c)`` or
    ``(n, c, h, w)`` with c at most 4, and ``y``, integers ``(n,)`` from 0. It is not read again
    in this process if it changes.

    Example:
        >>> load_dataset("digits").input_shape
        (1, 8, 8)

    Raises:
        NasError: the name is unknown, or the file cannot make a data set.
    """
    if name.startswith(_NPZ_PREFIX):
        return _load_npz(name)
    return DATASETS.get(name)()


def make_dataset(
    name: str,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    class_names: Sequence[str] | None = None,
    split_seed: int = SPLIT_SEED,
) -> Dataset:
    """Split 60/20/20 per class, normalise with the training split, and fingerprint.

    Args:
        name: the data set's name.
        images: raw, in 0..1, ``(n, c, h, w)``.
        labels: integers from 0, ``(n,)``; every class below the largest must occur.
        class_names: one per class; the numbers by default.
        split_seed: seed of the split.

    Raises:
        NasError: shapes or values are wrong, there is one class only, or a class has fewer than
            the three images that three splits need.
    """
    x, y = _checked_images(name, images), _checked_labels(name, labels)
    if len(x) != len(y):
        raise NasError(f"Data set {name!r} has {len(x)} images but {len(y)} labels.")
    names = tuple(class_names or map(str, range(int(y.max()) + 1)))
    if y.max() >= len(names):
        raise NasError(f"Data set {name!r} names {len(names)} classes but has label {y.max()}.")
    parts = _stratified_parts(name, y, classes=len(names), seed=split_seed)
    mean, std = _channel_statistics(name, x[parts[0]])
    train, validation, test = (_split(x[part], y[part], mean, std) for part in parts)
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        class_names=names,
        mean=mean,
        std=std,
        split_seed=split_seed,
        fingerprint=_fingerprint([(x[part], y[part]) for part in parts], names),
    )


@DATASETS.register("digits")
def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return make_dataset("digits", bunch.images[:, None] / 16.0, bunch.target)


def _load_npz(name: str) -> Dataset:
    path = Path(name.removeprefix(_NPZ_PREFIX))
    try:
        with np.load(path) as file:
            x, y = file["x"], file["y"]
    except _UNREADABLE as error:
        raise NasError(
            f"{name!r} is not a readable .npz with arrays 'x' and 'y': {error}"
        ) from None
    return make_dataset(name, _channels_first(name, x), y)


def _channels_first(name: str, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bring ``x`` to 0..1 and ``(n, c, h, w)``."""
    if x.dtype == np.uint8:
        x = x.astype(np.float32) / 255.0
    if x.ndim == 3:
        return x[:, None]
    first = x.ndim == 4 and x.shape[1] <= _MAX_CHANNELS
    last = x.ndim == 4 and x.shape[3] <= _MAX_CHANNELS
    if first == last:
        raise NasError(
            f"{name!r}: expected x of (n, h, w), (n, h, w, c) or (n, c, h, w) with one reading and "
            f"c at most {_MAX_CHANNELS}, got {x.shape}."
        )
    return x if first else x.transpose(0, 3, 1, 2)


def _checked_images(name: str, images: npt.ArrayLike) -> _Floats:
    x = np.asarray(images)
    if x.ndim != 4 or not x.size:
        raise NasError(f"Data set {name!r} needs images (n, c, h, w), none empty, got {x.shape}.")
    if x.dtype.kind != "f" or not (x.min() >= 0.0 and x.max() <= 1.0):
        raise NasError(
            f"Data set {name!r} needs float images in 0..1, "
            f"got {x.dtype} in {x.min()}..{x.max()}; scale them first."
        )
    return np.ascontiguousarray(x, dtype=np.float32)


def _checked_labels(name: str, labels: npt.ArrayLike) -> _Integers:
    y = np.asarray(labels)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise NasError(f"Data set {name!r} needs integer labels (n,), got {y.dtype} {y.shape}.")
    if not y.size or y.min() < 0 or y.max() < 1:
        raise NasError(
            f"Data set {name!r} needs labels 0, 1, ... of at least two classes, "
            f"got {np.unique(y)[:10].tolist()}."
        )
    return y.astype(np.int64)


def _stratified_parts(name: str, y: _Integers, *, classes: int, seed: int) -> list[_Integers]:
    """Return sorted indices of the training, validation and test part."""
    # NOTE: RandomState's stream is frozen by NumPy's policy (NEP 19), Generator's is not.
    random = np.random.RandomState(seed)
    counts = np.bincount(y, minlength=classes)
    if counts.min() < 3:
        raise NasError(
            f"Data set {name!r} needs at least 3 images in each of its {classes} classes "
            f"(one a split), got {counts[:10].tolist()}."
        )
    parts: list[list[_Integers]] = [[], [], []]
    for label, count in enumerate(counts):
        members = random.permutation(np.flatnonzero(y == label))
        validation = max(1, round(_VALIDATION_SHARE * count))
        held_out = validation + max(1, round(_TEST_SHARE * count))
        pieces = np.split(members, [validation, held_out])
        for part, piece in zip(parts, (pieces[2], pieces[0], pieces[1]), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def _channel_statistics(name: str, x: _Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean = x.mean(axis=(0, 2, 3), dtype=np.float64)
    std = x.std(axis=(0, 2, 3), dtype=np.float64)
    if not (std > 1e-6).all():
        raise NasError(
            f"Data set {name!r}: every channel must vary over the training images, "
            f"got standard deviations {std.tolist()}."
        )
    return tuple(mean.tolist()), tuple(std.tolist())


def _split(x: _Floats, y: _Integers, mean: Sequence[float], std: Sequence[float]) -> Split:
    import torch

    # float64 until the end: the stored statistics reproduce the tensor from raw images exactly.
    centred = x - np.reshape(mean, (-1, 1, 1))
    images = (centred / np.reshape(std, (-1, 1, 1))).astype(np.float32)
    return Split(torch.from_numpy(images), torch.from_numpy(y))


def _fingerprint(parts: Sequence[tuple[_Floats, _Integers]], class_names: Sequence[str]) -> str:
    digest = hashlib.sha256(repr(("paretonas-data-1", tuple(class_names))).encode())
    for x, y in parts:
        digest.update(repr(x.shape).encode())
        digest.update(x.astype("<f4").tobytes())
        digest.update(y.astype("<i8").tobytes())
    return digest.hexdigest()[:32]
