"""A record of each kind of database: SQLite, and PostgreSQL where a server can be started."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from studies.storage import Repository
from tests import postgres


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL server."""
    if postgres.MISSING:
        pytest.skip(postgres.MISSING)
    with TemporaryDirectory() as folder:
        running = postgres.Server(Path(folder))
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request, tmp_path):
    """Where a record can be made."""
    if request.param == "sqlite":
        return tmp_path / "deep" / "record.db"
    return request.getfixturevalue("server").make()


@pytest.fixture
def repository(target):
    with Repository.open(target) as opened:
        yield opened
