"""What every source hands over: arrays in one layout, checked, with a clear error if they are not.

Raw images are uint8, or float32 in 0..1, ``(n, c, h, w)``; labels are int64 ``(n,)`` from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kernels.errors import NasError

Array: TypeAlias = npt.NDArray[Any]
Integers: TypeAlias = npt.NDArray[np.int64]

_MAX_CHANNELS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """Raw images and labels of one split; made by :func:`checked`.

    Args:
        images: uint8, or float32 in 0..1, ``(n, c, h, w)``.
        labels: int64, ``(n,)``.
    """

    images: Array
    labels: Integers

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Integers) -> Raw:
        """Return the images and labels at these positions."""
        return Raw(self.images[index], self.labels[index])


@dataclass(frozen=True, slots=True, eq=False)
class RawSet:
    """What a source has: its own splits where it has them.

    Args:
        train: what the missing splits are taken from.
        validation: the source's own; None: taken from ``train``.
        test: the source's own; None: taken from ``train``.
        class_names: one per class; None: the numbers.
    """

    train: Raw
    validation: Raw | None = None
    test: Raw | None = None
    class_names: Sequence[str] | None = None


def checked(name: str, images: npt.ArrayLike, labels: npt.ArrayLike) -> Raw:
    """Return the images and labels in the one layout.

    Args:
        name: the data set's name, for messages.
        images: uint8, or float in 0..1, ``(n, c, h, w)``.
        labels: integers from 0, ``(n,)``.

    Raises:
        NasError: a shape, type or value is wrong, or the two do not match.
    """
    x, y = _checked_images(name, images), _checked_labels(name, labels)
    if len(x) != len(y):
        raise NasError(f"Data set {name!r} has {len(x)} images but {len(y)} labels.")
    return Raw(x, y)


def channels_first(name: str, images: npt.ArrayLike) -> Array:
    """Bring ``(n, h, w)`` or ``(n, h, w, c)`` to ``(n, c, h, w)``.

    Raises:
        NasError: the layout has no reading, or two.
    """
    x = as_array(name, images)
    if x.ndim == 3:
        return x[:, None]
    first = x.ndim == 4 and x.shape[1] <= _MAX_CHANNELS
    last = x.ndim == 4 and x.shape[3] <= _MAX_CHANNELS
    if first == last:
        raise NasError(
            f"{name!r}: expected images of (n, h, w), (n, h, w, c) or (n, c, h, w) with one "
            f"reading and c at most {_MAX_CHANNELS}, got {x.shape}."
        )
    return x if first else x.transpose(0, 3, 1, 2)


def as_array(name: str, values: npt.ArrayLike) -> Array:
    """Return ``values`` as an array of numbers.

    Raises:
        NasError: they are no numbers, or have several sizes.
    """
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise NasError(
            f"Data set {name!r}: images and labels must be arrays of one size each: {error}"
        ) from None
    if array.dtype == object:
        raise NasError(
            f"Data set {name!r} holds an array of objects {array.shape}; store images of one size "
            "as uint8 or float and labels as integers."
        )
    return array


def _checked_images(name: str, images: npt.ArrayLike) -> Array:
    x = as_array(name, images)
    if x.ndim != 4 or not x.size:
        raise NasError(f"Data set {name!r} needs images (n, c, h, w), none empty, got {x.shape}.")
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype.kind != "f":
        raise NasError(f"Data set {name!r} needs uint8 or float images, got {x.dtype}.")
    low, high = x.min(), x.max()
    if np.isnan(low):
        broken = int(np.isnan(x).any(axis=(1, 2, 3)).sum())
        raise NasError(f"Data set {name!r}: {broken} of {len(x)} images have NaN pixels.")
    if low < 0.0 or high > 1.0:
        raise NasError(
            f"Data set {name!r} needs float images in 0..1, got {low}..{high}; scale them first."
        )
    return np.ascontiguousarray(x, dtype=np.float32)


def _checked_labels(name: str, labels: npt.ArrayLike) -> Integers:
    y = as_array(name, labels)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise NasError(f"Data set {name!r} needs integer labels (n,), got {y.dtype} {y.shape}.")
    if not y.size or y.min() < 0:
        raise NasError(
            f"Data set {name!r} needs labels 0, 1, ..., got {np.unique(y)[:10].tolist()}."
        )
    return y.astype(np.int64)
