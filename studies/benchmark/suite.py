"""All samplers on all tasks, in parallel processes; what is done is kept in a file."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

from threadpoolctl import threadpool_limits

from kernels.errors import NasError
from studies.benchmark.race import TRIALS, Course, make_racer, race
from studies.benchmark.task import Task


@dataclass(frozen=True, slots=True)
class Entry:
    """A race to be run.

    Attributes:
        task: what is searched.
        sampler: who searches.
        seed: of the study.
        paid: rows to pay for.
        pending: trials in flight.
    """

    task: Task
    sampler: str
    seed: int
    paid: int
    pending: int = 1


Report = Callable[[int, int], None]
"""Is told how many races are done, of how many."""


def run_suite(
    entries: Sequence[Entry], *, processes: int, file: Path | None, report: Report
) -> list[Course]:
    """Run races, those left out that a file holds already.

    Args:
        entries: the races.
        processes: how many at a time; each has one thread.
        file: JSON lines, one a race; each is added as it is done.
        report: see :data:`Report`.

    Returns:
        In the order of the entries.

    Raises:
        NasError: a sampler or a column is unknown, or the file is none of ours.
    """
    for entry in {(item.task, item.sampler): item for item in entries}.values():
        make_racer(entry.task, entry.sampler, 0)  # what is wrong comes out before time is spent
        entry.task.share(entry.task.front)
    done = {} if file is None else _read(file)
    found = {
        entry: course
        for entry in entries
        if (course := done.get(_name(entry))) is not None and _is_enough(course, entry)
    }
    left = [entry for entry in dict.fromkeys(entries) if entry not in found]
    total = len(found) + len(left)
    report(len(found), total)
    for entry, course in _run(left, processes):
        found[entry] = course
        if file is not None:
            _add(file, entry, course)
        report(len(found), total)
    return [found[entry] for entry in entries]


def _run(entries: Sequence[Entry], processes: int) -> Iterator[tuple[Entry, Course]]:
    if not entries:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, context, initializer=threadpool_limits, initargs=(1,)
    ) as pool:
        running = {
            pool.submit(
                _race, _plain(entry.task), entry.sampler, entry.seed, entry.paid, entry.pending
            ): entry
            for entry in entries
        }
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_PlainTask = tuple[tuple[str, ...], tuple[str, ...], str]


def _plain(task: Task) -> _PlainTask:
    """Return what a task is made of: the table is read anew in each process."""
    return task.files, task.columns, task.space


def _race(task: _PlainTask, sampler: str, seed: int, paid: int, pending: int) -> Course:
    return race(_task(task), sampler, seed=seed, paid=paid, pending=pending)


@lru_cache(maxsize=16)
def _task(task: _PlainTask) -> Task:
    return Task(*task)


def _name(entry: Entry) -> str:
    return f"{entry.task.space} {entry.task.name} {entry.sampler} {entry.seed} {entry.pending}"


def _is_enough(course: Course, entry: Entry) -> bool:
    """Tell whether a race is as long as is wanted, or was stopped because it repeated itself."""
    return len(course.rows) >= entry.paid or course.trials >= TRIALS * entry.paid


def _read(file: Path) -> dict[str, Course]:
    if not file.exists():
        return {}
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            course = Course(**{field.name: record[field.name] for field in fields(Course)})
            found[record["race"]] = replace(course, rows=tuple(course.rows))
        except (ValueError, KeyError, TypeError):
            raise NasError(f"{file}, line {number}: expected a race of this benchmark.") from None
    return found


def _add(file: Path, entry: Entry, course: Course) -> None:
    record = {"race": _name(entry), "reference": entry.task.reference, **asdict(course)}
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")
