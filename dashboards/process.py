"""Starting a process that does what takes long, and reading what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Process = subprocess.Popen[str]

_CHILD = Path(__file__).with_name("child.py")


def run_child(
    order: Mapping[str, Any], started: Callable[[Process], None] = lambda _: None
) -> Json:
    """Have a new process do something; see :mod:`dashboards.child`.

    Args:
        order: what to do.
        started: given the process once it runs.

    Returns:
        what it found; under ``error`` why it failed.
    """
    whole = {**order, "parent": os.getpid(), "path": sys.path}
    command = [sys.executable, str(_CHILD), json.dumps(whole)]
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError as problem:
        return {"error": f"The process cannot start: {problem}."}
    started(process)
    answer, said = process.communicate()
    try:
        found: Json = json.loads(answer)
    except ValueError:
        last = (said.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        return {"error": f"The process ended: {last}."}
    return found
