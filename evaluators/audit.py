"""Does an export do what it says? Reloads it in a clean process and compares."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from kernels.errors import NasError

_PACKAGES = ("nas", "dashboards", "studies", "evaluators", "search_spaces", "kernels")
_RUNNER = (
    "import runpy, sys\n"
    f"for name in {_PACKAGES}: sys.modules[name] = None  # importing this project fails\n"
    "runpy.run_path(sys.argv[1], run_name='__main__')\n"
)
_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Audit:
    """What a reloaded export did.

    Attributes:
        passed: whether its outputs are those of the model that was exported.
        max_difference: largest absolute difference of an output.
        output_scale: largest absolute output, for comparison.
    """

    passed: bool
    max_difference: float
    output_scale: float


def audit_plain(directory: Path) -> Audit:
    """Run an export's own ``reload.py`` where this project cannot be imported.

    Raises:
        NasError: it does not load; with the last line it printed.
    """
    script = (directory / "reload.py").resolve()
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-B", "-c", _RUNNER, str(script)],
            capture_output=True,
            text=True,
            cwd=directory,
            timeout=_TIMEOUT_S,
            check=False,
        )
        report = json.loads(done.stdout.splitlines()[-1])
        return Audit(done.returncode == 0, report["max_difference"], report["output_scale"])
    except subprocess.TimeoutExpired:
        raise NasError(f"The export in {directory} did not load within {_TIMEOUT_S} s.") from None
    except (IndexError, ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise NasError(f"The export in {directory} does not load: {last}") from None
