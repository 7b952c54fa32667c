"""The jobs of ``nas dashboard`` and ``nas report``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dashboards.report import write_report
from dashboards.server import serve
from kernels.errors import NasError
from nas.jobs.common import Json, study_name

RUNS = Path("runs")
"""Where a run is looked for when none is named."""
_RECORD = "record.db"


def dashboard(
    run: Path | None,
    *,
    host: str,
    port: int | None,
    browser: bool,
    ready: Callable[[Json], None],
) -> None:
    """Serve the pages of a run until interrupted, which is how it ends.

    Args:
        run: its directory; None takes the one that was written to last, see :func:`newest_run`.
        host: address to listen at.
        port: to listen at; None takes the usual one, or a free one where that is taken.
        browser: whether to open the page.
        ready: given what is served where, once it is.

    Raises:
        NasError: there is no run, its record cannot be read, or the port is taken.
    """
    chosen = newest_run() if run is None else run

    def tell(address: str) -> None:
        ready({"run": str(chosen), "address": address})

    with suppress(KeyboardInterrupt):
        serve(chosen, host=host, port=port, open_browser=browser, on_ready=tell)


def dashboard_text(result: Json) -> str:
    """Say where the page is."""
    return f"{result['run']}: {result['address']}  (Ctrl-C ends the dashboard, no study)"


def newest_run() -> Path:
    """Return this directory if it holds a record, else the one under ``runs`` written to last.

    Raises:
        NasError: there is none.
    """
    if Path(_RECORD).is_file():
        return Path()
    found = [path.parent for path in RUNS.glob(f"*/{_RECORD}")]
    if not found:
        raise NasError(f"No run is named, and {RUNS}/ holds none; name one: nas dashboard RUN.")
    return max(found, key=_written)


def _written(run: Path) -> float:
    """Return when a record was written to: what is new is in the log beside it."""
    files = (run / _RECORD, run / f"{_RECORD}-wal")
    return max(path.stat().st_mtime for path in files if path.exists())


def report(run: Path, study: str | None, out: Path | None, *, trials: int) -> Json:
    """Write the pages of a study into one file.

    Args:
        run: its directory.
        study: where the run holds several.
        out: the file; ``report.html`` in the run by default.
        trials: candidates whose own pages are put in.

    Raises:
        NasError: there is no such study, or the file cannot be written.
    """
    name = study_name(run, study)
    target = run / "report.html" if out is None else out
    if target.is_dir():
        raise NasError(f"{target} is a directory; give the file: -o {target / 'report.html'}.")
    try:
        path = write_report(run, name, target, trials=trials)
    except OSError as problem:
        raise NasError(f"Cannot write {target}: {problem.strerror or problem}.") from None
    return {"study": name, "path": str(path), "bytes": path.stat().st_size}


def report_text(result: Json) -> str:
    """Say what was written."""
    size = result["bytes"] / 1e6
    return f"{result['path']}: the pages of {result['study']!r} in one file, {size:.1f} MB"
