"""``npz:PATH``: images and labels of one NumPy archive; nothing in it is unpickled."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evaluators.accuracy.data.raw import Array, Raw, RawSet, channels_first, checked
from kernels.errors import NasError

# All that np.load raises on files that are no .npz, broken or pickled.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, AttributeError, TypeError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
)
_LAYOUTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "train": (("x_train", "y_train"), ("x", "y")),
    "validation": (("x_validation", "y_validation"), ("x_val", "y_val")),
    "test": (("x_test", "y_test"),),
}
_EXPECTED = (
    "expected arrays x and y, or x_train and y_train, with x_test and y_test (and x_val and y_val) "
    "where there are such splits; or train_data, train_offsets and train_labels with JPEG bytes"
)


def read_npz(name: str, path: Path) -> RawSet:
    """Read an archive.

    It holds ``x``, uint8 or float in 0..1 of ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``
    with c at most 4, and ``y``, integers ``(n,)`` from 0; or the same as ``x_train`` and
    ``y_train``; and where it has splits of its own, ``x_test``, ``y_test``, ``x_val``, ``y_val``.
    ``class_names`` is optional. Or it holds compressed images: ``train_data`` and ``test_data``,
    uint8, where image i is ``header`` (optional) followed by ``data[offsets[i] : offsets[i + 1]]``.

    Raises:
        NasError: the file cannot be read, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except _UNREADABLE as error:
        raise NasError(
            f"{name!r} is not a readable .npz: {_one_line(error)}; {_EXPECTED}."
        ) from None
    names = arrays.get("class_names")
    classes = None if names is None else [str(item) for item in names.ravel()]
    read = _encoded if "train_data" in arrays else _plain
    train, validation, test = (read(name, arrays, which) for which in _LAYOUTS)
    if train is None:
        raise NasError(f"{name!r} holds {', '.join(sorted(arrays)) or 'nothing'}; {_EXPECTED}.")
    return RawSet(train, validation, test, classes)


def _plain(name: str, arrays: Mapping[str, Array], which: str) -> Raw | None:
    for x, y in _LAYOUTS[which]:
        if x in arrays or y in arrays:
            if x not in arrays or y not in arrays:
                raise NasError(f"{name!r} holds one of {x} and {y} only; it needs both.")
            return checked(name, channels_first(name, arrays[x]), arrays[y])
    return None


def _encoded(name: str, arrays: Mapping[str, Array], which: str) -> Raw | None:
    data = arrays.get(f"{which}_data")
    if data is None:
        return None
    offsets, labels = arrays.get(f"{which}_offsets"), arrays.get(f"{which}_labels")
    if offsets is None or labels is None:
        raise NasError(
            f"{name!r}: {which}_data needs {which}_offsets and {which}_labels beside it."
        )
    if (
        offsets.ndim != 1
        or offsets.dtype.kind not in "iu"
        or len(offsets) < 2
        or (np.diff(offsets.astype(np.int64)) <= 0).any()
        or offsets[0] < 0
        or offsets[-1] > data.size
    ):
        raise NasError(
            f"{name!r}: {which}_offsets must rise from 0 to at most the {data.size} bytes of data."
        )
    header = arrays["header"].tobytes() if "header" in arrays else b""
    return checked(name, _decode(name, which, header, data.tobytes(), offsets.tolist()), labels)


def _decode(name: str, which: str, header: bytes, data: bytes, offsets: list[int]) -> Array:
    """Decode images of one size and mode to uint8 ``(n, c, h, w)``."""
    from PIL import Image, UnidentifiedImageError

    images: Array | None = None
    for i in range(len(offsets) - 1):
        try:
            with Image.open(io.BytesIO(header + data[offsets[i] : offsets[i + 1]])) as file:
                pixels = np.asarray(file if file.mode == "L" else file.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise NasError(
                f"{name!r}: {which} image {i} cannot be decoded: {_one_line(error)}."
            ) from None
        if images is None:
            images = np.empty((len(offsets) - 1, *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            raise NasError(
                f"{name!r}: images of several sizes: {which} image 0 is {images.shape[1:]}, "
                f"image {i} is {pixels.shape}; store one size."
            )
        images[i] = pixels
    assert images is not None
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
