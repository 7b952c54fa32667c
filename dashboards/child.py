"""Does what takes long in a process of its own; run as a script.

The only argument is a JSON object: ``parent`` is the asking process, ``path`` its search path for
modules, and the rest says what to do. The answer is one line of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.workspace import Workspace

Json = dict[str, Any]


def _place(order: Json) -> Workspace:
    from studies.workspace import Workspace

    return Workspace(Path(order["root"]), order["database"])


def _export(order: Json) -> Json:
    from studies.exports import export_points

    place = _place(order)
    folder, how = place.root / "exports", {"to": order["to"], "form": order["form"]}
    (made,) = export_points(place, order["study"], [order["trial"]], folder, **how)
    return {"passed": made.audit.passed, "reused": made.reused}


def _variants(order: Json) -> Json:
    from studies.variant_tables import measure_trial_variants

    table = measure_trial_variants(_place(order), order["study"], order["trial"])
    return {"rows": len(table.rows)}


def _space(order: Json) -> Json:
    from dashboards.spaces import describe_space

    os.nice(10)
    return describe_space(order["space"], tuple(order["shape"]), order["classes"])


_JOBS: dict[str, Callable[[Json], Json]] = {
    "export": _export,
    "variants": _variants,
    "space": _space,
}


def main() -> None:
    """Do what the argument says and print what came of it."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    order = json.loads(sys.argv[1])
    sys.path[:] = order["path"]
    from kernels.errors import NasError
    from studies.executors.start import die_with

    die_with(order["parent"])
    try:
        found = _JOBS[order["do"]](order)
    except NasError as problem:
        found = {"error": str(problem)}
    except Exception as problem:  # whatever it is, the page says it
        found = {"error": f"{type(problem).__name__}: {problem}"}
    json.dump(found, answer)
    answer.close()


if __name__ == "__main__":
    main()
