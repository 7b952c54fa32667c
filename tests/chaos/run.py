"""A chaos run, and what must hold after it: ``python -m tests.chaos.run --minutes 65``."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from datetime import datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from studies.search import run_study
from studies.storage import TrialState
from studies.workspace import Workspace
from tests.chaos.faults import CLUSTER, LOCAL, strike
from tests.chaos.study import evaluators, settings
from tests.chaos.world import World, say, wait_until

STUDIES = ("one", "two")
_LAST_TRIALS = 40
"""Complete trials that each study makes in peace at the end: more than are in flight, as the last
of them are asked for later than others."""


def chaos(
    folder: Path, *, cluster: bool, minutes: float, every: float, seed: int, faults: int = 0
) -> dict[str, Any]:
    """Run two studies of one workspace under faults, let them end, and count.

    Args:
        folder: where everything lies.
        cluster: whether on PostgreSQL and a Ray cluster, or on SQLite and processes.
        minutes: of faults, at least.
        every: mean seconds between two of them.
        seed: of what is broken when.
        faults: how many there are at least.

    Raises:
        AssertionError: something was lost, doubled, paid twice or damaged.
    """
    rng = Random(seed)
    world = World(folder, list(STUDIES), cluster=cluster)
    try:
        world.see_to_drivers()
        assert wait_until(lambda: _complete(world.place, "one") >= 1, 240), "nothing begins"
        chosen = CLUSTER if cluster else LOCAL
        struck = strike(world, chosen, seconds=60 * minutes, least=faults, every=every, rng=rng)
        world.see_to_drivers()
        reached = {name: _complete(world.place, name) + _LAST_TRIALS for name in STUDIES}
        world.end_at(reached)
        assert wait_until(lambda: _all_done(world), 900), "a study does not end"
        counts = {
            "faults": dict(struck),
            "faults in all": sum(struck.values()),
            "endings of drivers": {study.name: study.endings for study in world.studies},
            **check(world, reached),
        }
        say(json.dumps(counts, indent=1))
        return counts
    except BaseException:
        for study in world.studies:
            log = folder / f"{study.name}.log"
            say(f"{log.name}: {log.read_text(errors='replace')[-3000:] if log.exists() else ''}")
        raise
    finally:
        world.close()


def _all_done(world: World) -> bool:
    world.see_to_drivers()
    return all(study.done for study in world.studies)


def _complete(place: Path, name: str) -> int:
    """Count complete trials; 0 while the record cannot say."""
    from kernels.errors import NasError

    try:
        with Workspace.of(place).open(create=False) as repository:
            return repository.count_states(repository.study(name).id)[TrialState.COMPLETE]
    except NasError:
        return 0


def check(world: World, reached: dict[str, int]) -> dict[str, Any]:
    """Look at everything that must hold; return the counts."""
    counts: dict[str, Any] = {"database": _integrity(world)}
    stored: dict[str, float] = {}
    with Workspace.of(world.place).open(create=False) as repository:
        for name in STUDIES:
            study = repository.study(name)
            trials = repository.trials(study.id)
            events = repository.events(study.id)
            counts[name] = _check_study(trials, events, stored)
            counts[name]["equal to the undisturbed study"] = _compare(
                world.folder / f"whole-{name}", name, trials, reached[name]
            )
    counts |= _check_payments(world, stored)
    return counts


def _check_study(trials: Any, events: Any, stored: dict[str, float]) -> dict[str, Any]:
    numbers = [trial.number for trial in trials]
    assert numbers == list(range(len(trials))), "a trial is missing, or there twice"
    states = Counter(str(trial.state) for trial in trials)
    assert not states["running"], "a trial was left running"
    for trial in trials:
        assert trial.ended is not None, trial
        assert trial.state is TrialState.COMPLETE or trial.reason, f"no reason: {trial}"
    evaluated = Counter()
    for event in events:
        if event.kind == "evaluated":
            metric = event.data["metrics"][0]
            evaluated[event.data["trial"], metric] += 1
            key = f"paid-{metric}-{trials[event.data['trial']].key}"
            stored.setdefault(key, event.time.timestamp())
    doubled = {what: count for what, count in evaluated.items() if count > 1}
    assert not doubled, f"evaluated twice in one study: {doubled}"
    kinds = Counter(event.kind for event in events)
    assert kinds["ended"] == 1, kinds
    return {
        "trials": len(trials),
        **{state: count for state, count in sorted(states.items()) if count},
        "figures reused from the other study": kinds["reused"],
        "stopped early": kinds["stopped"],
        "drivers that began": kinds["started"],
        "reasons of failures": dict(
            Counter((trial.reason or "")[:60] for trial in trials if trial.state == "failed")
        ),
    }


def _compare(folder: Path, name: str, trials: Any, complete: int) -> bool:
    """Run the study again, undisturbed and with figures that come at once."""
    if any(trial.state is TrialState.FAILED for trial in trials):
        return False  # what failed by a fault teaches the sampler something else
    config = settings(name, trials=complete, workers=0)
    run_study(config, folder, evaluators=evaluators(folder, quick=True))
    with Workspace.of(folder).open() as repository:
        whole = repository.trials(repository.study(name).id)
    assert [_row(trial) for trial in whole] == [_row(trial) for trial in trials]
    return True


def _row(trial: Any) -> tuple[Any, ...]:
    return (
        trial.number,
        trial.state,
        trial.reason,
        trial.stage,
        trial.key,
        dict(trial.decisions),
        dict(trial.values),
        dict(trial.origin),
    )


def _check_payments(world: World, stored: dict[str, float]) -> dict[str, Any]:
    """No key may be begun again once its result was stored."""
    begun: dict[str, list[float]] = {}
    ended: Counter[str] = Counter()
    for line in (world.diary / "diary").read_text().splitlines():
        word, key, moment, _ = line.split()
        if word == "begin":
            begun.setdefault(key, []).append(float(moment))
        else:
            ended[key] += 1
    late = {key: moments for key, moments in begun.items() if max(moments) > stored.get(key, 1e18)}
    assert not late, f"paid again after it was stored: {late}"
    assert set(stored) <= set(begun), "a figure that nobody made"
    return {
        "keys paid for": len(begun),
        "keys stored": len(stored),
        "paid again after the result was stored": len(late),
        "begun again before, as what did it was killed": sum(map(len, begun.values())) - len(begun),
        "finished twice before, as the result did not get through": ended.total() - len(ended),
    }


def _integrity(world: World) -> str:
    if world.server is not None:
        database = world.url.partition("@/")[2].partition("?")[0]
        where = ["-h", str(world.folder / "db" / "server"), "-U", "nas"]
        arguments = ["--install-missing", "--heapallindexed", "--parent-check", "-d", database]
        world.server.call("pg_amcheck", *where, *arguments)
        return "pg_amcheck: no fault, page checksums on"
    with closing(sqlite3.connect(world.place / "record.db")) as db:
        (verdict,) = db.execute("PRAGMA integrity_check").fetchone()
        strangers = db.execute("PRAGMA foreign_key_check").fetchall()
    assert (verdict, strangers) == ("ok", [])
    return "integrity_check: ok, no foreign key without its row"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--every", type=float, default=25.0, help="mean seconds between faults")
    parser.add_argument("--faults", type=int, default=0, help="go on until there were so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--local", action="store_true", help="SQLite and processes")
    given = parser.parse_args()
    begin = time.time()
    with TemporaryDirectory(prefix="chaos") as folder:
        Path(folder).chmod(0o755)
        chaos(
            Path(folder),
            cluster=not given.local,
            minutes=given.minutes,
            every=given.every,
            seed=given.seed,
            faults=given.faults,
        )
    say(f"held, after {(time.time() - begin) / 60:.1f} min, {datetime.now():%F %T}")


if __name__ == "__main__":
    sys.exit(main())
