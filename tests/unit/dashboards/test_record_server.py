"""A record in a PostgreSQL server gives the pages that the same record in a file gives."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dashboards.record import RecordError
from dashboards.source import Source
from studies.storage import Repository
from studies.workspace import Workspace
from tests.unit.dashboards.recording import add_trial, record_study

postgres = pytest.importorskip("tests.postgres")

pytestmark = pytest.mark.skipif(bool(postgres.MISSING), reason=postgres.MISSING)


@pytest.fixture(scope="module", name="server")
def start_server():
    with TemporaryDirectory(prefix="paretonas-pg-") as folder:  # where its user may go
        server = postgres.Server(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(name="both")
def record_twice(server, tmp_path):
    """The same search recorded in a file and in a server."""
    places = Workspace(tmp_path / "file"), Workspace(tmp_path / "server", server.make())
    for place in places:
        place.root.mkdir()
        record_study(place, trials=12)
        add_trial(place, "digits", width=5, accuracy=0.9, latency_ms=1.0)
    return places


def bare(view):
    """Leave out when and where something was, and what was measured twice."""
    moments = {"started", "ended", "measured", "seconds", "spent", "time", "created", "active"}
    moments |= {"last", "worker", "workers", "events", "driver"}
    if isinstance(view, dict):
        return {name: bare(item) for name, item in view.items() if name not in moments}
    return [bare(item) for item in view] if isinstance(view, list) else view


def test_every_page_is_the_same(both):
    file, server = (Source(place) for place in both)
    for ask in (
        lambda source: source.studies(),
        lambda source: source.front("digits"),
        lambda source: source.progress("digits"),
        lambda source: source.proxies("digits"),
        lambda source: source.space("digits"),
        lambda source: source.trial("digits", 3),
        lambda source: list(source.front_table("digits")),
        lambda source: source.architecture(source.trial("digits", 3)["key"]),
    ):
        one, other = (
            json.loads(json.dumps(bare(ask(source)), default=str)) for source in (file, server)
        )
        assert one == other


def test_new_trials_are_seen(both):
    _, place = both
    source = Source(place)
    before, version = source.front("digits")["count"], source.version()
    assert source.version() == version
    add_trial(place, "digits", width=6, accuracy=0.99, latency_ms=0.5)
    assert source.version() != version
    assert source.front("digits")["count"] == before + 1


def test_the_server_is_only_read(both):
    source = Source(both[1])
    with (
        pytest.raises(RecordError, match="read-only"),
        source.record.open() as connection,
    ):
        connection.execute("DELETE FROM trial")
    assert source.front("digits")["count"] > 0


def test_a_database_without_a_record_and_one_that_is_newer_are_told(server, tmp_path):
    place = Workspace(tmp_path, server.make())
    with pytest.raises(RecordError, match="no record of studies"):
        Source(place).studies()
    Repository.open(place.database).close()
    import psycopg

    with psycopg.connect(place.database.replace("+psycopg", "")) as connection:
        connection.execute("UPDATE nas_alembic_version SET version_num = 'v999'")
    with pytest.raises(RecordError, match="Use the release that wrote it"):
        Source(place).studies()


def test_a_server_that_restarts_is_asked_again(both, server):
    source = Source(both[1])
    count = source.front("digits")["count"]
    server.stop()
    with pytest.raises(RecordError, match="Cannot read the record"):
        source.front("digits")
    server.start()
    assert source.front("digits")["count"] == count
