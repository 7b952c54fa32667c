"""A file from which a killed training goes on, as if it had not been killed."""

from __future__ import annotations

import contextlib
import io
import logging
import pickle
import time
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import nn

from evaluators.accuracy.data import AnyDataset
from evaluators.accuracy.recipe import Recipe

SAVE_SECONDS = 1.0
"""Least time between two saves: what a killed training of short epochs loses at most."""
SAVE_SPACING = 20.0
"""Between two saves at least so many times what the last one took: they cost under 5 %."""

_FORMAT = 1
_PARTIAL = ".partial-"
_SUM = sha256().digest_size
# All that torch.load raises on files that are torn, of another kind, or not made of plain values.
_UNREADABLE = (
    *(OSError, RuntimeError, ValueError, KeyError, EOFError, TypeError, AttributeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
_log = logging.getLogger(__name__)


class Checkpoint:
    """The file of one training: a SHA-256 sum, then what torch saves, made of plain values only.

    Args:
        path: its folder is made with the first save.
        run: name of the training, from :func:`run_digest`; a file of another is not used.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self.run = path, run
        self._saved = time.monotonic()
        self._took = 0.0

    def load(self) -> dict[str, Any] | None:
        """Return what :meth:`save` was given, tensors on the CPU; None where nothing can be used.

        A file that is damaged or of another training is logged as a warning; the next save
        replaces it.
        """
        try:
            content = self.path.read_bytes()
            # torch.load checks no sums: it would take flipped bits for weights.
            if sha256(content[_SUM:]).digest() != content[:_SUM]:
                raise ValueError("its checksum is wrong")
            file = torch.load(io.BytesIO(content[_SUM:]), map_location="cpu", weights_only=True)
            found, state = (file["format"], file["run"]), file["state"]
        except FileNotFoundError:
            return None
        except _UNREADABLE as error:
            why = (str(error).splitlines() or [""])[0] or type(error).__name__
            _log.warning("%s cannot be read (%s); the training starts anew.", self.path, why)
            return None
        if found != (_FORMAT, self.run) or not isinstance(state, dict):
            _log.warning("%s is of another training; this one starts anew.", self.path)
            return None
        return state

    @property
    def due(self) -> bool:
        """Whether the last save, or the start, is so long ago that another one costs little."""
        return time.monotonic() - self._saved >= max(SAVE_SECONDS, SAVE_SPACING * self._took)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file at once: whoever reads it sees the old state or the new one.

        Args:
            state: plain values and tensors only. A file that cannot be written is logged: the
                training goes on without.
        """
        start = time.monotonic()
        # Of its own name: another study may train the same.
        partial = self.path.with_name(f"{self.path.name}{_PARTIAL}{uuid4().hex}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            torch.save({"format": _FORMAT, "run": self.run, "state": dict(state)}, buffer)
            content = buffer.getvalue()
            partial.write_bytes(sha256(content).digest() + content)
            partial.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            why = " ".join(str(error).split())
            _log.warning("%s cannot be written (%s); the training goes on.", self.path, why)
        self._saved = time.monotonic()
        self._took = self._saved - start

    def remove(self) -> None:
        """Delete the file, and what a save that was killed left of one."""
        remove(self.path)


def remove(path: Path) -> None:
    """Delete the checkpoint of a training that nobody goes on with."""
    for leftover in (path, *path.parent.glob(f"{path.name}{_PARTIAL}*")):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            leftover.unlink()


def run_digest(
    module: nn.Module, dataset: AnyDataset, recipe: Recipe, *, seed: int, device: torch.device
) -> str:
    """Name a training: its module with the weights it starts from, data, recipe, seed, device."""
    about = (recipe.digest, dataset.fingerprint, seed, device.type, repr(module))
    digest = sha256(repr(about).encode())
    for name, tensor in module.state_dict().items():
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
