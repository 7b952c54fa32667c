"""Evaluators that look around on a node; apart, as a worker imports all that its evaluator does."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from evaluators.protocol import Measured
from kernels.environment import visible_gpus
from search_spaces.architecture import Architecture
from studies.executors import files
from tests.unit.studies.executors.helpers import Base


@dataclass
class Noted(Base):
    """Notes when it begins and ends, and which GPUs it sees."""

    folder: Path = Path()
    seconds: float = 0.0

    def act(self, width: int) -> None:
        self._note("begin")
        time.sleep(self.seconds)
        self._note("end")

    def _note(self, word: str) -> None:
        file = os.open(self.folder / "noted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, f"{word} {visible_gpus()!r} {time.monotonic()}\n".encode())
        os.close(file)


def noted(folder: Path, word: str) -> list[tuple[str, float]]:
    """The GPUs and moments that were noted."""
    path = folder / "noted"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [line.split() for line in lines]
    return [(gpus, float(moment)) for kind, gpus, moment in rows if kind == word]


@dataclass
class Leaving(Base):
    """Leaves a file in the workspace, as weights are left."""

    path: Path = Path()

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        files.leave(self.path, b"weights")
        return [Measured("score", 1.0, None, None, {"there": self.path.exists()})]


@dataclass
class Seeing(Base):
    """Says which shared arrays it finds."""

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        from kernels.shared_arrays import mapped

        found = mapped("some-data")
        assert found is not None
        return [Measured("score", float(found[1]["x"].sum()))]


@dataclass
class KillsItsStation(Base):
    def act(self, width: int) -> None:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60.0)
