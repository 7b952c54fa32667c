import multiprocessing
import os
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event

from evaluators.protocol import Measured
from kernels.errors import NasError
from studies.storage import Repository, TrialState, database
from tests.unit.studies.storage.records import CANDIDATE, SAMPLER, bulk_study, found, new_study


def statement(path, text):
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(text)


def no_database(path):
    path.write_text("certainly not a database, although it is long enough to be taken for one")


def other_database(path):
    statement(path, "CREATE TABLE study (x)")


def directory(path):
    path.mkdir()


def newer(path):
    Repository.open(path).close()
    statement(path, "UPDATE nas_alembic_version SET version_num = 'v99'")


def newer_of_the_first_kind(path):
    for table in ("study (x)", "trial (x)", "meta (name, value)"):
        statement(path, f"CREATE TABLE {table}")
    statement(path, "INSERT INTO meta VALUES ('schema_version', '99')")


def cut_short(path):
    Repository.open(path).close()
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_database, "record.db is not a database; give another"),
        (other_database, "record.db is no record of studies; give another"),
        (directory, "record.db is a directory, not a record"),
        (newer, "record of schema v99; this version reads up to v4"),
        (newer_of_the_first_kind, "record of schema v99; this version reads up to v4"),
        (cut_short, r"record.db is damaged \(database disk image is malformed\)"),
    ],
)
def test_what_is_no_record_gives_one_line(tmp_path, make, message, create):
    path = tmp_path / "record.db"
    make(path)
    with pytest.raises(NasError, match=message) as caught:
        Repository.open(path, create=create)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["", "sqlite:///"])
def test_a_record_is_not_made_by_looking_for_it(tmp_path, scheme):
    with pytest.raises(NasError, match="no record"):
        Repository.open(f"{scheme}{tmp_path}/record.db", create=False)
    assert not list(tmp_path.iterdir())


def test_an_empty_database_is_made_a_record_only_when_asked(tmp_path):
    path = tmp_path / "record.db"
    path.touch()
    with pytest.raises(NasError, match="no record of studies"):
        Repository.open(path, create=False)
    with Repository.open(path) as repository:
        assert repository.studies() == []


def test_a_folder_that_cannot_be_made_gives_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NasError, match="Cannot make the folder of the record"):
        Repository.open(tmp_path / "file" / "record.db")


@pytest.mark.parametrize("url", ["nonsense://x", "postgresql://", "://", "mysql://h/d"])
def test_an_unusable_url_gives_one_line(url):
    with pytest.raises(NasError, match=r"Cannot use|does not answer") as caught:
        Repository.open(url)
    assert "\n" not in str(caught.value)


def test_damage_inside_gives_one_line_and_leaves_the_rest(tmp_path):
    path = tmp_path / "record.db"
    bulk_study(path, 300)
    with closing(sqlite3.connect(path)) as db:
        ((page,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'value'")
        ((size,),) = db.execute("PRAGMA page_size")
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with Repository.open(path) as repository:
        study = repository.study("big")
        with pytest.raises(NasError, match=r"damaged \(database disk image is malformed\)"):
            repository.trials(study.id)
        assert repository.count_states(study.id)[TrialState.COMPLETE] == 300


def test_a_damaged_document_gives_one_line(tmp_path):
    path = tmp_path / "record.db"
    bulk_study(path, 2)
    statement(path, "UPDATE trial SET decisions = '{\"a' WHERE number = 1")
    with Repository.open(path) as repository:
        with pytest.raises(NasError, match="damaged: a row holds no JSON"):
            repository.trials(1)
        assert len(repository.trials(1, number=0)) == 1


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path):
    path = tmp_path / "record.db"
    with Repository.open(path) as repository:
        study = new_study(repository)
        first = repository.add_trial(study.id, 0, CANDIDATE, origin=SAMPLER)
        repository.add_evaluation(first, found(Measured("accuracy", 0.5), key="k"))
        second = repository.add_trial(study.id, 1, CANDIDATE, origin=SAMPLER)
        before = repository.trials(study.id)

        def shrink(connection, _):
            connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size

        repository.close()
        event.listen(repository._engine, "connect", shrink)
        large = Measured("accuracy", 0.5, detail={"samples": list(range(100_000))})
        with pytest.raises(NasError, match=r"no room left .*what it held before is safe"):
            repository.add_evaluation(second, found(large, key="l"))
        assert repository.trials(study.id) == before
        event.remove(repository._engine, "connect", shrink)
        repository.close()
        repository.add_evaluation(second, found(large, key="l"))  # the same again, with room
        assert repository.detail(second, "accuracy")["samples"][-1] == 99_999


def test_a_full_device_loses_nothing_that_was_stored(tmp_path):
    """The same on a file system that is full; skipped where none can be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only the superuser can mount a small file system")
    try:
        assert fill(tmp_path / "record.db") > 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def fill(path):
    """Add trials until the disk is full; return how many have their figure, after a look at it."""
    with Repository.open(path) as repository:
        study = new_study(repository)
        stored = []
        with pytest.raises(NasError, match="no room left"):
            add_until_refused(repository, study, stored)
        found_trials = repository.trials(study.id)[: len(stored)]
        assert [trial.values["accuracy"].value for trial in found_trials] == stored
        return len(stored)


def add_until_refused(repository, study, stored):
    detail = {"samples": list(range(3000))}
    for number in range(10_000):
        trial = repository.add_trial(study.id, number, CANDIDATE, origin=SAMPLER)
        figure = Measured("accuracy", float(number), detail=detail)
        repository.add_evaluation(trial, found(figure, key=f"k{number}"))
        stored.append(float(number))


def as_nobody(path, queue):
    if os.geteuid() == 0:
        os.setuid(65534)
    said = []
    try:
        with Repository.open(path, create=False) as repository:
            said.append(repository.study("big").name)
            try:
                new_study(repository, "other")
            except NasError as problem:
                said.append(str(problem))
    except NasError as problem:
        said.append(str(problem))
    queue.put(said)


def test_a_read_only_record_is_read_and_says_why_it_cannot_be_written():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.db"
        bulk_study(path, 1)
        path.chmod(0o444)
        Path(folder).chmod(0o777)
        context = multiprocessing.get_context("fork")  # the child gives up its rights
        queue = context.Queue()
        child = context.Process(target=as_nobody, args=(path, queue))
        child.start()
        name, problem = queue.get(timeout=30)
        child.join()
    assert name == "big"
    assert "is read-only; make the file and its directory writable" in problem


def test_a_record_that_must_not_be_opened_gives_one_line():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.db"
        bulk_study(path, 1)
        path.chmod(0)
        Path(folder).chmod(0o777)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=as_nobody, args=(path, queue))
        child.start()
        (problem,) = queue.get(timeout=30)
        child.join()
    assert problem.startswith(f"Cannot open the record {path}")


def test_a_record_that_is_kept_busy_gives_one_line(tmp_path, monkeypatch):
    path = tmp_path / "record.db"
    Repository.open(path).close()
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
    with closing(sqlite3.connect(path)) as other, Repository.open(path) as repository:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(NasError, match=r"Another process has kept the record .* busy"):
            new_study(repository)
        assert repository.studies() == []  # readers do not wait
        other.rollback()
        assert new_study(repository).name == "s"


def test_sqlite_writes_ahead_and_holds_foreign_keys(tmp_path):
    with (
        Repository.open(tmp_path / "record.db") as repository,
        database.reading(repository._engine) as connection,
    ):
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 1,  # NORMAL
        "foreign_keys": 1,
        "busy_timeout": 30_000,
    }
