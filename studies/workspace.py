"""A directory that holds a record of studies and the artifacts they made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from kernels.errors import NasError
from studies.storage import Repository

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
    """Weights as safetensors files named by their dense key."""

    folder: Path

    def save(self, key: str, weights: Mapping[str, Tensor]) -> None:
        """Store weights; the file is complete whenever it is there."""
        from safetensors.torch import save

        self.folder.mkdir(parents=True, exist_ok=True)
        content = save({name: tensor.contiguous() for name, tensor in weights.items()})
        with NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
            file.write(content)
        Path(file.name).replace(self._path(key))

    def load(self, key: str) -> dict[str, Tensor]:
        """Return stored weights, on the CPU.

        Raises:
            NasError: there are none, or the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(key)
        if not path.is_file():
            raise NasError(f"There are no trained weights {path}; were the artifacts moved?")
        try:
            return load_file(path)
        except SafetensorError as problem:
            raise NasError(f"The weights {path} are damaged: {problem}.") from None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"
