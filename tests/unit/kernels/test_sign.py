from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kernels.device import detect
from kernels.sign import Sign

HOLD = """
import sys
from kernels.device import detect
from kernels.sign import Sign
sign = Sign(detect("cpu"))
assert sign.put_up()
sign.be_present()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))


def test_one_party_has_it_up_and_the_others_see_it() -> None:
    mine, theirs = Sign(detect("cpu")), Sign(detect("cpu"))
    assert not mine.is_up()
    assert mine.put_up()
    assert mine.put_up()
    assert mine.is_mine
    assert (mine.is_up(), theirs.is_up()) == (False, True)
    assert not theirs.put_up()
    mine.take_down()
    assert not theirs.is_up()
    assert theirs.put_up()
    theirs.close()
    assert not mine.is_up()


def test_devices_have_signs_of_their_own() -> None:
    cpu = detect("cpu")
    gpu = Sign(replace(cpu, kind="cuda", uuid="GPU-1"))
    assert gpu.put_up()
    assert not Sign(cpu).is_up()
    assert Sign(replace(cpu, kind="cuda", uuid="GPU-1")).is_up()
    gpu.close()


def test_who_works_on_it_is_known_to_others() -> None:
    mine, theirs = Sign(detect("cpu")), Sign(detect("cpu"))
    mine.be_present()
    mine.be_present()
    assert (mine.others_are_present(), theirs.others_are_present()) == (False, True)
    mine.be_absent()
    assert not theirs.others_are_present()


def test_a_killed_holder_holds_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        sign = Sign(detect("cpu"))
        assert sign.is_up()
        assert sign.others_are_present()
        holder.kill()
        holder.wait()
        assert not sign.is_up()
        assert not sign.others_are_present()
        assert sign.put_up()
        sign.close()
