"""What the dashboard reads from: never written to, never waited for, and told when it is bad."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import pytest

from dashboards.record import RecordError
from dashboards.source import Source, record_of
from studies.storage import Repository
from studies.storage.models import REVISIONS, VERSION_TABLE
from studies.workspace import Workspace
from tests.unit.dashboards.recording import add_trial


def sentence(place, ask=lambda source: source.studies()):
    with pytest.raises(RecordError) as caught:
        ask(Source(place))
    text = str(caught.value)
    assert "\n" not in text
    return text


def change(place, statement, *values):
    with sqlite3.connect(place / "record.db") as connection:
        connection.execute(statement, values)
    connection.close()


def test_no_record_says_where_it_was_looked_for(tmp_path):
    assert str(tmp_path / "record.db") in sentence(tmp_path)


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "record.db").write_text("accuracy,latency\n0.9,1.2\n" * 100)
    assert "is not a database" in sentence(tmp_path)


def test_another_database_is_named(tmp_path):
    change(tmp_path, "CREATE TABLE something (id INTEGER)")
    assert "no record of studies" in sentence(tmp_path)


def test_a_database_that_was_cut_off_is_damaged(place):
    path = place / "record.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "damaged" in sentence(place, lambda source: source.front("digits"))


def test_a_database_with_overwritten_pages_is_damaged_or_read_but_never_a_fault(place):
    path = place / "record.db"
    whole = path.read_bytes()
    for at in range(4096, len(whole), 4096 * 7):
        path.write_bytes(whole[:at] + b"\xff" * 4096 + whole[at + 4096 :])
        source = Source(place)
        for ask in (source.studies, lambda s=source: s.front("digits")):
            with contextlib.suppress(RecordError):  # anything else fails the test
                ask()


def test_a_row_that_holds_no_json_is_damage(place):
    change(place, "UPDATE study SET config = '{' WHERE name = 'digits'")
    assert "damaged: a row holds no JSON" in sentence(place)


@pytest.mark.parametrize(
    ("revision", "remedy"), [("v999", "Use the release that wrote it"), (REVISIONS[0], "upgrades")]
)
def test_another_schema_is_refused_with_the_remedy(place, revision, remedy):
    change(place, f"UPDATE {VERSION_TABLE} SET version_num = ?", revision)
    text = sentence(place)
    assert revision in text
    assert remedy in text


def test_a_database_server_of_another_kind_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"SQLite or PostgreSQL, got mysql"):
        record_of(Workspace(tmp_path, "mysql://host/record"))


def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path):
    pytest.importorskip("psycopg")
    place = Workspace(tmp_path, "postgresql+psycopg://me:secret@127.0.0.1:9/record")
    text = sentence(place)
    assert "postgresql://me@127.0.0.1:9/record" in text
    assert "secret" not in text


def test_reading_changes_no_file(place):
    before = {item: item.read_bytes() for item in place.iterdir()}
    source = Source(place)
    for ask in (source.studies, lambda: source.front("digits"), lambda: source.trial("digits", 3)):
        ask()
    assert {item: item.read_bytes() for item in place.iterdir()} == before


def test_a_connection_cannot_write(place):
    with (
        pytest.raises(RecordError, match="readonly"),
        record_of(place).open() as connection,
    ):
        connection.execute("DELETE FROM trial")


def test_a_writer_in_the_middle_of_a_transaction_is_neither_waited_for_nor_stopped(place):
    writer = sqlite3.connect(place / "record.db", isolation_level=None, timeout=0)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE trial SET state = 'failed' WHERE number = 3")
    source = Source(place)
    begin = time.perf_counter()
    assert "failed" not in source.front("digits")["states"]
    assert time.perf_counter() - begin < 1  # less than the time a reader would wait for a lock
    with source.record.open() as connection:
        connection.execute("SELECT count(*) FROM trial").fetchone()
        writer.execute("COMMIT")  # raises where the reader blocks it
    assert Source(place).front("digits")["states"]["failed"] == 1
    writer.close()


def test_the_stamp_tells_that_something_was_written(place):
    record = record_of(place)
    with Repository.open(place / "record.db"):
        seen = {record.stamp()}
        for width in range(4, 8):
            add_trial(place, "digits", width=width, accuracy=0.9, latency_ms=1.0)
            seen.add(record.stamp())
    assert len(seen) == 5


def test_documents_are_read_by_hash_alone(place):
    (place / "artifacts").mkdir()
    digest = "ab" * 32
    (place / "artifacts" / f"{digest}.json").write_text('{"a": 1}')
    (place / "secret.json").write_text('{"password": 1}')
    record = record_of(place)
    assert record.document(digest) == {"a": 1}
    for name in ("../secret", "..%2Fsecret", f"{digest}/../../secret", "", "cd" * 32):
        assert record.document(name) is None
