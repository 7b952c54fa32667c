"""Jobs on a Ray cluster of this machine, with GPUs that are only counted."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from evaluators.analytic import AnalyticEvaluator
from kernels.environment import prepare_ray
from kernels.errors import NasError
from studies.executors import Limits, Outbox, files
from studies.executors.marker import read_marker
from studies.executors.ray import cluster
from studies.executors.ray.asking import Needs, Terms
from studies.executors.ray.executor import RayExecutor
from studies.executors.ray.station import Luggage, StationSettings
from studies.search import run_study
from tests.unit.studies.diary import Diary
from tests.unit.studies.executors.helpers import (
    Die,
    Heavy,
    Raise,
    Sleep,
    alive,
    collect,
    job,
    network,
    until,
    width_of,
)
from tests.unit.studies.executors.on_nodes import KillsItsStation, Leaving, Noted, Seeing, noted
from tests.unit.studies.fakes import cheap_config, counted, recorded

CPUS, GPUS = 3, 2


@pytest.fixture(scope="module", autouse=True)
def nodes() -> Iterator[None]:
    """One node, which says that it has more than this machine."""
    prepare_ray()
    import ray

    ray.init(
        address="local",
        num_cpus=CPUS,
        num_gpus=GPUS,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        object_store_memory=100 << 20,
    )
    yield
    ray.shutdown()


@pytest.fixture
def settings(tmp_path: Path) -> StationSettings:
    return StationSettings(
        root=str(tmp_path),
        identity=read_marker(tmp_path),
        path=tuple(sys.path),
        threads=1,
        limits=Limits(seconds=20.0),
        attempts=2,
        gpus=False,
        device=None,
        silence=60.0,
        release="test",
    )


def executor(settings: StationSettings, **more: Any) -> RayExecutor:
    given: dict[str, Any] = {
        "namespace": f"test-{uuid4().hex}",
        "training": Needs(cpus=1),
        "measuring": Needs(cpus=0, node=cluster.this_node()),
        "terms": Terms(backoff=0.1),
        **more,
    }
    return RayExecutor(settings, **given)


def pump(running: RayExecutor, condition: Callable[[], Any]) -> None:
    """Keep an executor going until something is true; nothing may be done by then."""

    def turn() -> Any:
        assert running.wait(0.02) == []
        return condition()

    until(turn, seconds=40.0)


def test_jobs_are_done_on_stations_side_by_side(settings: StationSettings, tmp_path: Path) -> None:
    with executor(settings) as running:
        assert running.slots == CPUS
        heavy = Heavy(folder=tmp_path)
        for number in range(9):
            running.submit(job(number, heavy, key=f"k{number}"))
        outcomes = collect(running, 9)
        assert sorted(outcome.job for outcome in outcomes) == list(range(9))
        assert {outcome.reason for outcome in outcomes} == {None}
        states = running.workers()
        assert {state.slot for state in states} == {"training"}
        assert {state.node for state in states if state.state == "idle"} == {os.uname().nodename}
    # Pickled once here, unpickled once a worker process.
    loads = list(tmp_path.glob("loads-*"))
    assert heavy.pickled == 1
    assert {path.read_text() for path in loads} == {"x"}
    assert len(Outbox(tmp_path / "outbox").keys()) == 9


def test_what_goes_wrong_in_a_job_is_its_reason(settings: StationSettings, tmp_path: Path) -> None:
    limited = replace(settings, limits=Limits(seconds=1.0))
    with executor(limited) as running:
        running.submit(job(1, Raise(problem=ValueError("a bug"))))
        running.submit(job(2, Die(folder=tmp_path)))
        running.submit(job(3, Sleep(seconds={4: 60.0})))
        reasons = {outcome.job: outcome.reason or "" for outcome in collect(running, 3)}
    assert reasons[1] == "ValueError: a bug"
    assert reasons[2].startswith("the worker died 2 times (signal 9); its last words: line 80")
    assert reasons[3] == "exceeded the limit of 1 s"


def test_a_job_whose_station_dies_is_begun_again_on_another(
    settings: StationSettings, tmp_path: Path
) -> None:
    with executor(settings, workers=1) as running:
        running.submit(job(1, Noted(folder=tmp_path, seconds=1.5)))
        pump(running, lambda: noted(tmp_path, "begin"))
        (station,) = running.workers()
        pid = int(station.name.partition(":")[2])
        os.kill(pid, signal.SIGKILL)
        (outcome,) = collect(running, 1)
    assert (outcome.reason, outcome.attempts) == (None, 2)
    until(lambda: not alive(pid))


def test_a_job_that_kills_each_station_is_over(settings: StationSettings) -> None:
    with executor(settings, workers=1, attempts=2) as running:
        running.submit(job(1, KillsItsStation()))
        (outcome,) = collect(running, 1)
    assert outcome.reason is not None
    assert outcome.reason.startswith("the worker died 2 times (The actor ")
    assert "\n" not in outcome.reason


def test_where_no_station_can_start_the_study_ends_and_no_candidate_fails(
    settings: StationSettings,
) -> None:
    broken, terms = replace(settings, attempts=0), Terms(backoff=0.01)
    with executor(broken, terms=terms) as running:
        for number in range(3):
            running.submit(job(number, Sleep(0.0)))
        with pytest.raises(NasError, match=r"No worker can be started .*attempts.*Mend it"):
            pump(running, lambda: False)


def test_a_new_driver_takes_over_what_stations_are_at(
    settings: StationSettings, tmp_path: Path
) -> None:
    """The first driver is not closed: to its stations it is as dead as one that was killed."""
    evaluator = Noted(folder=tmp_path, seconds=1.5)
    apart = replace(settings, identity="a folder that is not shared")
    first = executor(apart, workers=2, namespace="taken-over")
    for number in (1, 2):
        first.submit(job(number, evaluator, key=f"k{number}"))
    pump(first, lambda: len(noted(tmp_path, "begin")) == 2)
    with executor(apart, workers=2, namespace="taken-over") as second:
        second.submit(job(7, evaluator, width=2, key="k1"))
        (outcome,) = collect(second, 1)
        assert (outcome.job, outcome.reason) == (7, None)
        # Nobody has asked for the other one yet: it is kept for who does.
        pump(second, lambda: Outbox(tmp_path / "outbox").keys() == ["k2"])
    assert len(noted(tmp_path, "begin")) == 2
    assert first.workers()


def test_stations_of_other_settings_are_ended(settings: StationSettings) -> None:
    first = executor(settings, workers=1, namespace="other-settings")
    first.submit(job(1, Sleep()))
    collect(first, 1)
    (station,) = first.workers()
    pid = int(station.name.partition(":")[2])
    with executor(replace(settings, release="newer"), namespace="other-settings") as second:
        second.submit(job(2, Sleep()))
        collect(second, 1)
        until(lambda: not alive(pid))


def test_a_station_that_hears_of_no_driver_ends(settings: StationSettings) -> None:
    first = executor(replace(settings, silence=0.5), workers=1)
    first.submit(job(1, Sleep()))
    collect(first, 1)
    (station,) = first.workers()
    until(lambda: not alive(int(station.name.partition(":")[2])), seconds=30.0)


def test_only_who_has_a_gpu_sees_one(settings: StationSettings, tmp_path: Path) -> None:
    with executor(settings) as running:
        running.submit(job(1, Noted(folder=tmp_path)))
        collect(running, 1)
    assert noted(tmp_path, "begin")[0][0] == "''"
    (tmp_path / "noted").unlink()
    on_gpus = replace(settings, gpus=True)
    with executor(on_gpus, training=Needs(cpus=1, gpus=0.5)) as running:
        running.submit(job(1, Noted(folder=tmp_path)))
        collect(running, 1)
    assert noted(tmp_path, "begin")[0][0] in ("'0'", "'1'")


def test_two_studies_never_measure_on_one_gpu_at_once(
    settings: StationSettings, tmp_path: Path
) -> None:
    on_gpus = replace(settings, gpus=True)
    terms = Terms(idle_measuring=0.2, term=4.0, backoff=0.1)
    more: dict[str, Any] = {"measuring": Needs(cpus=0, gpus=1), "measurers": GPUS, "terms": terms}
    evaluator = Noted(folder=tmp_path, seconds=0.1, slot="measurement")
    with executor(on_gpus, **more) as one, executor(on_gpus, **more) as two:
        for number in range(16):
            one.submit(job(number, evaluator))
            two.submit(job(number, evaluator))
        done = 0
        end = time.monotonic() + 60
        while done < 32:
            assert time.monotonic() < end, done
            done += len(one.wait(0.05)) + len(two.wait(0.05))
    moments = [(at, gpu, word) for word in ("begin", "end") for gpu, at in noted(tmp_path, word)]
    at_work = dict.fromkeys(("'0'", "'1'"), 0)
    for _, gpu, word in sorted(moments):
        at_work[gpu] += 1 if word == "begin" else -1
        assert at_work[gpu] in (0, 1)
    assert len({gpu for _, gpu, _ in moments}) == GPUS


def test_who_waits_for_room_gets_it_after_a_term(settings: StationSettings) -> None:
    """One study has all processors and more work than it can ever do; another comes."""
    terms = Terms(term=1.0, backoff=0.1)
    with executor(settings, terms=terms) as large, executor(settings, terms=terms) as small:
        sleep = Sleep(seconds=dict.fromkeys(range(1000), 0.2))
        for number in range(300):
            large.submit(job(number, sleep))
        until(lambda: large.wait(0.05))
        small.submit(job(1, sleep))
        until(lambda: (large.wait(0.02) and False) or small.wait(0.02), seconds=40.0)


def test_files_of_a_node_that_shares_no_folder_come_back(
    settings: StationSettings, tmp_path: Path
) -> None:
    apart = replace(settings, identity="another machine's")
    path = tmp_path / "artifacts" / "w.safetensors"
    with executor(apart) as running:
        running.submit(job(1, Leaving(path=path)))
        (outcome,) = collect(running, 1)
    assert outcome.measured[0].detail == {"there": False}
    assert outcome.files == ()
    assert path.read_bytes() == b"weights"


def test_arrays_are_on_a_machine_before_a_job_begins(
    settings: StationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    import ray

    # Stations are started by the node, with the environment that it has.
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    luggage = Luggage("some-data", {"of": "a test"}, {"x": np.arange(5.0)})
    assert ray.is_initialized()
    with executor(settings, luggage=[luggage]) as running:
        running.submit(job(1, Seeing()))
        (outcome,) = collect(running, 1)
    assert outcome.measured[0].value == 10.0


def test_a_study_on_a_cluster_equals_one_on_processes(
    settings: StationSettings, tmp_path: Path
) -> None:
    more = {"objectives": ["accuracy", "params"], "sampler": "evolution", "lookahead": 6}
    config = cheap_config(trials=16, workers=3, **more)
    evaluators = [AnalyticEvaluator(), Diary(tmp_path / "diary", seconds=0.02)]
    run_study(config, tmp_path / "processes", evaluators=evaluators)
    there = replace(settings, root=str(tmp_path / "cluster"))
    with executor(there, workers=3) as running:
        run_study(config, tmp_path / "cluster", evaluators=evaluators, executor=running)
    assert counted(recorded(tmp_path / "cluster")) == counted(recorded(tmp_path / "processes"))


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../out", "", "a\\b", "a\0b"])
def test_no_file_leaves_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(NasError, match="leads out of"):
        files.inside(tmp_path / "w", name)


def test_no_file_leaves_its_folder_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "link").symlink_to(tmp_path)
    with pytest.raises(NasError, match="leads out of"):
        files.inside(tmp_path / "w", "link/out")


def test_an_address_of_another_kind_gives_one_line() -> None:
    with pytest.raises(NasError, match="write HOST:PORT") as caught:
        cluster.connect("ray://host:10001")
    assert "\n" not in str(caught.value)


def test_needs_are_counted_in_what_there_is() -> None:
    assert Needs(cpus=2).fit({"CPU": 7.0}) == 3
    assert Needs(cpus=1, gpus=0.25).fit({"CPU": 99.0, "GPU": 1.0}) == 4
    assert Needs(cpus=1, gpus=1, memory_bytes=10).fit({"CPU": 9.0, "GPU": 8.0, "memory": 25}) == 2
    assert Needs(cpus=1, gpus=1).fit({"CPU": 9.0}) == 0
    assert width_of(network(3)) == 3
