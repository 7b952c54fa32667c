"""What is read around a measurement: a GPU by a stand-in of NVML, this machine's own cores."""
# ruff: noqa: N802, N815

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from kernels.device import Device, detect
from kernels.telemetry import DeviceState, Telemetry, foreign_share, waiting_share

GPU = Device("cuda", 0, "NVIDIA Test", (9, 0), 132, 1 << 36, uuid="1234-abcd", driver="580")


class Nvml(SimpleNamespace):
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    nvmlClocksEventReasonSwPowerCap = 4
    nvmlClocksThrottleReasonHwThermalSlowdown = 64

    def __init__(self, *, lost=False, missing=(), bits=0, pids=()):
        self.lost, self.missing, self.bits, self.pids = lost, missing, bits, pids
        self.open = 0

    def nvmlInit(self):
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if self.lost or uuid != "GPU-1234-abcd":
            raise RuntimeError("Not Found")
        return "handle"

    def give(self, name, value):
        if name in self.missing:
            raise RuntimeError("Not Supported")
        return value

    def nvmlDeviceGetPowerUsage(self, handle):
        return self.give("power", 345_600)

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return self.give("clock", {1: 1980, 2: 3201}[kind])

    def nvmlDeviceGetTemperature(self, handle, kind):
        return self.give("temperature", 41)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return self.give("reasons", self.bits)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        pids = [os.getpid(), *self.pids]
        return self.give("processes", [SimpleNamespace(pid=pid) for pid in pids])

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self.give("energy", 123_456)


def telemetry(monkeypatch, nvml):
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return Telemetry(GPU)


def test_a_gpu_is_read_through_nvml(monkeypatch):
    nvml = Nvml(bits=4 | 1, pids=[1, 2])
    reader = telemetry(monkeypatch, nvml)
    state = reader.state()
    assert (state.sm_clock_mhz, state.memory_clock_mhz, state.temperature_c) == (1980, 3201, 41)
    assert (state.power_w, state.energy_mj, state.other_processes) == (345.6, 123_456, 2)
    assert state.throttle == ("power cap",)
    assert state.problem is None
    assert state.to_dict()["throttle"] == ["power cap"]
    assert "busy_s" not in state.to_dict()
    reader.close()
    assert nvml.open == 0


def test_reasons_are_known_by_their_older_names_too(monkeypatch):
    assert telemetry(monkeypatch, Nvml(bits=64)).state().throttle == (
        "thermal slowdown (hardware)",
    )


FIGURES = ("power", "clock", "temperature", "reasons", "processes", "energy")


@pytest.mark.parametrize("given", FIGURES)
def test_what_a_card_does_not_give_is_none(monkeypatch, given):
    missing = [name for name in FIGURES if name != given]
    state = telemetry(monkeypatch, Nvml(missing=missing, bits=4)).state()
    fields = {
        "power": {"power_w"},
        "clock": {"sm_clock_mhz", "memory_clock_mhz"},
        "temperature": {"temperature_c"},
        "reasons": {"throttle"},
        "processes": {"other_processes"},
        "energy": {"energy_mj"},
    }
    assert state.to_dict().keys() == {"time_s"} | fields[given]


def test_a_card_lost_on_the_way_is_told_and_one_that_comes_back_is_read(monkeypatch):
    nvml = Nvml()
    reader = telemetry(monkeypatch, nvml)
    assert reader.state().problem is None
    nvml.missing = FIGURES
    lost = reader.state()
    assert lost.to_dict().keys() == {"time_s", "problem"}
    assert lost.problem == "NVML: Not Supported"
    nvml.missing = ()
    assert reader.state().power_w == 345.6
    reader.close()


@pytest.mark.parametrize(
    ("module", "words"), [(Nvml(lost=True), "NVML: Not Found"), (None, "nvidia-ml-py is missing")]
)
def test_without_nvml_the_reason_is_told(monkeypatch, module, words):
    reader = telemetry(monkeypatch, module)
    state = reader.state()
    assert words in state.problem
    assert state.power_w is None
    assert module is None or module.open == 0
    reader.close()


@pytest.fixture
def core():
    before = os.sched_getaffinity(0)
    chosen = max(before)
    os.sched_setaffinity(0, {chosen})
    yield chosen
    os.sched_setaffinity(0, before)


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_others_on_a_core_are_seen_and_own_work_is_not(core):
    reader = Telemetry(detect("cpu"), [core])
    code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    before = reader.state()
    spin(0.6)
    after = reader.state()
    own = foreign_share(before, after, 1)
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.3)  # it is loaded
        before = reader.state()
        spin(1.0)
        after = reader.state()
        disturbed, waited = foreign_share(before, after, 1), waiting_share(before, after)
    finally:
        other.kill()
    assert disturbed > 0.3
    assert own < disturbed
    assert waited > 0.3


def test_nothing_is_said_of_cores_that_are_not_watched():
    state = Telemetry(detect("cpu")).state()
    assert state.busy_s is None
    assert foreign_share(state, state, 1) is None
    same = DeviceState(time_s=1.0, busy_s=1.0, own_s=1.0)
    assert foreign_share(same, same, 1) == 0.0
