"""A directory that holds a record of studies and the artifacts they made."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from sqlalchemy.engine import make_url
from torch import Tensor

from kernels.errors import NasError
from studies.executors.files import inside, leave
from studies.executors.marker import read_marker
from studies.storage import Repository

SETTINGS = "workspace.toml"
"""File of a workspace that says where its record is, if that is not a file in it."""
_FILE = "record.db"


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where studies are kept; many share one.

    Attributes:
        root: directory of the artifacts and, by default, of the record.
        database: URL of the record's database; None for a SQLite file in ``root``.
    """

    root: Path
    database: str | None = None

    @classmethod
    def of(cls, place: Workspace | Path | str) -> Workspace:
        """Return the workspace in a directory, with the database it says, or the one given.

        Raises:
            NasError: its settings file cannot be read.
        """
        if isinstance(place, Workspace):
            return place
        root = Path(place)
        return cls(root, _read_database(root / SETTINGS))

    def with_database(self, url: str) -> Workspace:
        """Have the record kept in a database server from the start, and the directory say so.

        Raises:
            NasError: a record is kept elsewhere, or the URL holds a password.
        """
        if make_url(url).password is not None:
            raise NasError(
                "Leave the password out of the database's URL, as the workspace would show it: put "
                "it into ~/.pgpass, or into the variable PGPASSWORD."
            )
        if self.database not in (None, url) or (self.root / _FILE).exists():
            kept = self.database or self.root / _FILE
            raise NasError(f"The workspace {self.root} has its record in {kept}, not in {url}.")
        leave(self.root / SETTINGS, f"database = {json.dumps(url)}\n".encode())
        return Workspace(self.root, url)

    def identity(self) -> str:
        """Return what tells it from others; the first who asks makes it.

        Raises:
            NasError: the directory cannot be written.
        """
        return read_marker(self.root)

    def open(self, *, create: bool = True) -> Repository:
        """Open the record.

        Raises:
            NasError: it cannot be opened, or is not there and not to be created.
        """
        return Repository.open(self.database or self.root / _FILE, create=create)

    @property
    def weights(self) -> WeightStore:
        """Trained weights."""
        return WeightStore(self.root / "artifacts")


@dataclass(frozen=True, slots=True)
class WeightStore:
    """Weights as safetensors files named by their dense key."""

    folder: Path

    def save(self, key: str, weights: Mapping[str, Tensor]) -> None:
        """Store weights; the file is complete whenever it is there.

        Raises:
            NasError: the key is no name of a file in the folder.
        """
        leave(self._path(key), save({name: item.contiguous() for name, item in weights.items()}))

    def load(self, key: str) -> dict[str, Tensor]:
        """Return stored weights, on the CPU.

        Raises:
            NasError: there are none, or the file is damaged.
        """
        path = self._path(key)
        if not path.is_file():
            raise NasError(f"There are no trained weights {path}; were the artifacts moved?")
        try:
            return load_file(path)
        except SafetensorError as problem:
            raise NasError(f"The weights {path} are damaged: {problem}.") from None

    def _path(self, key: str) -> Path:
        return inside(self.folder, f"{key}.safetensors")


def _read_database(path: Path) -> str | None:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise NasError(f"Cannot read the workspace's settings {path}: {problem}.") from None
    url = found.get("database")
    if not isinstance(url, str) or found.keys() != {"database"}:
        raise NasError(f'{path}: expected one line, database = "URL".')
    return url
