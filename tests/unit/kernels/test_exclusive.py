"""One measurement at a time: between processes, between threads, and after kill -9."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from kernels.device import detect
from kernels.environment import CACHE_VARIABLE
from kernels.errors import NasError
from kernels.exclusive import exclusive

CPU = detect("cpu")
HOLD = """
import sys, time
from kernels.device import detect
from kernels.exclusive import exclusive
with exclusive(detect("cpu")):
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
    print(time.monotonic(), flush=True)
"""


@pytest.fixture(autouse=True)
def own_locks(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))


def hold(seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_waits_for_the_first():
    process = hold(0.5)
    with exclusive(CPU):
        entered = time.monotonic()
    released, _ = process.communicate(timeout=30)
    assert entered >= float(released)


def test_who_holds_it_is_named_where_waiting_is_in_vain():
    process = hold(60)
    try:
        begin = time.monotonic()
        words = rf"being measured by process {process.pid} since"
        with pytest.raises(NasError, match=words), exclusive(CPU, wait_seconds=0.3):
            pass
        assert 0.3 <= time.monotonic() - begin < 5
    finally:
        process.kill()


def test_kill_9_frees_it_at_once():
    process = hold(60)
    process.kill()
    process.wait()
    with exclusive(CPU, wait_seconds=1):
        pass


FORK = """
import os, sys, time
from kernels.device import detect
from kernels.exclusive import exclusive
with exclusive(detect("cpu")):
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    print(child, flush=True)
    time.sleep(30)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_the_lock_of_a_killed_parent():
    parent = subprocess.Popen([sys.executable, "-c", FORK], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait()
        os.kill(child, 0)  # it lives
        with exclusive(CPU, wait_seconds=2):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_thread_may_enter_again_and_others_wait():
    order = []

    def other():
        with exclusive(CPU):
            order.append("other")

    with exclusive(CPU):
        thread = threading.Thread(target=other)
        thread.start()
        with exclusive(CPU):
            order.append("inner")
        time.sleep(0.2)
        order.append("outer")
    thread.join()
    assert order == ["inner", "outer", "other"]


def test_an_error_inside_frees_it():
    with pytest.raises(RuntimeError), exclusive(CPU):
        raise RuntimeError
    process = hold(0)
    assert process.wait(timeout=30) == 0


def test_a_cache_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(blocked))
    with exclusive(CPU):
        pass


def test_a_lock_that_cannot_be_opened_is_told_in_one_line(tmp_path):
    (tmp_path / "locks" / "cpu.lock").mkdir(parents=True)
    words = rf"cpu\.lock cannot be locked \(Is a directory\); have {CACHE_VARIABLE} name a folder"
    with pytest.raises(NasError, match=words), exclusive(CPU):
        pass
    (tmp_path / "locks" / "cpu.lock").rmdir()
    with exclusive(CPU):
        pass


def test_a_file_system_without_locks_is_told_and_the_file_is_closed(monkeypatch):
    def refuse(file, how):
        os.fstat(file)
        seen.append(file)
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        with pytest.raises(NasError, match="No locks available"), exclusive(CPU):
            pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(seen[0])
    with exclusive(CPU):
        pass
