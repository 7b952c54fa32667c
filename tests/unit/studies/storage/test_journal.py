"""A driver's writes: stored once each, by whoever has the lease, whatever becomes of the server."""

import threading
import time
from contextlib import contextmanager, suppress

import pytest

from evaluators.protocol import Measured
from kernels.errors import NasError
from studies.storage import (
    Owner,
    RecordUnreachableError,
    Repository,
    StudyBusyError,
    TrialState,
    WorkerRecord,
    journal,
)
from studies.storage import database as db
from studies.storage.journal import Answer, Want
from tests.unit.studies.storage.records import CANDIDATE, SAMPLER, START, found, new_study


@pytest.fixture
def study(repository):
    return new_study(repository)


@pytest.fixture
def me(repository, study):
    owner = Owner.here()
    repository.take_lease(study.id, owner, 60)
    return owner


@pytest.fixture
def mine(repository, study, me):
    return repository.journal(study.id, me)


def accuracy(value=0.5):
    return Measured("accuracy", value)


def test_what_is_noted_is_stored_together_and_in_order(repository, study, mine):
    done = []
    assert mine.empty
    mine.begun(0, CANDIDATE, SAMPLER)
    mine.evaluated(0, found(accuracy(), key="k"), claimed="k")
    mine.finished(0, TrialState.COMPLETE, None, None)
    mine.begun(1, CANDIDATE, SAMPLER)
    mine.copied(0, 1)
    mine.finished(1, TrialState.REPEAT, "the same architecture as trial 0", None)
    mine.event("ended", {"why": "a\0b \ud800"})
    mine.workers([WorkerRecord("h:1", "h", "training", "CPU", "busy", 0, START, START)])
    mine.afterwards(lambda: done.append(len(repository.trials(study.id))))
    assert repository.trials(study.id) == []
    assert mine.store() == []
    assert (done, mine.empty) == ([2], True)
    first, second = repository.trials(study.id)
    assert (first.id, second.id) == (mine.id_of(0), mine.id_of(1))
    assert first.values == second.values
    assert (first.state, second.state) == (TrialState.COMPLETE, TrialState.REPEAT)
    (event,) = repository.events(study.id)
    assert event.data == {"why": "a\ufffdb ?"}
    (worker,) = repository.workers(study.id)
    assert (worker.name, worker.trial, worker.seen) == ("h:1", 0, START)
    mine.workers([])
    mine.store()
    assert repository.workers(study.id) == []


def test_a_want_is_answered_by_what_is_known_or_granted_or_neither(repository, study, mine, me):
    other = new_study(repository, "other")
    theirs = Owner.here()
    trial = repository.add_trial(other.id, 0, CANDIDATE, origin=SAMPLER)
    repository.add_evaluation(trial, found(accuracy(0.25), key="known"))
    repository.claim("taken", theirs, 60)
    names = ("accuracy",)
    wants = [Want(key, names) for key in ("known", "taken", "free")]
    known, taken, free = mine.store(wants, lease_seconds=60)
    assert known.figures == (accuracy(0.25),)
    assert taken == Answer(granted=False)
    assert free == Answer(granted=True)
    assert not repository.claim("free", theirs, 60)
    assert repository.claim("known", theirs, 60)  # what is known is nobody's to pay for
    # A result without one of the metrics is none: it is to be paid for again.
    (partly,) = mine.store([Want("known", ("accuracy", "loss"))], lease_seconds=60)
    assert partly == Answer(granted=False)  # while the other one has it
    mine.begun(0, CANDIDATE, SAMPLER)
    mine.given(0, known)
    mine.evaluated(0, found(Measured("loss", 1.0), key="free"), claimed="free")
    mine.store()
    (trial,) = repository.trials(study.id)
    assert trial.values["accuracy"].value == 0.25
    assert repository.claim("free", theirs, 60)
    assert me != theirs


def test_who_lost_the_lease_writes_nothing(repository, study, mine, me):
    mine.begun(0, CANDIDATE, SAMPLER)
    mine.store()
    repository.take_lease(study.id, me, 0)  # it has run out
    other = Owner.here()
    repository.take_lease(study.id, other, 60)
    mine.finished(0, TrialState.FAILED, "late", None)
    with pytest.raises(StudyBusyError, match="is run by process"):
        mine.store()
    assert repository.trials(study.id)[0].state is TrialState.RUNNING
    repository.drop_lease(study.id, other)
    with pytest.raises(StudyBusyError, match="no longer leads"):
        mine.store()


def test_what_the_record_refuses_is_kept_and_nothing_of_it_written(repository, study, mine):
    mine.begun(0, CANDIDATE, SAMPLER)
    mine.begun(0, CANDIDATE, SAMPLER)
    with pytest.raises(NasError, match="refused a row"):
        mine.store()
    assert not mine.empty
    assert repository.trials(study.id) == []


@pytest.mark.parametrize("stored", [True, False])
def test_a_commit_that_nobody_answered_is_not_repeated(
    repository, study, mine, monkeypatch, stored
):
    """The connection breaks in the commit: with it stored, and with it lost."""
    real, calls = db.writing, []

    @contextmanager
    def breaking(engine):
        calls.append(1)
        if len(calls) == 1 and not stored:
            with suppress(ZeroDivisionError), real(engine) as connection:
                yield connection
                raise ZeroDivisionError
        else:
            with real(engine) as connection:
                yield connection
        if len(calls) == 1:
            raise RecordUnreachableError("the server closed the connection")

    monkeypatch.setattr(journal.db, "writing", breaking)
    mine.begun(0, CANDIDATE, SAMPLER)
    mine.event("evaluated", {})
    (answer,) = mine.store([Want("k", ("accuracy",))], lease_seconds=60)
    assert answer.granted
    assert len(calls) == 2
    assert len(repository.trials(study.id)) == len(repository.events(study.id)) == 1
    mine.event("evaluated", {})
    mine.store()
    assert len(repository.events(study.id)) == 2


def test_a_record_that_does_not_answer_for_long_gives_one_line(repository, mine, monkeypatch):
    @contextmanager
    def away(engine):
        raise RecordUnreachableError("away")
        yield

    monkeypatch.setattr(journal.db, "writing", away)
    mine.event("started", {})
    begin = time.monotonic()
    with pytest.raises(RecordUnreachableError, match="away"):
        mine.store(patience=0.15)
    assert 0.1 < time.monotonic() - begin < 5
    monkeypatch.undo()
    mine.store()  # what was noted is still there


def test_a_server_that_is_killed_and_started_again_loses_and_doubles_nothing(server):
    with Repository.open(server.make()) as repository:
        study, owner = new_study(repository), Owner.here()
        repository.take_lease(study.id, owner, 60)
        mine = repository.journal(study.id, owner)
        mine.begun(0, CANDIDATE, SAMPLER)
        mine.store()
        server.kill()
        with pytest.raises(RecordUnreachableError, match="does not answer") as caught:
            repository.trials(study.id)
        assert "\n" not in str(caught.value)
        starting = threading.Timer(1.0, server.start)
        starting.start()
        for number in range(1, 5):
            mine.begun(number, CANDIDATE, SAMPLER)
            mine.event("evaluated", {"trial": number})
            mine.store()
        starting.join()
        assert [trial.number for trial in repository.trials(study.id)] == list(range(5))
        assert len(repository.events(study.id)) == 4


def test_the_clock_of_the_server_decides_what_has_run_out(server, monkeypatch):
    """Two hosts whose clocks are an hour apart see the same lease."""
    from studies.storage import claims

    class Ahead(claims.datetime):
        @classmethod
        def now(cls, zone=None):
            return claims.datetime.now(zone) + claims.timedelta(hours=1)

    with Repository.open(server.make()) as repository:
        mine, theirs = Owner.here(), Owner.here()
        assert repository.claim("k", mine, 60)
        monkeypatch.setattr(claims, "datetime", Ahead)
        assert not repository.claim("k", theirs, 60)
