"""A driver to be killed; run as a script with the name of a scene and a folder."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from studies.executors import Outbox, PoolExecutor
from tests.unit.studies.executors.helpers import Note, Sleep, job


def training(folder: Path) -> PoolExecutor:
    """Two workers that are busy, one of them without ever pausing for breath."""
    pool = PoolExecutor(2, outbox=Outbox(folder / "box"))
    pool.submit(job(1, Note(folder=folder, seconds=60.0)))
    pool.submit(job(2, Note(folder=folder, seconds=60.0, spin=True)))
    return pool


def measuring(folder: Path) -> PoolExecutor:
    """The same, stopped for a measurement once they run."""
    pool = training(folder)
    while len(list(folder.glob("pid-training-*"))) < 2:
        pool.wait(0.01)
    pool.submit(job(3, Note(folder=folder, seconds=60.0, slot="measurement")))
    return pool


def working(folder: Path) -> PoolExecutor:
    """Results come in while nobody listens any more."""
    pool = PoolExecutor(1, outbox=Outbox(folder / "box"))
    evaluator = Sleep(seconds={2: 0.3})
    pool.submit(job(0, evaluator))
    pool.wait()
    pool.submit(job(1, evaluator, key="late"))
    (folder / "submitted").touch()
    time.sleep(60.0)
    return pool


def interrupted(folder: Path) -> None:
    """Closes after Ctrl-C, and says what it saw."""
    pool = training(folder)
    try:
        while True:
            pool.wait(60.0)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
        while not (folder / "go on").exists():
            time.sleep(0.01)
        pool.close()
        (folder / "closed").touch()


def leaving(folder: Path) -> None:
    """Ends without closing, while trainings are stopped."""
    pool = measuring(folder)
    while not list(folder.glob("pid-measurement-*")):
        pool.wait(0.01)


def main() -> None:
    # A shell that runs tests in the background may have interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    scene, folder = sys.argv[1], Path(sys.argv[2])
    if scene in ("training", "measuring", "working"):
        pool = {"training": training, "measuring": measuring, "working": working}[scene](folder)
        while True:
            pool.wait(60.0)
    {"interrupted": interrupted, "leaving": leaving}[scene](folder)


if __name__ == "__main__":
    main()
