"""A driver's lease: kept through an outage of the record, lost when another one takes it."""

import pytest

from kernels.errors import NasError
from studies import heartbeat
from studies.heartbeat import Heartbeat
from studies.storage import Owner, RecordUnreachableError
from tests.unit.studies.executors.helpers import until


class Record:
    """Stands in for a repository; the first renewals fail as it is told."""

    def __init__(self, *problems):
        self.problems, self.renewed, self.dropped = list(problems), 0, 0

    def take_lease(self, *_):
        pass

    def renew_lease(self, *_):
        if self.problems:
            raise self.problems.pop(0)
        self.renewed += 1

    def renew_claims(self, *_):
        pass

    def drop_lease(self, *_):
        self.dropped += 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "_PERIOD", 0.01)


def test_a_server_that_is_away_for_a_while_loses_no_lease():
    record = Record(RecordUnreachableError("away"), RecordUnreachableError("away"))
    with Heartbeat(record, 1, Owner.here()) as beat:
        until(lambda: record.renewed)
        beat.check()
    assert record.dropped == 1


def test_a_lease_that_another_has_is_lost():
    record = Record(NasError("another one"))
    with Heartbeat(record, 1, Owner.here()) as beat:
        until(lambda: not record.problems and not beat._thread.is_alive())
        with pytest.raises(NasError, match="another one"):
            beat.check()
    assert record.dropped == 0
