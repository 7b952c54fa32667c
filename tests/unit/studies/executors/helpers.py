"""Evaluators that cost nothing and import nothing heavy, so that workers start at once."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from evaluators.protocol import Measured, Slot
from search_spaces.architecture import Architecture
from studies.executors import Executor, Job, Outcome


@cache
def network(width: int = 1) -> Architecture:
    return Architecture.parse(f"input 1x8x8; conv {width} k3; gap; flatten; linear 2")


def width_of(architecture: Architecture) -> int:
    return architecture.nodes[1].shape[0]


def job(number: int, evaluator: Any, *, width: int | None = None, key: str = "") -> Job:
    return Job(number, evaluator, network(width or number + 1), key)


def collect(executor: Executor, count: int, *, seconds: float = 60.0) -> list[Outcome]:
    """Wait for so many outcomes, but not for ever."""
    deadline = time.monotonic() + seconds
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        assert time.monotonic() < deadline, f"only {len(outcomes)} of {count} in {seconds} s"
        outcomes += executor.wait(1.0)
    return outcomes


def until(condition: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """Poll until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.005)
    return found


def state_of(pid: int) -> str:
    """The state letter of a process; empty where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def alive(pid: int) -> bool:
    return state_of(pid) not in ("", "Z", "X")


def children() -> set[int]:
    """The processes that this one started and has not reaped."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(pid) for pid in path.read_text().split()}


def pids_in(folder: Path) -> list[int]:
    """The processes in which a :class:`Note` or :class:`Tick` began."""
    return sorted({int(path.name.split("-")[-1]) for path in folder.glob("pid-*")})


@dataclass
class Base:
    metrics: tuple[str, ...] = ("score",)
    slot: Slot = "training"

    def cache_key(self, architecture: Architecture) -> str:
        return ""

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        width = width_of(architecture)
        self.act(width)
        return [Measured("score", width / 3, None, None, {"pid": os.getpid()})]

    def act(self, width: int) -> None:
        raise NotImplementedError


@dataclass
class Sleep(Base):
    """Sleeps for as long as the width says."""

    seconds: dict[int, float] = field(default_factory=dict)

    def act(self, width: int) -> None:
        time.sleep(self.seconds.get(width, 0.0))


@dataclass
class LoseGpu(Base):
    """Spoils the GPU for its process at width 1, as an illegal address does; others just use it.

    There is no GPU: what torch would say stands in for it.
    """

    def act(self, width: int) -> None:
        torch: Any = sys.modules.get("torch")
        if width == 1:
            cuda = SimpleNamespace(is_initialized=lambda: True, synchronize=_illegal_access)
            torch = SimpleNamespace(cuda=cuda, OutOfMemoryError=MemoryError)
            sys.modules["torch"] = torch
        if torch is not None:
            torch.cuda.synchronize()


def _illegal_access() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


@dataclass
class Note(Base):
    """Says in which process it is, and then sleeps or spins."""

    folder: Path = Path()
    seconds: float = 0.0
    spin: bool = False

    def act(self, width: int) -> None:
        (self.folder / f"pid-{self.slot}-{os.getpid()}").touch()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            if not self.spin:
                time.sleep(0.01)


@dataclass
class Tick(Base):
    """Writes the time over and over, so that it is seen when it ran and when it did not."""

    folder: Path = Path()
    seconds: float = 0.1

    def act(self, width: int) -> None:
        (self.folder / f"pid-{self.slot}-{os.getpid()}").touch()
        ran = 0.0
        with (self.folder / f"ticks-{self.slot}-{width}-{os.getpid()}").open("a") as file:
            # What it ran is counted from the first time it writes to the last.
            last = time.monotonic()
            file.write(f"{last!r}\n")
            while ran < self.seconds:
                time.sleep(0.0005)
                now = time.monotonic()
                # A gap is a pause, or a busy machine: it is not time that was worked.
                ran += min(now - last, 0.005)
                last = now
                file.write(f"{now!r}\n")
                file.flush()


def ticks(folder: Path, slot: str) -> list[list[float]]:
    paths = sorted(folder.glob(f"ticks-{slot}-*"))
    return [[float(line) for line in path.read_text().split()] for path in paths]


@dataclass
class Raise(Base):
    problem: BaseException | None = None

    def act(self, width: int) -> None:
        assert self.problem is not None
        raise self.problem


@dataclass
class Die(Base):
    """Ends its process in some way, the first so many times."""

    folder: Path = Path()
    times: int = 1000
    how: str = "kill"

    def act(self, width: int) -> None:
        path = self.folder / f"died-{width}"
        before = len(path.read_text()) if path.exists() else 0
        if before >= self.times:
            return
        path.write_text("x" * (before + 1))
        sys.stderr.write("".join(f"line {number}\n" for number in range(100)))
        sys.stderr.flush()
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "segfault":
            ctypes.string_at(0)
        elif self.how == "exit":
            os._exit(3)
        sys.exit(4)


@dataclass
class Hog(Base):
    """Takes so much memory, a part at a time, and keeps it for a while."""

    megabytes: int = 0

    def act(self, width: int) -> None:
        kept = []
        for _ in range(self.megabytes // 10):
            kept.append(bytearray(os.urandom(1)) * (10 * 2**20))
            time.sleep(0.01)
        time.sleep(30.0)


@dataclass
class Lock(Base):
    """Holds the lock of a file for a while."""

    path: Path = Path()
    seconds: float = 0.0

    def act(self, width: int) -> None:
        with self.path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.path.with_name(f"{self.path.name}-{self.slot}").touch()
            time.sleep(self.seconds)


@dataclass
class Child(Base):
    """Starts a process of its own that outlives the evaluation, unless somebody cares."""

    folder: Path = Path()

    def act(self, width: int) -> None:
        pid = os.fork()
        if pid == 0:
            time.sleep(60.0)
            os._exit(0)
        (self.folder / f"pid-child-{pid}").touch()
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Half(Base):
    """Dies in the middle of a word, while a process it started holds the pipe open."""

    def act(self, width: int) -> None:
        if os.fork() == 0:
            time.sleep(60.0)
            os._exit(0)
        for entry in Path("/proc/self/fd").iterdir():
            if entry.is_symlink() and str(entry.readlink()).startswith("socket:"):
                os.write(int(entry.name), struct.pack("!Q", 1000) + b"half")
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Heavy(Base):
    """Notes how often it is pickled and unpickled."""

    folder: Path = Path()
    ballast: bytes = b""
    pickled: int = 0

    def __getstate__(self) -> dict[str, Any]:
        self.pickled += 1
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with (self.folder / f"loads-{os.getpid()}").open("a") as file:
            file.write("x")

    def act(self, width: int) -> None:
        time.sleep(0.01)


@dataclass
class Environment(Base):
    """Reports what a worker finds around it."""

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        detail = {
            "omp": os.environ.get("OMP_NUM_THREADS"),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "modules": sorted({name.split(".")[0] for name in sys.modules}),
            "sigint": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        }
        return [Measured("score", 1.0, None, None, detail)]


@dataclass
class Answer(Base):
    """Gives what it was told to give."""

    figures: Any = ()

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        return self.figures
