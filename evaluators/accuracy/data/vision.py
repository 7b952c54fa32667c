"""The public data sets that torchvision knows: read from a folder, downloaded where they can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluators.accuracy.data.raw import Raw, RawSet, channels_first, checked
from kernels.environment import DATA_VARIABLE, data_dir
from kernels.errors import NasError


@dataclass(frozen=True, slots=True)
class VisionSet:
    """One of torchvision's data sets.

    Args:
        class_name: in ``torchvision.datasets``.
        files: where its files lie below the data folder.
    """

    class_name: str
    files: str


VISION_SETS = {
    "cifar10": VisionSet("CIFAR10", "cifar-10-batches-py"),
    "cifar100": VisionSet("CIFAR100", "cifar-100-python"),
    "fashion-mnist": VisionSet("FashionMNIST", "FashionMNIST/raw"),
    "mnist": VisionSet("MNIST", "MNIST/raw"),
}


def read_vision(name: str) -> RawSet:
    """Read a data set of ``VISION_SETS`` with its own test split.

    Raises:
        NasError: its files are not in the data folder and cannot be downloaded, or are damaged.
    """
    about = VISION_SETS[name]
    train, class_names = _part(name, about, train=True)
    test, _ = _part(name, about, train=False)
    return RawSet(train, None, test, class_names)


def _part(name: str, about: VisionSet, *, train: bool) -> tuple[Raw, list[str]]:
    root = data_dir()
    try:
        from torchvision import datasets

        loaded: Any = getattr(datasets, about.class_name)(str(root), train=train, download=True)
    # torchvision reports a failed download, a damaged archive and an unwritable folder by these.
    except (OSError, RuntimeError, ValueError, EOFError, ImportError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise NasError(
            f"Data set {name!r} is not in {root / about.files} and cannot be downloaded: {why}; "
            f"put its files there, let {DATA_VARIABLE} name the folder that has them, "
            "or use npz:PATH."
        ) from error
    images = channels_first(name, np.asarray(loaded.data))
    return checked(name, images, np.asarray(loaded.targets)), list(loaded.classes)
