"""A directory that holds a record of studies and the artifacts they made."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from evaluators.protocol import Measured
from kernels.errors import NasError
from studies.executors.files import inside, leave
from studies.executors.marker import read_marker
from studies.storage import Artifact, Repository

SETTINGS = "workspace.toml"
"""File of a workspace that says where its record is, if that is not a file in it."""
_FILE = "record.db"

if TYPE_CHECKING:  # who only reads the record does not wait for torch
    from torch import Tensor


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
    """Weights as safetensors files named by their content, and small files that name them by key.

    ``<dense key>.weights`` holds the SHA-256 of the content, which is in ``<SHA-256>.safetensors``:
    equal weights are stored once, and damaged ones are noticed.

    Attributes:
        folder: made with the first weights.
    """

    folder: Path

    def save(self, key: str, weights: Mapping[str, Tensor]) -> str:
        """Store weights and return the hash of their content; a file is whole when it is there.

        Raises:
            NasError: the key is no name of a file in the folder.
            OSError: they cannot be written.
        """
        from safetensors.torch import save

        content = save({name: tensor.contiguous() for name, tensor in weights.items()})
        digest = sha256(content).hexdigest()
        name = self._name(key)
        leave(self._content(digest), content)
        leave(name, digest.encode())
        return digest

    def load(self, key: str) -> dict[str, Tensor]:
        """Return stored weights, on the CPU.

        Raises:
            NasError: there are none, or the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        name, older = self._name(key), self._content(key)
        digest = name.read_text(encoding="ascii") if name.is_file() else ""
        path = self._content(digest) if digest else older  # once files were named by their key
        try:
            content = path.read_bytes()
        except OSError:
            raise NasError(
                f"There are no trained weights {path}; were the artifacts moved?"
            ) from None
        if digest and sha256(content).hexdigest() != digest:
            raise NasError(f"The weights {path} are damaged: their content has another hash.")
        try:
            return load(content)
        except SafetensorError as problem:
            raise NasError(f"The weights {path} are damaged: {problem}.") from None

    def size(self, digest: str) -> int:
        """Return the size of a content in bytes; 0 where it is gone."""
        path = self._content(digest)
        return path.stat().st_size if path.is_file() else 0

    def _content(self, digest: str) -> Path:
        return inside(self.folder, f"{digest}.safetensors")

    def _name(self, key: str) -> Path:
        return inside(self.folder, f"{key}.weights")


def weights_of(figures: Iterable[Measured], store: WeightStore) -> tuple[Artifact, ...]:
    """Return the weights that figures were found with, as files of a trial."""
    found: dict[str, Artifact] = {}
    for figure in figures:
        for detail in (figure.detail, *figure.detail.get("repeats", ())):
            digest = detail.get("weights")
            if isinstance(digest, str):
                name = f"{figure.metric}-seed{detail.get('seed')}.safetensors"
                found[name] = Artifact(name, "weights", digest, store.size(digest))
    return tuple(found.values())


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
