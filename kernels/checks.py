"""Running the checks that kernels must pass on a GPU before they are used.

A kernel system names groups of checks in a module of its own, ``checks.py``, which as a script runs
the groups that it is given and prints what it found. Each group runs in a process of its own, so
that a kernel that hangs or writes where it should not costs one group.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was checked.

    Attributes:
        group: of checks.
        what: in words.
        passed: whether it holds.
        detail: figures.
    """

    group: str
    what: str
    passed: bool
    detail: str = ""


def check_all(
    module: str,
    groups: Iterable[str],
    say: Callable[[str], None],
    *,
    at_once: int = 4,
    seconds: float = 120,
) -> list[Row]:
    """Run groups, a few at once.

    Args:
        module: the system's ``checks``.
        groups: their names.
        say: told of each group at the end.
        at_once: processes; starting one takes longer than what most groups check.
        seconds: after which a group is taken to hang.
    """
    rows = []
    with ThreadPoolExecutor(at_once) as pool:
        run = partial(run_group, module, seconds=seconds)
        done = {group: pool.submit(run, group) for group in groups}
        for group, future in done.items():
            found = future.result()
            rows += found
            failed = [row for row in found if not row.passed]
            say(f"{group}: {len(found) - len(failed)} of {len(found)} hold")
            for row in failed:
                say(f"  {row.what}: {row.detail}")
    return rows


def run_group(module: str, group: str, *, seconds: float) -> list[Row]:
    """Run one group in a process; hanging and crashing are rows too."""
    command = [sys.executable, "-m", module, group]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return [Row(group, "ends", False, f"not within {seconds:g} s")]
    rows = [Row(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        rows.append(Row(group, "ends", False, last or f"exit code {done.returncode}"))
    return rows


def print_rows(rows: Iterable[Row]) -> None:
    """Print rows as lines of JSON, each as soon as it is known."""
    for row in rows:
        sys.stdout.write(json.dumps(asdict(row)) + "\n")
        sys.stdout.flush()
