"""Files that evaluations leave: written where all see them, or sent back with the result.

A worker that shares no folder with its driver has nowhere to put what an evaluation leaves in the
workspace. There such a file becomes a part of the outcome, and the driver's executor writes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile

from kernels.errors import NasError
from studies.executors.protocol import File

_sent: list[File] | None = None
_root = Path()


def leave(path: Path, content: bytes) -> None:
    """Put a file in the workspace, complete or not at all; where it is not shared, send it.

    Raises:
        OSError: it cannot be written.
    """
    if _sent is not None:
        _sent.append(File(path.absolute().relative_to(_root).as_posix(), content))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        partial = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            partial.unlink()
            raise
    partial.replace(path)


def send(path: Path) -> None:
    """Send a file that was written here, where the workspace is not shared, and remove it here."""
    if _sent is not None:
        leave(path, path.read_bytes())
        path.unlink()


def send_from(root: Path) -> None:
    """Have what is left below a folder from now on sent, not written: a worker apart."""
    global _sent, _root
    _sent, _root = [], root.absolute()


def taken() -> tuple[File, ...]:
    """Return what is to be sent, and forget it."""
    global _sent
    if not _sent:
        return ()
    files, _sent = tuple(_sent), []
    return files


def unpack(root: Path, files: Iterable[File]) -> None:
    """Write the files that came with an outcome.

    Raises:
        NasError: a name leads out of the folder; nothing of that file is written.
    """
    for file in files:
        leave(inside(root, file.name), file.content)


def inside(root: Path, name: str) -> Path:
    """Return the path of a name below a folder.

    Raises:
        NasError: the name is empty, absolute, or leads out of the folder.

    Example:
        >>> inside(Path("runs"), "artifacts/a.safetensors").as_posix()
        'runs/artifacts/a.safetensors'
    """
    pure = PurePosixPath(name)
    plain = bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts
    path = root / pure
    # What is there already may be a link that somebody made.
    if not plain or "\\" in name or "\0" in name or not _is_below(root, path):
        raise NasError(f"The name {name!r} leads out of {root}; nothing was written.")
    return path


def _is_below(root: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())
