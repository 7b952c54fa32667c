"""Starting the clean process of an audit, and reading what it found."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluators.audit import child
from kernels.errors import NasError

Json = dict[str, Any]

PACKAGES = ("nas", "dashboards", "studies", "evaluators", "search_spaces", "kernels", "safetensors")
"""What cannot be imported where a plain export is reloaded: this project, and more than torch."""
TIMEOUT_S = 900.0


def run_jobs(
    jobs: Sequence[Json], *, alone: bool, threads: int = 1, timeout: float = TIMEOUT_S
) -> list[Json]:
    """Do jobs in one new process that inherits no modules, and search paths only with this project.

    Args:
        jobs: see :mod:`evaluators.audit.child`.
        alone: whether this project cannot be imported there.
        threads: CPU threads of torch.
        timeout: seconds for all of them.

    Returns:
        what each found; where it failed, the reason under ``error``.

    Raises:
        NasError: the process cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="audit-") as scratch:
        report, request = Path(scratch) / "report", Path(scratch) / "request.json"
        root = str(Path(__file__).resolve().parents[2])
        content = {
            "paths": [] if alone else [root, *filter(None, sys.path)],
            "blocked": PACKAGES if alone else (),
            "threads": threads,
            "report": str(report),
            "jobs": list(jobs),
        }
        request.write_text(json.dumps(content), encoding="utf-8")
        command = [sys.executable, "-I", "-B", child.__file__, str(request)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=scratch, timeout=timeout, check=False
            )
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            reason = f"no answer within {timeout:g} s"
        except OSError as problem:
            raise NasError(f"The process of the audit cannot start: {problem}.") from None
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    found: list[Json] = [json.loads(line) for line in lines]
    missing = [{"error": f"the process ended: {reason}"} for _ in jobs[len(found) :]]
    return found + missing


def run_where_due(jobs: Sequence[Json], *, threads: int = 1) -> list[Json]:
    """Do jobs in two processes: where this project cannot be imported, and where it can.

    Args:
        jobs: as for :func:`run_jobs`; ``alone`` says of each where it is done.
        threads: CPU threads of torch.

    Returns:
        what each found, in order.

    Raises:
        NasError: a process cannot be started.
    """
    answers: dict[int, Json] = {}
    for alone in (True, False):
        some = [number for number, job in enumerate(jobs) if job["alone"] == alone]
        if some:
            found = run_jobs([jobs[number] for number in some], alone=alone, threads=threads)
            answers |= dict(zip(some, found, strict=True))
    return [answers[number] for number in range(len(jobs))]
