"""An export's folder as one file to take along."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import IO

from kernels.errors import NasError


def export_files(root: Path, directory: str) -> dict[str, Path]:
    """Return the files of an export by name: those its manifest lists, and the manifest.

    Args:
        root: directory of the workspace; nothing outside of it is given.
        directory: of the export, as the record has it.

    Raises:
        NasError: it is not in the workspace, or not whole.
    """
    folder = Path(directory)
    whole = folder if folder.is_absolute() else root / folder
    if not whole.resolve().is_relative_to(root.resolve()):
        raise NasError("This export lies outside the workspace; look for it where it was made.")
    try:
        manifest = json.loads((whole / "export.json").read_text(encoding="utf-8"))
        names = ["export.json", *manifest["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise NasError("The files of this export are not there any more; export again.") from None
    found = {name: whole / name for name in names}
    for name, path in found.items():
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise NasError(f"The export's file {name!r} is not there any more; export again.")
    return found


def write_zip(files: dict[str, Path], folder: str, target: IO[bytes]) -> None:
    """Write files into an archive, in one folder; weights do not get smaller, so none is packed."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            archive.write(path, f"{folder}/{name}")
