"""A file in a workspace by whose content another machine sees that it shares the folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from kernels.errors import NasError

MARKER = "workspace.id"


def read_marker(root: Path) -> str:
    """Return what tells a workspace from others; the first who asks makes it.

    Raises:
        NasError: the folder cannot be written.
    """
    path = root / MARKER
    if not path.exists():
        mine = root / f"{MARKER}-{os.urandom(16).hex()}"
        try:
            root.mkdir(parents=True, exist_ok=True)
            mine.write_text(f"{os.urandom(16).hex()}\n", encoding="utf-8")
            with suppress(FileExistsError):
                path.hardlink_to(mine)  # complete when it is there, and the first one stays
            mine.unlink()
        except OSError as problem:
            raise NasError(f"Cannot write the workspace {root}: {problem}.") from None
    return marker(root)


def marker(root: Path) -> str:
    """Return what a folder says; empty where it says nothing."""
    try:
        return (root / MARKER).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
