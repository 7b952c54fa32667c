"""Arrays that all processes of a machine share: files in the cache folder, mapped into memory.

The system keeps one copy of their pages, however many processes read them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.environment import cache_dir
from kernels.errors import NasError

Arrays = Mapping[str, npt.NDArray[Any]]
_ABOUT = "about.json"


def mapped(name: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]] | None:
    """Return what was published under a name: what is said of it, and the arrays.

    A write to an array is seen by this process alone. What is damaged is removed and counts as
    not there.
    """
    folder = _folder(name)
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        arrays = {}
        for key, digest in about["arrays"].items():
            path = folder / f"{key}.npy"
            if _digest(path) != digest:
                raise ValueError("a file has changed")
            arrays[key] = np.load(path, mmap_mode="c", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return about["about"], arrays


def is_published(name: str) -> bool:
    """Tell whether there is something under a name; it may be damaged."""
    return (_folder(name) / _ABOUT).is_file()


def publish(name: str, about: Mapping[str, Any], arrays: Arrays) -> None:
    """Store arrays under a name, all of them or none; what is there already stays.

    Args:
        name: a word.
        about: what is to be said of them, as JSON.
        arrays: by words.

    Raises:
        NasError: the cache folder cannot be written.
    """
    folder = _folder(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(dir=folder.parent, prefix=f"{name}-"))
        try:
            for key, array in arrays.items():
                np.save(made / f"{key}.npy", np.ascontiguousarray(array), allow_pickle=False)
            digests = {key: _digest(made / f"{key}.npy") for key in arrays}
            text = json.dumps({"about": dict(about), "arrays": digests})
            (made / _ABOUT).write_text(text, encoding="utf-8")
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as problem:
        if not is_published(name):  # another process may have been faster
            raise NasError(f"Cannot write the cache folder {folder.parent}: {problem}.") from None


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Keep other processes of this machine from making the same meanwhile."""
    path = _folder(name).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            import fcntl
        except ImportError:  # then it may be made twice
            yield
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    finally:
        os.close(file)


def once(name: str, make: Callable[[], None]) -> None:
    """Have something published unless it is there; one process of this machine does it."""
    if is_published(name):
        return
    with alone(name):
        if not is_published(name):
            make()


def _folder(name: str) -> Path:
    if not name.replace("-", "").isalnum():
        raise NasError(f"{name!r} is no name for shared arrays: use letters, digits and '-'.")
    return cache_dir() / "arrays" / name


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = sha256()
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
