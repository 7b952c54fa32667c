"""What a data set is once it is loaded: three splits and what was done to make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kernels.errors import NasError
from search_spaces.space import DataSpec

if TYPE_CHECKING:
    import torch

SPLIT_SEED = 2024
"""Seed of every split and subset that is drawn."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images and their labels; read images with :meth:`batch`, which normalises them.

    Args:
        images: ``(n, c, h, w)``; uint8 as they came, or float32 already normalised.
        labels: int64, ``(n,)``, class numbers from 0.
        levels: for uint8 images, float32 ``(2, c, 1, 1)``: the mean and the standard deviation, in
            levels of 0..255, that :meth:`batch` normalises with; None for float32 images.
    """

    images: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    levels: torch.Tensor | None = field(repr=False, default=None)

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or labels.shape != images.shape[:1] or not len(labels):
            raise NasError(
                "A split needs images (n, c, h, w) and labels (n,) with n >= 1, "
                f"got {tuple(images.shape)} and {tuple(labels.shape)}."
            )
        if images.is_floating_point() != (self.levels is None):
            raise NasError(
                "A split needs normalised float images, or uint8 images with the levels to "
                f"normalise them by, got {images.dtype}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: slice | torch.Tensor) -> torch.Tensor:
        """Return normalised float32 images ``(b, c, h, w)`` on the split's device.

        Args:
            index: a slice, or int64 positions ``(b,)`` on the same device.
        """
        images = self.images[index]
        if self.levels is None:
            return images
        return images.float().sub_(self.levels[0]).div_(self.levels[1])

    def to(self, device: str | torch.device) -> Split:
        """Return the split with its tensors on ``device``."""
        levels = None if self.levels is None else self.levels.to(device)
        return Split(self.images.to(device), self.labels.to(device), levels)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Three disjoint splits and what was done to make them; build with ``make_dataset``.

    One that ``load_dataset`` can load again is pickled as its source and fingerprint, and loaded
    again where it is unpickled; any other as its arrays.

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
        source: the reference that loads it in any process of this machine; empty if none does.
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
    source: str = ""

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
    def spec(self) -> DataSpec:
        """What a search space must know of the data."""
        return DataSpec(self.input_shape, self.classes)

    @property
    def black(self) -> tuple[float, ...]:
        """Per channel, the normalised value of a raw 0: what augmentation fills with."""
        return tuple(-m / s for m, s in zip(self.mean, self.std, strict=True))
