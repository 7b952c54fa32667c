"""Figures of networks outside a study: each paid once, whoever asks, whatever dies meanwhile."""

from __future__ import annotations

import csv
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from math import nan

import pytest

from evaluators.protocol import EvaluationError, Measured
from kernels.device import detect
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space
from studies import measuring, supply
from studies.executors import LocalExecutor, Outbox, Outcome
from studies.measurements import _EVALUATORS, export_measurements, measurements
from studies.measuring import Measurer, measure, measuring_evaluators, members
from studies.repeat import RepeatedEvaluator
from studies.search import run_study
from studies.storage import Owner
from studies.workspace import Workspace
from tests.unit.studies.fakes import (
    FakeEvaluator,
    cheap_config,
    recorded,
    size_score,
    space_file,
    with_costs,
)

NETS = [
    Architecture.parse(f"input 1x8x8; conv {width} k3; gap; flatten; linear 10")
    for width in (4, 8, 12)
]
DIGITS = DataSpec((1, 8, 8), 10)
PEAK = "peak_memory_mb"
"""A real measurement that no other work on the machine changes."""


class LatencyEvaluator(FakeEvaluator):
    """Has the name by which the record knows what measured, and may say that it was disturbed."""

    slot = "measurement"

    def __init__(self, function=size_score, disturbed=()):
        super().__init__(function, metric="latency_ms")
        self.disturbed = list(disturbed)

    def evaluate(self, architecture):
        (figure,) = super().evaluate(architecture)
        return [replace(figure, detail={"disturbed": self.disturbed})]


def obtain(place, evaluator, networks=NETS):
    """What a run of the command does, in this process."""
    workspace = Workspace.of(place)
    with workspace.open() as repository, LocalExecutor() as executor:
        measurer = Measurer(workspace, repository, executor, detect("cpu"))
        return [item for net in networks for item in measurer.measure(net, evaluator)]


def claimed(place, key):
    """Whether somebody holds the claim on a key."""
    other = Owner.here()
    with Workspace.of(place).open() as repository:
        free = repository.claim(key, other, 60.0)
        repository.release_all(other)
    return not free


def test_nothing_is_measured_twice(tmp_path):
    fake = LatencyEvaluator()
    first, second = obtain(tmp_path, fake), obtain(tmp_path, fake)
    assert [item.how for item in first + second] == 3 * ["measured"] + 3 * ["stored"]
    assert fake.paid == [net.key for net in NETS]
    assert [item.figure for item in second] == [item.figure for item in first]
    assert not any(claimed(tmp_path, fake.cache_key(net)) for net in NETS)


def test_a_study_finds_what_was_measured_and_the_other_way_round(tmp_path):
    config = cheap_config(objectives=["latency_ms", "macs"], trials=5)
    space = load_space(config.space)
    networks = list(members(space, DIGITS, 3))
    fake = LatencyEvaluator()
    obtain(tmp_path, fake, networks)
    run_study(config, tmp_path, evaluators=with_costs(fake))
    trials = recorded(tmp_path)
    assert [trial.key for trial in trials[:3]] == [net.key for net in networks]
    assert fake.paid == [trial.key for trial in trials]
    with Workspace.of(tmp_path).open() as repository:
        reused = repository.events(repository.study("cheap").id, kind="reused")
    assert [event.data["trial"] for event in reused] == [0, 1, 2]
    five = obtain(tmp_path, fake, members(space, DIGITS, 5))
    assert {item.how for item in five} == {"stored"}
    rows = measurements(tmp_path)
    assert [row.network for row in rows] == [trial.key for trial in trials]
    assert [row.study for row in rows] == ["", "", "", "cheap", "cheap"]
    assert [row.text for row in rows] == [trial.text for trial in trials]


def test_figures_outlive_the_study_that_paid_for_them(tmp_path):
    fake = LatencyEvaluator()
    config = cheap_config(objectives=["latency_ms", "macs"], trials=2)
    run_study(config, tmp_path, evaluators=with_costs(fake))
    before = measurements(tmp_path)
    with Workspace.of(tmp_path).open() as repository:
        repository.delete_study(repository.study("cheap").id)
    assert measurements(tmp_path) == [replace(row, study="") for row in before]
    assert before[0].network


def test_a_disturbed_figure_is_recorded_and_measured_again(tmp_path):
    fake = LatencyEvaluator(disturbed=["others used 40 % of the core"])
    (first,) = obtain(tmp_path, fake, NETS[:1])
    assert first.disturbed == ("others used 40 % of the core",)
    fake.disturbed = []
    assert [item.how for item in obtain(tmp_path, fake, NETS[:1])] == ["measured"]
    assert [item.how for item in obtain(tmp_path, fake, NETS[:1])] == ["stored"]
    one, two = measurements(tmp_path)
    assert (one.disturbed, one.key) == (first.disturbed, "")
    assert (two.disturbed, two.key) == ((), fake.cache_key(NETS[0]))


def test_one_disturbed_part_disturbs_a_repeated_figure():
    calm, loud = LatencyEvaluator(), LatencyEvaluator(disturbed=["noise"])
    (figure,) = RepeatedEvaluator((calm, loud)).evaluate(NETS[0])
    assert figure.detail["disturbed"] == ["noise"]
    (figure,) = RepeatedEvaluator((calm, calm)).evaluate(NETS[0])
    assert not figure.detail["disturbed"]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (EvaluationError("Out of memory on cuda:0: it is full"), "Out of memory on cuda:0"),
        (ValueError("no such layer"), "ValueError: no such layer"),
        (nan, "The metric latency_ms is nan."),
    ],
)
def test_a_failure_is_recorded_with_its_reason_and_the_others_go_on(tmp_path, what, reason):
    def score(architecture):
        if architecture is not NETS[1]:
            return 1.0
        if isinstance(what, Exception):
            raise what
        return what

    found = obtain(tmp_path, LatencyEvaluator(score))
    assert [item.how for item in found] == ["measured", "failed", "measured"]
    assert reason in found[1].reason
    assert "\n" not in found[1].reason
    rows = measurements(tmp_path)
    assert [row.value for row in rows] == [1.0, None, 1.0]
    assert (rows[1].network, rows[1].reason, rows[1].key) == (NETS[1].key, found[1].reason, "")
    assert rows[1].detail["device"] == str(detect("cpu"))
    again = obtain(tmp_path, LatencyEvaluator())
    assert [item.how for item in again] == ["stored", "measured", "stored"]


def test_an_interrupt_keeps_what_is_known_and_frees_what_is_claimed(tmp_path):
    def score(architecture):
        if architecture is NETS[1]:
            raise KeyboardInterrupt
        return 1.0

    fake = LatencyEvaluator(score)
    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, fake)
    assert not claimed(tmp_path, fake.cache_key(NETS[1]))
    again = obtain(tmp_path, LatencyEvaluator())
    assert [item.how for item in again] == ["stored", "measured", "measured"]


def test_what_another_one_is_at_is_waited_for(tmp_path):
    fake, other = LatencyEvaluator(), Owner.here()
    key = fake.cache_key(NETS[0])
    with Workspace.of(tmp_path).open() as repository:
        assert repository.claim(key, other, 600.0)
        found = []
        waiting = threading.Thread(target=lambda: found.extend(obtain(tmp_path, fake, NETS[:1])))
        waiting.start()
        waiting.join(1.0)
        assert waiting.is_alive()
        figure, now = Measured("latency_ms", 3.0), datetime.now(UTC)
        evaluation = supply.recordable(fake, key, Outcome(0, (figure,), None, now, now))
        repository.measurements().keep(NETS[0], evaluation, claimed=key, owner=other)
        waiting.join(30.0)
    assert [(item.how, item.figure.value) for item in found] == [("stored", 3.0)]
    assert fake.paid == []


def test_what_one_who_died_had_found_is_taken(tmp_path):
    fake, other, now = LatencyEvaluator(), Owner.here(), datetime.now(UTC)
    key = fake.cache_key(NETS[0])
    with Workspace.of(tmp_path).open() as repository:
        assert repository.claim(key, other, 600.0)
    figure = Measured("latency_ms", 0.125)
    Outbox(tmp_path / "outbox").put(key, Outcome(0, (figure,), None, now, now))
    other.retire()
    (found,) = obtain(tmp_path, fake, NETS[:1])
    assert (found.figure.value, fake.paid) == (0.125, [])
    assert Outbox(tmp_path / "outbox").keys() == []
    assert measurements(tmp_path)[0].value == 0.125


def test_a_full_disk_ends_it_before_anything_is_paid(tmp_path, monkeypatch):
    fake = LatencyEvaluator()
    monkeypatch.setattr(supply, "MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(NasError, match="make room and give the same"):
        obtain(tmp_path, fake)
    assert fake.paid == []
    assert not claimed(tmp_path, fake.cache_key(NETS[0]))


def test_members_are_distinct_and_as_many_as_there_are(tmp_path):
    space = load_space(space_file(tmp_path, [4, 8, 12]))
    keys = [net.key for net in members(space, DIGITS, 10, seed=3)]
    assert len(keys) == len(set(keys)) == 3


def test_metrics_are_those_of_the_device_under_their_conditions():
    device = detect("cpu")
    names = ["latency_ms[batch=1]", "latency_ms", "latency_ms[batch=8,cache=cold]", "energy_mj"]
    found = measuring_evaluators(names, device)
    assert [item.metrics for item in found] == [
        ("latency_ms",),
        ("latency_ms[batch=8,cache=cold]",),
        ("energy_mj",),
    ]
    (repeated,) = measuring_evaluators(["energy_mj"], device, repeat=3)
    assert len(repeated.parts) == 3
    for name, message in (
        ("accuracy", "accuracy is not measured on a device; what is: latency_ms"),
        ("latencyms", "Did you mean 'latency_ms'?"),
        ("latency_ms[mode=graph]", "CUDA graphs need a GPU"),
    ):
        with pytest.raises(NasError, match=message.replace("[", r"\[").replace("?", r"\?")):
            measuring_evaluators([name], device)
    made = {type(item).__name__ for item in (*found, repeated)} | {"PeakMemoryEvaluator"}
    assert made == set(_EVALUATORS), "what the record is searched for"


def test_real_figures_keep_how_they_came_about(tmp_path):
    """In a process of its own: a worker of the pool that studies measure in."""
    nets = [NETS[0], NETS[0], NETS[1]]
    said = []
    metrics = ("latency_ms[batch=2]", PEAK)
    found = measure(nets, metrics, tmp_path, device=detect("cpu"), on_figure=said.append)
    assert said == found
    assert [item.metric for item in found] == 2 * list(metrics)
    again = measure(nets, [PEAK], tmp_path, device=detect("cpu"), executor=LocalExecutor())
    assert [item.how for item in again] == ["stored", "stored"]
    row = measurements(tmp_path)[0]
    assert (row.metric, row.worker != "", row.study) == ("latency_ms[batch=2]", True, "")
    assert export_measurements(tmp_path, tmp_path / "all.csv") == 4
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    latency, memory = table[0], table[1]
    assert (latency["network"], latency["text"]) == (NETS[0].key, NETS[0].text)
    assert float(latency["median_us"]) == pytest.approx(1000 * float(latency["value"]))
    assert float(latency["p10_us"]) <= float(latency["median_us"]) <= float(latency["p90_us"])
    assert int(latency["count"]) >= 24
    assert (latency["batch"], latency["threads"], latency["unit"]) == ("2", "1", "ms a batch")
    assert float(latency["mad_us"]) >= 0
    for figure in (latency, memory):
        assert figure["device"] == str(detect("cpu"))
        assert figure["torch"]
        assert figure["harness"]
        assert figure["paretonas"]
    export_measurements(tmp_path, tmp_path / "all.json")
    document = json.loads((tmp_path / "all.json").read_text())
    assert document["format"] == 1
    assert len(document["measurements"][0]["detail"]["samples_us"]) == int(latency["count"])
    with pytest.raises(NasError, match=r"NAME\.csv or NAME\.json: x\.txt"):
        export_measurements(tmp_path, "x.txt")


def test_states_of_a_gpu_are_summed_up_in_the_table(tmp_path):
    state = {"sm_clock_mhz": 1980, "power_w": 500.0, "throttle": ["power cap"]}
    now = datetime.now(UTC)
    detail = {"states": [[state, {**state, "sm_clock_mhz": 1700}]], "samples_us": [1.0, 2.0]}
    outcome = Outcome(0, (Measured("latency_ms", 1.5, None, None, detail),), None, now, now)
    evaluation = supply.recordable(LatencyEvaluator(), "k", outcome)
    with Workspace.of(tmp_path).open() as repository:
        repository.measurements().keep(NETS[0], evaluation, claimed="k", owner=Owner.here())
    export_measurements(tmp_path, tmp_path / "gpu.csv")
    with (tmp_path / "gpu.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["sm_clock_mhz.low"], row["sm_clock_mhz.high"]) == ("1700", "1980")
    assert (row["power_w.high"], row["throttle"], row["temperature_c.low"]) == (
        "500.0",
        "power cap",
        "",
    )
    assert (row["median_us"], row["count"]) == ("1.5", "2")


def test_a_claim_is_renewed_while_a_measurement_goes_on(tmp_path, monkeypatch):
    """One that waits for its device may take longer than a claim lasts."""
    fake, renewed = LatencyEvaluator(), []

    class Slow(LocalExecutor):
        turns = 0

        def wait(self, timeout=None):
            self.turns += 1
            return super().wait(timeout) if self.turns > 2 else []

    workspace = Workspace.of(tmp_path)
    with workspace.open() as repository, Slow() as executor:
        monkeypatch.setattr(
            repository, "renew_claims", lambda owner, seconds: renewed.append(seconds)
        )
        Measurer(workspace, repository, executor, detect("cpu")).measure(NETS[0], fake)
    assert renewed == 2 * [measuring.LEASE_SECONDS]
