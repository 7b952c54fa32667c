"""All that a chaos run can break: drivers, workers, nodes, a database server, disks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import postgres

ROOT = Path(__file__).parents[2]
_NODE_CPUS = 3


class SmallDisk:
    """A file system of its own that can be filled up; needs the superuser."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self._megabytes = folder, megabytes
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
        self.mounted = os.geteuid() == 0 and _call(command)

    def fill(self) -> None:
        ballast = self.folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"x" * (1 << 20))
                file.flush()
        with contextlib.suppress(OSError), ballast.open("ab") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()

    def free(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        if self.mounted:
            _call(["umount", "-l", str(self.folder)])


class RayNodes:
    """A cluster of several nodes on this machine."""

    def __init__(self, count: int) -> None:
        os.environ.update(RAY_AUTH_MODE="token", RAY_USAGE_STATS_ENABLED="0")
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "include_dashboard": False},
        )
        self._count = count
        self.fill()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def fill(self) -> None:
        """Add nodes that are missing; on a machine that is too busy for one, the next time."""
        for _ in range(self._count - self.size):
            try:
                self._cluster.add_node(num_cpus=_NODE_CPUS)
            except Exception as problem:  # Ray has no kind of its own for it
                say(f"no node could be added: {problem}")

    def kill_one(self, index: int) -> bool:
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: str(node.unique_id))
        if nodes:
            self._cluster.remove_node(nodes[index % len(nodes)], allow_graceful=False)
        return bool(nodes)

    @property
    def size(self) -> int:
        return len(self._cluster.worker_nodes)

    def raylets(self) -> set[int]:
        nodes = [self._cluster.head_node, *self._cluster.worker_nodes]
        return {info.process.pid for node in nodes for info in node.all_processes.get("raylet", [])}

    def close(self) -> None:
        self._cluster.shutdown()


@dataclass
class Study:
    """A study whose driver is started again whenever it has ended.

    Attributes:
        name: of the study.
        settings: what its driver is given beside.
        endings: how its drivers ended, and how often each way.
    """

    name: str
    settings: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    endings: dict[str, int] = field(default_factory=dict)
    done: bool = False

    def see_to(self, place: Path, log: Path) -> None:
        """Note how its driver ended, if it did, and start another unless the study is done."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            last = _last_line(log) if code > 0 else ""
            word = "done" if code == 0 else (f"signal {-code}" if code < 0 else last[:90])
            self.endings[word] = self.endings.get(word, 0) + 1
            self.process = None
            self.done = code == 0
        if not self.done:
            command = [sys.executable, "-m", "tests.chaos.study", str(place), self.name]
            with log.open("ab") as file:
                self.process = subprocess.Popen(
                    [*command, json.dumps(self.settings)],
                    cwd=ROOT,
                    env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )

    def kill(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            return False
        self.process.kill()
        self.process.wait()
        return True


class World:
    """A workspace, its record, its workers and its drivers.

    Args:
        folder: where everything lies; the diary is on a disk that never fills.
        studies: names of the studies that share the workspace.
        cluster: whether on PostgreSQL and a Ray cluster, or on SQLite and processes.
    """

    def __init__(self, folder: Path, studies: list[str], *, cluster: bool) -> None:
        self.folder, self.diary = folder, folder / "diary"
        self.diary.mkdir(parents=True)
        self.disk = SmallDisk(folder / "w", 300)
        self.place = folder / "w" / "run"
        self.place.mkdir()
        settings: dict[str, Any] = {"diary": str(self.diary), "trials": 10**6}
        self.server: postgres.Server | None = None
        self.server_disk: SmallDisk | None = None
        self.nodes: RayNodes | None = None
        if cluster:
            self.server_disk = SmallDisk(folder / "db", 900)
            home = folder / "db" / "server"
            home.mkdir()
            options = "-c max_wal_size=128MB -c min_wal_size=32MB"
            self.server = postgres.Server(home, options=options, checksums=True)
            self.server.start()
            self.url = self.server.make()
            (self.place / "workspace.toml").write_text(f"database = {json.dumps(self.url)}\n")
            self.nodes = RayNodes(2)
            settings["ray"] = self.nodes.address
        else:
            settings["workers"] = 3
        self.studies = [Study(name, dict(settings)) for name in studies]

    def see_to_drivers(self) -> None:
        for study in self.studies:
            study.see_to(self.place, self.folder / f"{study.name}.log")

    def end_at(self, trials: dict[str, int]) -> None:
        """Give each study an end, which its next driver goes for."""
        for study in self.studies:
            study.kill()
            study.settings["trials"] = trials[study.name]

    def worker_processes(self) -> list[int]:
        """The processes that evaluate for this workspace, of whatever executor."""
        mark = str(self.place).encode()
        return [
            pid for pid, words in _commands() if b"executors/start.py" in words and mark in words
        ]

    def stations(self) -> list[int]:
        """The actors that hold them, on a cluster."""
        if self.nodes is None:
            return []
        raylets = self.nodes.raylets()
        return [
            pid
            for pid, words in _commands()
            if words.startswith(b"ray::RemoteStation") and _parent(pid) in raylets
        ]

    def close(self) -> None:
        for study in self.studies:
            study.kill()
        if self.nodes is not None:
            self.nodes.close()
        if self.server is not None:
            self.server.kill()
        for disk in (self.disk, self.server_disk):
            if disk is not None:
                disk.close()


def say(text: str) -> None:
    """Write to standard output at once, as a run takes long."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _commands() -> list[tuple[int, bytes]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append((int(path.parent.name), path.read_bytes()))
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else ""


def _call(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def wait_until(condition: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False
