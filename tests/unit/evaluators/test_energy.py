"""Energy from a counter of known power, and the reasons where there is none."""

import time

import pytest
import torch

from evaluators import counters
from evaluators.energy import EnergyEvaluator
from evaluators.protocol import EvaluationError
from kernels.device import Device, detect
from kernels.environment import CACHE_VARIABLE
from kernels.errors import NasError
from search_spaces.architecture import Architecture

CPU = detect("cpu")
NET = Architecture.parse("input 3x32x32; conv 16 k3 bn relu; gap; flatten; linear 10")
LARGE_UJ = 262_143_328_850


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))


@pytest.fixture
def powercap(monkeypatch, tmp_path):
    """Adds zones to a folder that stands in for the system's."""
    folder = tmp_path / "powercap"
    folder.mkdir()
    monkeypatch.setattr(counters, "_POWERCAP", folder)

    def add(zone, name, energy="5", largest=LARGE_UJ):
        (folder / zone).mkdir()
        (folder / zone / "name").write_text(f"{name}\n")
        (folder / zone / "energy_uj").write_text(f"{energy}\n")
        (folder / zone / "max_energy_range_uj").write_text(f"{largest}\n")

    return add


@pytest.fixture
def power(monkeypatch):
    """Has the counters of zones rise by some watts each, whatever the machine does."""
    watts = {}
    read = counters._read_uj

    def rising(path):
        if path.name != "energy_uj":
            return read(path)
        return int(1e6 * watts[path.parent.name] * time.perf_counter()) % read(
            path.with_name("max_energy_range_uj")
        )

    monkeypatch.setattr(counters, "_read_uj", rising)
    return watts


def test_energy_is_power_times_time_over_passes(powercap, power):
    powercap("intel-rapl:0", "package-0")
    power["intel-rapl:0"] = 40
    (measured,) = EnergyEvaluator(CPU, seconds=0.3).evaluate(NET)
    detail = measured.detail
    assert measured.metric == "energy_mj"
    assert detail["idle_w"] == pytest.approx(40, rel=0.02)
    assert detail["mean_w"] == pytest.approx(40, rel=0.02)
    assert measured.value * detail["passes"] == pytest.approx(40e3 * detail["seconds"], rel=0.02)
    assert abs(detail["above_idle_mj"]) < 0.05 * measured.value
    assert detail["counter"] == "RAPL"
    first, last = detail["states"]
    assert last["time_s"] - first["time_s"] == pytest.approx(detail["seconds"], abs=0.1)


def test_packages_are_added_and_their_parts_are_not(powercap, power):
    zones = {
        "intel-rapl:0": ("package-0", 40),
        "intel-rapl:0:0": ("core", 30),
        "intel-rapl:1": ("package-1", 20),
        "intel-rapl:2": ("psys", 100),
        "intel-rapl-mmio:0": ("package-0", 40),
    }
    for zone, (name, watts) in zones.items():
        powercap(zone, name)
        power[zone] = watts
    (measured,) = EnergyEvaluator(CPU, seconds=0.2).evaluate(NET)
    assert measured.detail["mean_w"] == pytest.approx(60, rel=0.02)


def test_a_counter_that_begins_again_is_followed(powercap, tmp_path):
    powercap("intel-rapl:0", "package-0", energy="90000", largest=100_000)
    counter = counters.energy_counter(CPU)
    readings = []
    for energy in ("95000", "10000", "10000", "4000"):
        (tmp_path / "powercap" / "intel-rapl:0" / "energy_uj").write_text(energy)
        readings.append(counter.read_mj())
    assert readings == [5, 20, 20, 114]


def test_passes_run_on_one_thread_and_the_others_are_given_back(powercap, power, monkeypatch):
    powercap("intel-rapl:0", "package-0")
    power["intel-rapl:0"] = 40
    seen = set()
    forward = torch.nn.Conv2d.forward

    def watched(self, x):
        seen.add(torch.get_num_threads())
        return forward(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (measured,) = EnergyEvaluator(CPU, seconds=0.05).evaluate(NET)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {measured.detail["threads"]} == {1}


def test_a_counter_that_stands_still_is_no_measurement(powercap):
    powercap("intel-rapl:0", "package-0")
    with pytest.raises(EvaluationError, match="did not move"):
        EnergyEvaluator(CPU, seconds=0.05).evaluate(NET)


def test_a_cpu_without_a_counter_is_unsupported(powercap):
    powercap("intel-rapl:0:0", "core")
    with pytest.raises(EvaluationError, match=r"unsupported on this CPU: .* no counter"):
        EnergyEvaluator(CPU).evaluate(NET)


def test_a_counter_that_cannot_be_read_is_named(powercap):
    powercap("intel-rapl:0", "package-0", energy="none")
    with pytest.raises(EvaluationError, match=r"intel-rapl:0/energy_uj cannot be read \(no numb"):
        EnergyEvaluator(CPU).evaluate(NET)


def test_a_gpu_that_nvml_does_not_find_is_unsupported():
    absent = Device("cuda", 0, "a card", (9, 0), 132, 1 << 36, uuid="no-such-card")
    with pytest.raises(EvaluationError, match="Energy is unsupported here: NVML"):
        EnergyEvaluator(absent).evaluate(NET)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_time_for_a_pass_is_refused(seconds):
    with pytest.raises(NasError, match=r"at least 0\.05 s of passes"):
        EnergyEvaluator(CPU, seconds=seconds)


def test_conditions_are_in_the_name_and_the_key():
    plain, half = EnergyEvaluator(CPU), EnergyEvaluator(CPU, batch=8, dtype="bfloat16")
    assert half.metrics == ("energy_mj[batch=8,dtype=bfloat16]",)
    assert plain.cache_key(NET) != half.cache_key(NET)
