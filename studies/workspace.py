"""A directory that holds a record of studies and the artifacts they made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from evaluators.protocol import Measured
from kernels.errors import NasError
from studies.storage import Artifact, Repository


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
        """Return the workspace in a directory, or the one given."""
        return place if isinstance(place, Workspace) else cls(Path(place))

    def open(self, *, create: bool = True) -> Repository:
        """Open the record.

        Raises:
            NasError: it cannot be opened, or is not there and not to be created.
        """
        return Repository.open(self.database or self.root / "record.db", create=create)

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
            OSError: they cannot be written.
        """
        content = save({name: tensor.contiguous() for name, tensor in weights.items()})
        digest = sha256(content).hexdigest()
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self._content(digest), content)
        _write(self._name(key), digest.encode())
        return digest

    def load(self, key: str) -> dict[str, Tensor]:
        """Return stored weights, on the CPU.

        Raises:
            NasError: there are none, or the file is damaged.
        """
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
        return self.folder / f"{digest}.safetensors"

    def _name(self, key: str) -> Path:
        return self.folder / f"{key}.weights"


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


def _write(path: Path, content: bytes) -> None:
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
