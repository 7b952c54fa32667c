"""The queue of what takes long: one after the other, once each, and never more than it can hold."""

from __future__ import annotations

import subprocess
import time
from threading import Event

import pytest

from dashboards import requests as module
from dashboards.process import run_child
from dashboards.requests import MOST_WAITING, Requests
from dashboards.spaces import Descriptions, describe_space
from kernels.errors import NasError
from studies.workspace import Workspace


def settled(requests, study="digits", trial=0, seconds=120):
    """Wait until no request about a trial is open and return them."""
    deadline = time.monotonic() + seconds
    while True:
        found = requests.listed(study, trial)
        if found and all(item["state"] in ("done", "failed") for item in found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


@pytest.fixture(name="held")
def children_that_wait(monkeypatch):
    """A child that notes its order and ends when it is told to."""
    go, orders = Event(), []

    def child(order, started=None):
        orders.append((order["do"], order["trial"]))
        assert go.wait(20)
        return {} if order["trial"] != 13 else {"error": "it could not be done"}

    monkeypatch.setattr(module, "run_child", child)
    yield go, orders
    go.set()


def test_requests_are_done_in_order_and_one_that_is_open_is_not_queued_twice(held, tmp_path):
    go, orders = held
    requests = Requests(Workspace(tmp_path))
    first = requests.ask("export", "digits", 0, ("python",))
    assert requests.ask("export", "digits", 0, ("python",))["id"] == first["id"]
    other = requests.ask("variants", "digits", 0)
    requests.ask("export", "digits", 13, ("python",))
    assert other["id"] != first["id"]
    listed = requests.listed("digits", 0)
    assert [item["before"] for item in listed] == [1, 0]
    go.set()
    assert [item["state"] for item in settled(requests)] == ["done", "done"]
    (failed,) = settled(requests, trial=13)
    assert (failed["state"], failed["message"]) == ("failed", "it could not be done")
    assert orders == [("export", 0), ("variants", 0), ("export", 13)]
    assert requests.ask("export", "digits", 0, ("python",))["id"] not in (first["id"], other["id"])
    requests.close()


def test_too_many_requests_are_refused(held, tmp_path):
    requests = Requests(Workspace(tmp_path))
    for trial in range(MOST_WAITING):
        requests.ask("variants", "digits", trial)
    with pytest.raises(NasError, match="try again later"):
        requests.ask("variants", "digits", MOST_WAITING)
    requests.close()


def test_what_is_wrong_with_an_export_is_said_in_one_line(place):
    requests = Requests(Workspace(place))
    requests.ask("export", "digits", 0, ("python",))
    (failed,) = settled(requests)
    assert "has no trained weights" in failed["message"]
    assert "\n" not in failed["message"]
    requests.close()


def test_closing_ends_the_child(place):
    requests, children = Requests(Workspace(place)), []
    note = requests._note

    def noted(process):
        children.append(process)
        note(process)

    requests._note = noted
    requests.ask("export", "digits", 0, ("python",))
    deadline = time.monotonic() + 60
    while not children:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    requests.close()
    assert children[0].wait(30) != 0


def test_a_child_that_dies_is_told_as_such():
    found = run_child({"do": "nothing"}, subprocess.Popen.kill)
    assert "The process ended" in found["error"]
    assert "KeyError" in run_child({"do": "nothing"})["error"]


def test_a_space_is_described_once_and_in_the_background():
    spaces, begin = Descriptions(), time.monotonic()
    asked = ("mobile-cnn-small", (1, 8, 8), 10)
    assert spaces.get(*asked) == {"counting": True}
    assert time.monotonic() - begin < 1
    while "counting" in spaces.get(*asked):
        assert time.monotonic() - begin < 300
        time.sleep(0.05)
    found = spaces.get(*asked)
    assert found["size"].startswith("about 3")
    assert set(found["options"]["stage0/block0/kind"]) == {"standard", "separable", "sliding"}


def test_an_unknown_space_is_named():
    with pytest.raises(NasError, match="Unknown space"):
        describe_space("nothing", (1, 8, 8), 10)
