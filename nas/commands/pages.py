"""A run's pages: ``nas dashboard`` serves them, ``nas report`` writes them into one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.commands.shared import AsJson, Run, Study
from nas.output import show


def dashboard(
    run: Annotated[
        Path | None,
        typer.Argument(help="Directory of a run; by default the one in use last under ./runs."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; the default is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 takes a free one. [8765, or a free one]"),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Browse a run while it goes on or afterwards; Ctrl-C ends it and disturbs no study."""
    from nas.jobs import pages as job

    job.dashboard(
        run,
        host=host,
        port=port,
        browser=browser,
        ready=lambda result: show(result, as_json=as_json, text=job.dashboard_text),
    )


def report(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; RUN/report.html by default.")
    ] = None,
    study: Study = None,
    trials: Annotated[
        int, typer.Option(min=0, help="Candidates whose own pages are put in.", metavar="N")
    ] = 200,
    as_json: AsJson = False,
) -> None:
    """Write the pages of a study into one file that needs no server and no network."""
    from nas.jobs import pages as job

    show(job.report(run, study, out, trials=trials), as_json=as_json, text=job.report_text)
