"""A driver that is killed, interrupted or just ends leaves no worker, running or stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studies.executors import Outbox
from studies.executors import handle as handle_module
from tests.unit.studies.executors.helpers import alive, pids_in, state_of, until

ROOT = Path(__file__).resolve().parents[4]

Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    drivers: list[subprocess.Popen[bytes]] = []

    def begin(scene: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.unit.studies.executors.driver", scene]
        # Its group is its own, so that Ctrl-C can be played without hitting the tests.
        driver = subprocess.Popen([*command, str(tmp_path)], cwd=ROOT, process_group=0)
        drivers.append(driver)
        return driver

    yield begin
    for driver in drivers:
        driver.kill()
        driver.wait()
    for pid in pids_in(tmp_path):
        assert not alive(pid), f"worker {pid} outlived its driver"


def busy(folder: Path, count: int) -> list[int]:
    return until(lambda: pids if len(pids := pids_in(folder)) == count else [])


def test_no_worker_survives_a_driver_that_is_killed(start: Start, tmp_path: Path) -> None:
    driver = start("training")
    pids = busy(tmp_path, 2)
    assert all(alive(pid) for pid in pids)
    driver.kill()
    until(lambda: not any(alive(pid) for pid in pids), seconds=5.0)


def test_no_stopped_worker_survives_a_driver_that_is_killed(start: Start, tmp_path: Path) -> None:
    driver = start("measuring")
    pids = busy(tmp_path, 3)
    until(lambda: sorted(state_of(pid) for pid in pids)[1:] == ["T", "T"])
    driver.kill()
    until(lambda: not any(alive(pid) for pid in pids), seconds=5.0)


def test_a_driver_that_just_ends_leaves_no_worker(start: Start, tmp_path: Path) -> None:
    driver = start("leaving")
    assert driver.wait(30.0) == 0
    pids = pids_in(tmp_path)
    assert len(pids) == 3
    assert not any(alive(pid) for pid in pids)


def test_ctrl_c_reaches_the_driver_alone_and_closing_cleans_up(
    start: Start, tmp_path: Path
) -> None:
    driver = start("interrupted")
    pids = busy(tmp_path, 2)
    os.killpg(driver.pid, signal.SIGINT)
    for pid in pids:
        # As if they were in the terminal's group all the same.
        os.kill(pid, signal.SIGINT)
    until((tmp_path / "interrupted").exists)
    # Longer than an interpreter needs to fall over an interrupt.
    time.sleep(0.5)
    assert all(alive(pid) for pid in pids)
    (tmp_path / "go on").touch()
    assert driver.wait(10.0) == 0
    assert (tmp_path / "closed").exists()
    assert not any(alive(pid) for pid in pids)


def test_a_result_that_came_before_the_end_is_in_the_outbox(start: Start, tmp_path: Path) -> None:
    driver = start("working")
    box = Outbox(tmp_path / "box")
    until((tmp_path / "submitted").exists)
    until(box.keys)
    driver.kill()
    driver.wait()
    outcome = box.get("late")
    assert outcome is not None
    assert (outcome.reason, outcome.measured[0].value) == (None, 2 / 3)


# Each of the two ways in which a worker notices, without the other.


def _worker(tmp_path: Path, code: str) -> int:
    """Have a driver start a worker that does nothing, and be killed; return the worker."""
    script = (
        "import select, sys, time\n"
        "from pathlib import Path\n"
        "from studies.executors import handle\n"
        f"handle._START = Path({str(tmp_path / 'start.py')!r})\n"
        "options = handle.WorkerOptions(1, None, None, sys.path)\n"
        "worker = handle.WorkerProcess('w', options)\n"
        f"{code}\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        assert alive(pid)
        driver.kill()
    return pid


def _change_start(folder: Path, old: str, new: str) -> None:
    text = Path(handle_module.__file__).with_name("start.py").read_text()
    assert old in text
    (folder / "start.py").write_text(text.replace(old, new))


BIND = 'die_with(request["parent"])'
SERVE = 'serve(WorkerSettings(**request["settings"]))'
DEAF = (
    "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    '    os.write(request["settings"]["pipe"], b"here")\n'
    "    while True:\n"
    "        signal.pause()"
)
HERE = "assert select.select([worker.pipe], [], [], 20)[0]"
STOPPED = f"{HERE}; worker.pause(); assert worker.wait_paused()"


def test_the_end_of_the_pipe_ends_a_worker(tmp_path: Path) -> None:
    _change_start(tmp_path, BIND, "pass")
    pid = _worker(tmp_path, HERE)
    until(lambda: not alive(pid), seconds=5.0)


def test_the_system_ends_a_stopped_worker_without_being_asked(tmp_path: Path) -> None:
    """A group that loses its parent while it is stopped is woken and hung up (POSIX)."""
    _change_start(tmp_path, BIND, "pass")
    pid = _worker(tmp_path, STOPPED)
    until(lambda: not alive(pid), seconds=5.0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")
@pytest.mark.parametrize("state", [HERE, STOPPED], ids=["running", "stopped"])
def test_the_death_of_its_parent_ends_a_worker_that_is_deaf(tmp_path: Path, state: str) -> None:
    _change_start(tmp_path, SERVE, DEAF)
    pid = _worker(tmp_path, state)
    until(lambda: not alive(pid), seconds=5.0)


def test_a_worker_whose_driver_died_before_it_could_ask_ends(tmp_path: Path) -> None:
    script = Path(handle_module.__file__).with_name("start.py")
    request = '{"parent": 1, "path": [], "settings": {}}'
    done = subprocess.run([sys.executable, str(script), request], timeout=20.0, check=False)
    assert done.returncode == 1
