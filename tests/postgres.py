"""A PostgreSQL server of our own in a folder: the distribution's programs, as an ordinary user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
_FOUND = shutil.which("initdb")
BIN = Path(os.path.realpath(_FOUND)).parent if _FOUND else next(iter(_FOLDERS), Path())
MISSING = (
    "no PostgreSQL server: apt-get install postgresql"
    if not (BIN / "pg_ctl").is_file()
    else ("" if find_spec("psycopg") else "no psycopg: pip install 'psycopg[binary]'")
)
"""Why no server can be started here; empty where one can."""
_STARTS = 3


class Server:
    """A server that is reached by a socket in its folder.

    Args:
        folder: where its files lie; made its user's.
        options: as the server takes them on its command line.
        checksums: whether its pages carry sums, so that damage is noticed.
    """

    def __init__(self, folder: Path, *, options: str = "-c fsync=off", checksums: bool = False):
        self.folder, self.data = folder, folder / "data"
        self._user = _user()
        if self._user:
            shutil.chown(folder, self._user)
            folder.chmod(0o755)
        self._options = f"-k {folder} -c listen_addresses='' {options}"
        sums = ["--data-checksums"] if checksums else []
        self.call("initdb", "-D", str(self.data), "-U", "nas", "-A", "trust", *sums)

    def call(self, program: str, *arguments: str) -> str:
        """Run one of the programs as the server's user; return what it wrote."""
        done = subprocess.run(
            [BIN / program, *arguments],
            check=False,
            user=self._user,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
        )
        assert done.returncode == 0, f"{program} {arguments}: {done.stdout}"
        return done.stdout

    def start(self) -> None:
        # Its output goes to the log: a pipe would be held open by the server.
        control = [BIN / "pg_ctl", "-D", self.data, "-o", self._options]
        log = self.folder / "log"
        for _ in range(_STARTS):
            done = subprocess.run(
                [*control, "-l", log, "-w", "-t", "120", "start"],
                check=False,
                user=self._user,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self.folder,
            )
            if done.returncode == 0 or self._answers():
                return
            time.sleep(1.0)
        raise AssertionError(f"the server does not start: {log.read_text()[-2000:]}")

    def _answers(self) -> bool:
        """Tell whether it runs, though starting it took longer than was waited for."""
        ready = [BIN / "pg_isready", "-h", self.folder, "-t", "10"]
        return subprocess.run(ready, check=False, stdout=subprocess.DEVNULL).returncode == 0

    def stop(self) -> None:
        if self.pid() is not None:
            self.call("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")

    def pid(self) -> int | None:
        """Return the process of the server; None where it does not run."""
        try:
            number = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            os.kill(number, 0)
        except (OSError, ValueError, IndexError):
            return None
        return number

    def kill(self) -> None:
        """End it as a loss of power does: all its processes at once."""
        number = self.pid()
        if number is None:
            return
        family = [number, *_children(number)]
        for member in family:
            try:
                os.kill(member, signal.SIGKILL)
            except ProcessLookupError:
                continue
        end = time.monotonic() + 20
        while any(_alive(member) for member in family) and time.monotonic() < end:
            time.sleep(0.02)

    def make(self) -> str:
        """Make a database and return its URL."""
        name = f"nas{uuid4().hex}"
        self.call("createdb", "-h", str(self.folder), "-U", "nas", name)
        return f"postgresql://nas@/{name}?host={self.folder}"


def _user() -> str | None:
    """Return as whom it runs: it refuses to be the superuser's."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
