import multiprocessing
import os
import signal
import socket
import time
from dataclasses import replace

import pytest

from studies.storage import Owner, Repository, StudyBusyError, owner
from tests.unit.studies.storage.racers import take_all, write_all
from tests.unit.studies.storage.records import new_study

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def child():
    """A process that lives until it is killed."""
    process = SPAWN.Process(target=time.sleep, args=(600,))
    process.start()
    yield process
    process.kill()
    process.join()


def owner_of(process):
    return Owner("theirs", socket.gethostname(), process.pid, owner._started(process.pid))


def test_two_owners_of_a_process_are_two():
    first, second = Owner.here(), Owner.here()
    assert first != second
    assert (first.pid, first.host) == (os.getpid(), socket.gethostname())
    assert not first.dead


def test_a_killed_process_is_dead_before_anybody_waits_for_it(child):
    theirs = owner_of(child)
    assert not theirs.dead
    os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not theirs.dead:  # a zombie now, as nobody joined it
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, 0)  # its number is still taken


def test_a_number_that_was_given_again_is_another_process():
    assert replace(Owner.here(), started="1").dead


def test_nothing_is_known_of_other_hosts():
    assert not replace(Owner.here(), host="elsewhere", pid=2**22 + 1, started="1").dead


def test_without_proc_a_process_is_asked_for_by_its_number(monkeypatch, child):
    monkeypatch.setattr(owner, "_started", lambda pid: None)
    here = Owner.here()
    assert here.started == ""
    assert not here.dead
    theirs = replace(here, pid=child.pid)
    assert not theirs.dead
    child.kill()
    child.join()
    assert theirs.dead


def test_a_claim_is_one_owners_until_it_is_released(repository):
    mine, theirs = Owner.here(), Owner.here()
    assert repository.claim("k", mine, 60)
    assert repository.claim("k", mine, 60)
    assert not repository.claim("k", theirs, 60)
    assert repository.claim("other", theirs, 60)
    repository.release("k", theirs)
    assert not repository.claim("k", theirs, 60)
    repository.release("k", mine)
    assert repository.claim("k", theirs, 60)


def test_a_claim_runs_out_unless_it_is_renewed(repository):
    mine, theirs = Owner.here(), Owner.here()
    for key in ("a", "b"):
        assert repository.claim(key, mine, 0)
    assert repository.claim("a", theirs, 60)
    repository.renew_claims(mine, 60)
    assert not repository.claim("b", theirs, 60)
    assert not repository.claim("a", mine, 60)


def test_what_is_done_for_a_study_outlives_its_driver_and_is_the_next_ones(repository):
    study, other = new_study(repository), Owner.here()
    assert repository.claim("k", Owner.of_study(study.id), 60)
    assert not repository.claim("k", other, 60)  # its driver may have died: its workers have not
    assert repository.claim("k", Owner.of_study(study.id), 0)
    assert repository.claim("k", other, 60)  # nobody renewed it


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ({"started": "1"}, True),  # ended, and its number given to this process
        ({"host": "elsewhere", "started": "1"}, False),
        ({}, False),
    ],
)
def test_what_a_dead_process_of_this_host_held_is_free(repository, change, free):
    theirs = replace(Owner.here(), **change)
    study = new_study(repository)
    assert repository.claim("k", theirs, 60)
    repository.take_lease(study.id, theirs, 60)
    assert (repository.driver(study.id) is None) is free
    mine = Owner.here()
    assert repository.claim("k", mine, 60) is free
    if free:
        repository.take_lease(study.id, mine, 60)
    else:
        with pytest.raises(StudyBusyError):
            repository.take_lease(study.id, mine, 60)


def test_a_study_has_one_driver(repository):
    study, other = new_study(repository), new_study(repository, "t")
    mine, theirs = Owner.here(), replace(Owner.here(), host="node7", pid=4711)
    repository.take_lease(study.id, theirs, 60)
    with pytest.raises(StudyBusyError) as caught:
        repository.take_lease(study.id, mine, 60)
    since = repository.driver(study.id).since
    assert str(caught.value) == (
        f"The study 's' is run by process 4711 on node7 since {since:%Y-%m-%d %H:%M:%S} UTC; "
        "wait until it ends, or stop that process."
    )
    repository.take_lease(other.id, mine, 60)
    repository.take_lease(study.id, theirs, 60)
    assert repository.driver(study.id).since == since
    repository.drop_lease(study.id, mine)
    assert repository.driver(study.id).pid == 4711
    repository.drop_lease(study.id, theirs)
    assert repository.driver(study.id) is None
    repository.take_lease(study.id, mine, 60)


def test_a_lease_that_was_lost_cannot_be_renewed(repository):
    study = new_study(repository)
    mine, theirs = Owner.here(), replace(Owner.here(), pid=4711, host="node7")
    repository.take_lease(study.id, mine, 0)
    repository.renew_lease(study.id, mine, 0)  # late, but nobody took it
    repository.take_lease(study.id, theirs, 60)
    with pytest.raises(StudyBusyError, match="process 4711 on node7"):
        repository.renew_lease(study.id, mine, 60)
    repository.renew_lease(study.id, theirs, 60)
    repository.drop_lease(study.id, theirs)
    with pytest.raises(StudyBusyError, match="no longer leads"):
        repository.renew_lease(study.id, theirs, 60)


def race(task, target, *arguments, count=4):
    results, ready = SPAWN.Queue(), SPAWN.Barrier(count)
    processes = [
        SPAWN.Process(target=task, args=(target, *arguments, results, ready)) for _ in range(count)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return found


def test_of_processes_that_race_each_key_goes_to_one(target, repository):
    new_study(repository)
    keys = [f"k{number}" for number in range(50)]
    won = race(take_all, target, keys)
    assert sorted(key for mine in won for key in mine) == sorted([*keys, "lease"])


def test_processes_that_make_and_write_one_record_agree(target):
    pids = race(write_all, target, 20)
    with Repository.open(target) as repository:
        assert len(repository.studies()) == 80
        for number in range(20):
            known = set()
            for pid in pids:
                study = repository.study(f"{pid}-{number}")
                (trial,) = repository.trials(study.id)
                (evaluation,) = repository.evaluations(trial.id)
                assert trial.values["x"].value == evaluation.figures[0].value
                if evaluation.key is None:  # it came second
                    assert trial.values["x"].value == pid
                else:
                    known.add((evaluation.key, trial.values["x"].value))
            assert len(known) == 1
            assert known.pop()[0] == f"k{number}"
