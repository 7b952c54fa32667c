"""The job of ``nas bench KERNEL``: compile, check and time a kernel system's cases of record."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernels.device import detect
from kernels.errors import NasError, UnknownNameError
from nas.jobs.common import Json
from nas.tables import table

BENCHES = {
    "arbitrary-precision": "kernels.arbitrary_precision.bench",
    "dual-module": "kernels.dual_module.bench",
    "extended-precision": "kernels.extended_precision.bench",
    "shfl-bw": "kernels.shfl_bw.bench",
    "sliding-channel": "kernels.sliding_channel.bench",
}
"""Modules with ``case_names`` and ``bench``.

A system may also have ``compile_kernels``, ``check_kernels`` with ``sound_plans``, and with them
``accuracy``.
"""


def bench(
    what: str,
    *,
    case: str,
    out: Path | None,
    compile_only: bool,
    commit: str,
    say: Callable[[str], None],
) -> Json:
    """Run a kernel system's bench.

    Args:
        what: among ``BENCHES``.
        case: run the cases whose names contain this.
        out: a file that is written anew after each part, so that a part that fails costs no other.
        compile_only: compile and stop; needs no GPU.
        commit: of the code, for the records.
        say: told of the progress.

    Returns:
        ``checks``, ``accuracy`` and ``records``, as far as the system has them.

    Raises:
        NasError: no such system or case, or no GPU.
    """
    module = _module(what)
    known = module.case_names()
    if not any(case in name for name in known):
        raise UnknownNameError("case", case, known)
    if not compile_only and detect().kind == "cpu":
        raise NasError(
            f"The bench {what!r} needs a GPU, and torch sees none; --compile needs none."
        )
    result: Json = {"bench": what}
    if hasattr(module, "compile_kernels"):
        say("compiling")
        module.compile_kernels()
    if compile_only:
        return result
    options: Json = {"only": case, "commit": commit}
    if hasattr(module, "check_kernels"):
        result["checks"] = module.check_kernels(say)
        _write(result, out)
        options["plans"] = module.sound_plans(result["checks"])
        say(f"plans that hold: {', '.join(options['plans'])}")
    if hasattr(module, "accuracy"):
        result["accuracy"] = module.accuracy(options["plans"])
        _write(result, out)
    result["records"] = []
    for name in known:
        if case in name:
            say(name)
            result["records"] += module.bench(**{**options, "only": name})
            _write(result, out)
    return result


def _module(what: str) -> Any:
    if what not in BENCHES:
        raise UnknownNameError("benchmark", what, ["candidates", *BENCHES])
    return importlib.import_module(BENCHES[what])


def _write(result: Json, out: Path | None) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1), encoding="utf-8")


def bench_text(result: Json) -> str:
    """Write what failed, the worst errors, and the times as a table."""
    if "records" not in result:
        return f"{result['bench']}: every kernel compiles."
    lines = [
        f"does not hold: {row['group']}: {row['what']}: {row['detail']}"
        for row in result.get("checks", [])
        if not row["passed"]
    ]
    cells = [
        [
            row["case"],
            f"{row['ours_us']:.1f}",
            f"{row['baseline_us']:.1f}",
            f"{row['ratio']:.2f}",
            "" if row["error"] is None else f"{row['error']:.1e}",
            row["baseline"],
        ]
        for row in result["records"]
    ]
    head = ["case", "ours us", "baseline us", "ratio", "error", "baseline"]
    return "\n".join([*lines, table(head, cells, left=(0, 5))])
