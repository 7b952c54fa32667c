"""The job of ``nas bench search``: how good samplers are on tasks from tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kernels.errors import NasError
from nas.jobs.common import Json
from nas.tables import table
from studies.benchmark.score import Score, geometric_mean, paid_until, scores, shortfalls
from studies.benchmark.suite import Entry, run_suite
from studies.benchmark.task import Task

BUDGETS = (20, 50, 100, 200, 500, 1000)
"""Paid rows at which hypervolume is printed."""
TASKS = (
    "cifar100_test_200,2080ti_1",
    "cifar10_test_200,titan_rtx_256",
    "cifar10_test_200,raspi4",
)
"""What is searched where nothing is named."""
SAMPLERS = ("ehvi", "evolution", "optuna:random", "optuna:nsga2", "optuna:tpe-multivariate")
"""Who searches where nobody is named: those that take seconds."""
_TABLES = ("nb201.csv.gz", "nb201_latency_ms.csv.gz")
_FOLDER = Path("../shared/data/nas")


def bench(
    *,
    tables: Sequence[Path],
    space: str,
    tasks: Sequence[str],
    samplers: Sequence[str],
    seeds: int,
    first_seed: int,
    paid: int,
    pending: Sequence[int],
    processes: int,
    file: Path | None,
    say: Callable[[str], None],
) -> Json:
    """Run all samplers on all tasks with all seeds, and say how they did.

    Raises:
        NasError: a table, column or sampler cannot be had.
    """
    files = tuple(str(path) for path in tables or _default_tables())
    entries = [
        Entry(task, sampler, seed, min(paid, len(task.table)), count)
        for task in [Task(files, _columns(text), space) for text in tasks]
        for sampler in samplers
        for count in pending
        for seed in range(first_seed, first_seed + seeds)
    ]

    def report(done: int, total: int) -> None:
        say(f"{done} of {total} searches done")

    found = scores(entries, run_suite(entries, processes=processes, file=file, report=report))
    return {
        "files": list(files),
        "seeds": seeds,
        "tasks": [_task_json(task) for task in dict.fromkeys(item.task for item in found)],
        "scores": [_score_json(item) for item in found],
        "shortfalls": _shortfalls_json(found, paid),
        "reached": _reached_json(found),
    }


def _default_tables() -> list[Path]:
    found = [_FOLDER / name for name in _TABLES]
    if not all(path.exists() for path in found):
        raise NasError(f"There are no tables in {_FOLDER}: name the files of one with --table.")
    return found


def _columns(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(","))


def _task_json(task: Task) -> Json:
    return {
        "task": task.name,
        "rows": len(task.table),
        "front": len(task.front),
        "reference": dict(zip(task.names, task.reference, strict=True)),
    }


def _score_json(score: Score) -> Json:
    return {
        "task": score.task.name,
        "sampler": score.sampler,
        "pending": score.pending,
        "seeds": score.seeds,
        "ask_ms": score.ask_ms,
        "trials": score.trials,
        "at": {
            str(budget): {
                "mean": float(score.curve[budget - 1]),
                "deviation": float(score.spread[budget - 1]),
                "simulated_hours": float(score.hours[budget - 1]),
            }
            for budget in BUDGETS
            if budget <= len(score.curve)
        },
        "curve": [round(float(value), 6) for value in score.curve],
    }


def _shortfalls_json(found: Sequence[Score], paid: int) -> list[Json]:
    """Return what the project's samplers miss, over what Optuna's best misses."""
    rows: list[Json] = []
    for budget in [item for item in BUDGETS if item <= paid]:
        ratios = shortfalls(found, budget)
        for sampler, pending in dict.fromkeys((item[1], item[2]) for item in ratios):
            own = {key[0]: value for key, value in ratios.items() if key[1:] == (sampler, pending)}
            rows.append(
                {
                    "sampler": sampler,
                    "pending": pending,
                    "paid": budget,
                    "tasks": own,
                    "geometric_mean": geometric_mean(list(own.values())),
                }
            )
    return rows


def _reached_json(found: Sequence[Score]) -> list[Json]:
    """Return, where costs are free, what must be paid for what 200 rows give where they are not."""
    paid = {
        (item.task.names, item.sampler, item.pending): item
        for item in found
        if not any(item.task.free)
    }
    rows: list[Json] = []
    for score in found:
        other = paid.get((score.task.names, score.sampler, score.pending))
        if any(score.task.free) and other is not None and len(other.curve) >= _LEVEL:
            share = float(other.curve[_LEVEL - 1])
            rows.append(
                {
                    "task": score.task.name,
                    "sampler": score.sampler,
                    "pending": score.pending,
                    "share": share,
                    "paid": paid_until(score, share),
                }
            )
    return rows


_LEVEL = 200


def bench_text(result: Json) -> str:
    """Write a table for each task, then how the project's samplers compare with Optuna's."""
    parts = []
    for task in result["tasks"]:
        point = ", ".join(f"{name} {value:.6g}" for name, value in task["reference"].items())
        rows = [item for item in result["scores"] if item["task"] == task["task"]]
        sizes = f"{task['rows']:,} rows, {task['front']} on the front"
        parts.append(f"{task['task']}: {sizes}; reference {point}")
        parts.append(_score_table(rows))
    if result["shortfalls"]:
        parts.append("What is missed of the front, over what the best of Optuna's samplers misses:")
        parts.append(_shortfall_table(result["shortfalls"]))
    for row in result["reached"]:
        needed = "more than were run" if row["paid"] is None else f"{row['paid']}"
        parts.append(
            f"{row['task']}, {row['sampler']}: {needed} paid for {row['share']:.4f}, which takes "
            f"{_LEVEL} where nothing is free"
        )
    return "\n".join(parts)


def _score_table(rows: Sequence[Json]) -> str:
    budgets = list(dict.fromkeys(budget for row in rows for budget in row["at"]))
    header = ["sampler", "in flight", "seeds", *budgets, "hours", "trials", "ask ms"]
    cells = []
    for row in rows:
        last = row["at"][list(row["at"])[-1]] if row["at"] else None
        figures = [
            f"{row['at'][budget]['mean']:.4f} sd {row['at'][budget]['deviation']:.3f}"
            if budget in row["at"]
            else ""
            for budget in budgets
        ]
        hours = "" if last is None else f"{last['simulated_hours']:.1f}"
        cells.append(
            [
                row["sampler"],
                str(row["pending"]),
                str(row["seeds"]),
                *figures,
                hours,
                f"{row['trials']:.0f}",
                f"{row['ask_ms']:.1f}",
            ]
        )
    return table(header, cells)


def _shortfall_table(rows: Sequence[Json]) -> str:
    tasks = list(dict.fromkeys(task for row in rows for task in row["tasks"]))
    header = ["sampler", "in flight", "paid", *tasks, "geometric mean"]
    cells = [
        [
            row["sampler"],
            str(row["pending"]),
            str(row["paid"]),
            *(f"{row['tasks'][task]:.3f}" if task in row["tasks"] else "" for task in tasks),
            f"{row['geometric_mean']:.3f}",
        ]
        for row in rows
    ]
    return table(header, cells)
