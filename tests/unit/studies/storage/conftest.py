"""A record of each kind of database: SQLite, and PostgreSQL where a server can be started."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from studies.storage import Repository

_BIN = Path(os.path.realpath(shutil.which("initdb") or "initdb")).parent
HAS_POSTGRESQL = (_BIN / "pg_ctl").is_file() and find_spec("psycopg") is not None
_BACKENDS = ["sqlite", "postgresql"] if HAS_POSTGRESQL else ["sqlite"]


@pytest.fixture(scope="session")
def server():
    """Socket folder of a PostgreSQL server of our own, which refuses to run as the superuser."""
    with TemporaryDirectory() as folder:
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(folder, user)

        def call(*command):
            subprocess.run(
                [_BIN / command[0], *command[1:]], check=True, user=user, stdout=subprocess.DEVNULL
            )

        data, options = f"{folder}/data", f"-k {folder} -c listen_addresses='' -c fsync=off"
        call("initdb", "-D", data, "-U", "nas", "-A", "trust")
        call("pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            yield folder
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


@pytest.fixture(params=_BACKENDS)
def target(request, tmp_path):
    """Where a record can be made."""
    if request.param == "sqlite":
        return tmp_path / "deep" / "record.db"
    folder = request.getfixturevalue("server")
    name = f"nas{uuid4().hex}"
    command = [_BIN / "createdb", "-h", folder, "-U", "nas", name]
    subprocess.run(command, check=True)
    return f"postgresql+psycopg://nas@/{name}?host={folder}"


@pytest.fixture
def repository(target):
    with Repository.open(target) as opened:
        yield opened
