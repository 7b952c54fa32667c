"""Proposals are worked out beside the loop, in order, and one who is too slow is named."""

import threading
from types import SimpleNamespace

import pytest

from kernels.errors import NasError
from studies import asker, pace
from studies.asker import Asker
from studies.deadline import DeadlineError
from studies.pace import Pace
from tests.unit.studies.executors.helpers import until


class Sampler:
    """Proposes what it was told, or misbehaves."""

    def __init__(self, ask=None):
        self.told, self.threads = [], set()
        self._ask = ask

    def ask(self, number, pending):
        self.threads.add(threading.current_thread())
        if self._ask is not None:
            self._ask(self)
        return number, tuple(self.told), tuple(pending)

    def tell(self, lesson):
        if lesson == "wrong":
            raise NasError("a wrong lesson")
        self.told.append(lesson)


@pytest.mark.parametrize("background", [False, True])
def test_what_is_told_before_an_ask_is_known_to_it_and_nothing_else(background):
    sampler = Sampler()
    asking = Asker(sampler, background=background, what="It")
    asking.tell("a")
    first = asking.ask(1, ["p"])
    asking.tell("b")
    second = asking.ask(2, [])
    assert first.wait(10)
    assert second.wait(10)
    assert first.proposal == (1, ("a",), ("p",))
    assert second.proposal == (2, ("a", "b"), ())
    assert (threading.main_thread() in sampler.threads) is not background
    asking.close()


@pytest.mark.parametrize("background", [False, True])
def test_what_a_sampler_raises_is_raised_by_the_proposal(background):
    def fail(_):
        raise NasError("no more candidates")

    asking = Asker(Sampler(fail), background=background, what="It")
    question = asking.ask(0, [])
    assert question.wait(10)
    with pytest.raises(NasError, match="no more candidates"):
        _ = question.proposal
    asking.close()


@pytest.mark.parametrize("background", [False, True])
def test_a_wrong_lesson_is_raised_by_the_next_proposal(background):
    asking = Asker(Sampler(), background=background, what="It")
    asking.tell("wrong")
    question = asking.ask(0, [])
    assert question.wait(10)
    with pytest.raises(NasError, match="a wrong lesson"):
        _ = question.proposal
    asking.close()


def test_an_ask_that_never_ends_is_given_up_and_its_thread_ends(monkeypatch):
    def spin(_):
        while True:
            pass

    monkeypatch.setattr(asker, "ASK_SECONDS", 0.3)
    sampler = Sampler(spin)
    asking = Asker(sampler, background=True, what="The space 'own'")
    question = asking.ask(0, [])
    with pytest.raises(DeadlineError, match=r"The space 'own' did not return within 0\.3 s"):
        until(lambda: question.wait(0.01))
    asking.close()
    (thread,) = sampler.threads
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_a_sampler_that_lets_workers_wait_is_named_once(clock):
    watched = Pace("slow")
    for second in range(1, 31):
        clock.seconds = float(second)
        watched.see(slots=4, busy=2, asking=True)
        if second % 3 == 0:
            watched.proposed()
        if second <= 20:
            assert watched.complaint() is None
    complaint = watched.complaint()
    assert complaint is not None
    assert "'slow' cannot keep up: it takes 3 s a proposal" in complaint
    assert "for 50 % of their time workers had nothing to do" in complaint
    assert watched.complaint() is None


@pytest.mark.parametrize(("slots", "busy", "asking"), [(4, 4, True), (4, 0, False), (0, 0, True)])
def test_a_sampler_that_lets_nobody_wait_is_not_named(clock, slots, busy, asking):
    watched = Pace("quick")
    for second in range(1, 61):
        clock.seconds = float(second)
        watched.see(slots=slots, busy=busy, asking=asking)
    assert watched.complaint() is None
