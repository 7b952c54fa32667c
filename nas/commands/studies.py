"""``nas studies``: the studies of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.commands.shared import AsJson, Run
from nas.output import show

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, compare, archive, delete and export the studies of a run.",
)
Name = Annotated[str, typer.Argument(help="Name of the study.")]


@app.command("list")
def list_(
    run: Run,
    archived: Annotated[bool, typer.Option("--archived", help="Those in the archive too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the studies, oldest first."""
    from nas.jobs import recorded as job

    show(job.listed(run, archived=archived), as_json=as_json, text=job.listed_text)


@app.command("show")
def show_(run: Run, name: Name, as_json: AsJson = False) -> None:
    """Show one at a glance, as 'nas show RUN --study NAME' does."""
    from nas.jobs.showing import show_run
    from nas.jobs.showing_text import run_text

    show(show_run(run, name), as_json=as_json, text=run_text)


@app.command()
def compare(
    run: Run,
    names: Annotated[list[str], typer.Argument(help="Two studies or more.")],
    as_json: AsJson = False,
) -> None:
    """Compare the fronts of studies of the same objectives."""
    from nas.jobs import recorded as job

    show(job.compared(run, names), as_json=as_json, text=job.compared_text)


@app.command()
def archive(
    run: Run,
    name: Name,
    back: Annotated[bool, typer.Option("--back", help="Take it back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a study where lists leave it out; nothing of it is lost."""
    from nas.jobs import recorded as job

    show(job.archived(run, name, back=back), as_json=as_json, text=job.archived_text)


@app.command()
def delete(
    run: Run,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Though a process runs it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a study for good; evaluations that other studies may find stay."""
    from nas.jobs import recorded as job

    if not yes:
        typer.confirm(f"Delete the study {name!r} of {run} for good?", abort=True, err=True)
    show(job.deleted(run, name, force=force), as_json=as_json, text=job.deleted_text)


@app.command()
def export(
    run: Run,
    name: Name,
    to: Annotated[str, typer.Argument(help="File, or URL of an Optuna storage.")],
    kind: Annotated[
        str, typer.Option("--format", help="csv, json or optuna.", metavar="FORMAT")
    ] = "csv",
    as_json: AsJson = False,
) -> None:
    """Write all trials of a study for other tools."""
    from nas.jobs import recorded as job

    show(job.exported(run, name, kind, to), as_json=as_json, text=job.exported_text)
