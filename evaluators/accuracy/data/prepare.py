"""From raw arrays to a data set: split, subset, normalise, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from evaluators.accuracy.data.raw import Array, Integers, Raw, RawSet, checked
from evaluators.accuracy.data.reference import Options
from evaluators.accuracy.data.values import SPLIT_SEED, Dataset, Split
from kernels.errors import NasError

_SHARE = 0.2
"""Of a source without splits of its own, each for validation and test."""
_SHARE_BESIDE_OWN = 0.1
"""Of the training images, where the source has one of the two other splits itself."""
_CHUNK = 4096
_PARTS = ("training", "validation", "test")


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
        images: raw, uint8 or float in 0..1, ``(n, c, h, w)``.
        labels: integers from 0, ``(n,)``; every class below the largest must occur.
        class_names: one per class; the numbers by default.
        split_seed: seed of the split.

    Raises:
        NasError: shapes or values are wrong, there is one class only, or a class has fewer than
            the three images that three splits need.
    """
    raw = RawSet(checked(name, images, labels), class_names=class_names)
    return prepare(name, raw, split_seed=split_seed)


def make_split_dataset(
    name: str,
    train: tuple[npt.ArrayLike, npt.ArrayLike],
    test: tuple[npt.ArrayLike, npt.ArrayLike],
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    split_seed: int = SPLIT_SEED,
) -> Dataset:
    """Keep the splits that the data has; without a validation split take a tenth of each class.

    Args:
        name: the data set's name.
        train: images and labels as in :func:`make_dataset`.
        test: the same.
        validation: the same; None: taken from the training images.
        class_names: one per class; the numbers by default.
        split_seed: seed of the validation split.

    Raises:
        NasError: as :func:`make_dataset`; or the splits differ in the shape of their images.
    """
    own = None if validation is None else checked(name, *validation)
    raw = RawSet(checked(name, *train), own, checked(name, *test), class_names)
    return prepare(name, raw, split_seed=split_seed)


def prepare(
    name: str, raw: RawSet, *, options: Options | None = None, split_seed: int = SPLIT_SEED
) -> Dataset:
    """Make the data set of what a source has.

    Raises:
        NasError: as :func:`make_dataset`; or a subset is larger than its split.
    """
    names = _class_names(name, raw)
    parts = _three_parts(name, raw, classes=len(names), seed=split_seed)
    wanted = (options or Options()).subset
    kept = [
        part if count is None else _subset(name, part, which, count, len(names), split_seed)
        for part, which, count in zip(parts, _PARTS, wanted, strict=True)
    ]
    mean, std = _channel_statistics(name, kept[0].images)
    train, validation, test = (_split(part, mean, std) for part in kept)
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        class_names=names,
        mean=mean,
        std=std,
        split_seed=split_seed,
        fingerprint=_fingerprint(kept, names),
    )


def _class_names(name: str, raw: RawSet) -> tuple[str, ...]:
    """Return one name per class of the training images, which must have each of at least two."""
    labels = raw.train.labels
    largest = max(int(part.labels.max()) for part in (raw.train, raw.validation, raw.test) if part)
    names = tuple(map(str, raw.class_names or range(largest + 1)))
    if largest >= len(names):
        raise NasError(f"Data set {name!r} names {len(names)} classes but has label {largest}.")
    counts = np.bincount(labels, minlength=len(names))
    if (counts > 0).sum() < 2:
        raise NasError(
            f"Data set {name!r} needs labels 0, 1, ... of at least two classes, "
            f"got {np.unique(labels)[:10].tolist()}."
        )
    if not counts.all():
        absent = np.flatnonzero(counts == 0)[:10].tolist()
        raise NasError(
            f"Data set {name!r}: labels run from 0 to {len(names) - 1} without a gap, but no "
            f"training image has label {', '.join(map(str, absent))}; number the classes anew."
        )
    return names


def _three_parts(name: str, raw: RawSet, *, classes: int, seed: int) -> tuple[Raw, Raw, Raw]:
    train, validation, test = raw.train, raw.validation, raw.test
    for part in (validation, test):
        same = part is None or (
            part.images.shape[1:] == train.images.shape[1:]
            and part.images.dtype == train.images.dtype
        )
        if part is not None and not same:
            raise NasError(
                f"Data set {name!r}: every split needs images like the training images' "
                f"{train.images.dtype} {train.images.shape[1:]}, "
                f"got {part.images.dtype} {part.images.shape[1:]}."
            )
    if validation is not None and test is not None:
        return train, validation, test
    share = _SHARE if validation is None and test is None else _SHARE_BESIDE_OWN
    shares = (share if validation is None else 0.0, share if test is None else 0.0)
    index = _stratified_parts(name, train.labels, shares, classes=classes, seed=seed)
    first, second, third = (train.take(part) for part in index)
    validation = second if validation is None else validation
    return first, validation, third if test is None else test


def _stratified_parts(
    name: str, y: Integers, shares: tuple[float, float], *, classes: int, seed: int
) -> list[Integers]:
    """Return sorted indices of the training part, and of one per share; a share of 0 is empty."""
    # NOTE: RandomState's stream is frozen by NumPy's policy (NEP 19), Generator's is not.
    random = np.random.RandomState(seed)
    counts = np.bincount(y, minlength=classes)
    least = 1 + sum(share > 0 for share in shares)
    if counts.min() < least:
        raise NasError(
            f"Data set {name!r} needs at least {least} images in each of its {classes} classes "
            f"(one a split), got {counts[:10].tolist()}."
        )
    parts: list[list[Integers]] = [[], [], []]
    for label, count in enumerate(counts):
        members = random.permutation(np.flatnonzero(y == label))
        first, second = (max(1, round(share * count)) if share else 0 for share in shares)
        pieces = np.split(members, [first, first + second])
        for part, piece in zip(parts, (pieces[2], pieces[0], pieces[1]), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def _subset(name: str, part: Raw, which: str, wanted: int, classes: int, seed: int) -> Raw:
    """Keep ``wanted`` images, each class by its share (largest remainder), at least one each."""
    if not classes <= wanted <= len(part):
        raise NasError(
            f"Data set {name!r}: a subset of {wanted} {which} images was asked for; "
            f"the split has {len(part)} of {classes} classes."
        )
    random = np.random.RandomState(seed)
    counts = np.bincount(part.labels, minlength=classes)
    exact = counts * (wanted / len(part))
    quota = np.where(counts > 0, np.maximum(1, np.floor(exact)), 0).astype(np.int64)
    while quota.sum() != wanted:
        step = 1 if quota.sum() < wanted else -1
        # The class that is furthest from its share; the first of equal ones.
        room = quota < counts if step > 0 else quota > 1
        quota[np.argmax(np.where(room, (exact - quota) * step, -np.inf))] += step
    chosen = [
        random.permutation(np.flatnonzero(part.labels == label))[:count]
        for label, count in enumerate(quota)
    ]
    return part.take(np.sort(np.concatenate(chosen)))


def _channel_statistics(name: str, x: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of images in 0..1."""
    if x.dtype == np.uint8:
        mean, std = _statistics_of_bytes(x)
    else:
        mean = x.mean(axis=(0, 2, 3), dtype=np.float64)
        std = x.std(axis=(0, 2, 3), dtype=np.float64)
    if not (std > 1e-6).all():
        raise NasError(
            f"Data set {name!r}: every channel must vary over the training images, "
            f"got standard deviations {std.tolist()}."
        )
    return tuple(mean.tolist()), tuple(std.tolist())


def _statistics_of_bytes(x: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Count how often each value occurs: exact, and no float copy of the images is made."""
    counts = np.zeros((x.shape[1], 256), dtype=np.int64)
    for chunk in _chunks(x):
        for channel in range(x.shape[1]):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255.0
    mean = share @ values
    variance = (share * (values - mean[:, None]) ** 2).sum(axis=1)
    return mean, np.sqrt(variance)


def _split(part: Raw, mean: Sequence[float], std: Sequence[float]) -> Split:
    import torch

    labels = torch.from_numpy(part.labels)
    if part.images.dtype == np.uint8:
        levels = torch.tensor([mean, std], dtype=torch.float64) * 255
        return Split(torch.from_numpy(part.images), labels, levels.float()[:, :, None, None])
    # float64 until the end: the stored statistics reproduce the tensor from raw images exactly.
    centred = part.images - np.reshape(mean, (-1, 1, 1))
    images = (centred / np.reshape(std, (-1, 1, 1))).astype(np.float32)
    return Split(torch.from_numpy(images), labels)


def _fingerprint(parts: Sequence[Raw], class_names: Sequence[str]) -> str:
    eight_bit = parts[0].images.dtype == np.uint8
    # Bytes are normalised in float32, floats in float64: equal pixels may train a little apart.
    form, dtype = ("paretonas-data-2", "u1") if eight_bit else ("paretonas-data-1", "<f4")
    digest = hashlib.sha256(repr((form, tuple(class_names))).encode())
    for part in parts:
        digest.update(repr(part.images.shape).encode())
        for chunk in _chunks(part.images):
            digest.update(np.ascontiguousarray(chunk, dtype=dtype).data)
        digest.update(part.labels.astype("<i8").tobytes())
    return digest.hexdigest()[:32]


def _chunks(x: Array) -> Iterator[Array]:
    for start in range(0, len(x), _CHUNK):
        yield x[start : start + _CHUNK]
