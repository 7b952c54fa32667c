"""``nas bench``: how fast this installation is, how good its samplers, how fast its kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.commands.shared import AsJson, complete_space
from nas.output import progress, show

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

SYSTEMS = (
    "arbitrary-precision",
    "dual-module",
    "extended-precision",
    "shfl-bw",
    "sliding-channel",
)
"""Kernel systems, a command each."""

From = Annotated[
    str, typer.Option(help="Where candidates are drawn from.", autocompletion=complete_space)
]


@app.command(short_help="Drawing and scoring candidates.")
def candidates(
    space: From = "mobile-cnn",
    seconds: Annotated[float, typer.Option(help="Processor time to spend.", metavar="X")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Measure how fast candidates are drawn and scored."""
    from nas.jobs import spaces as job

    show(job.bench_candidates(space, seconds), as_json=as_json, text=job.bench_candidates_text)


@app.command(short_help="Recording trials.")
def record(
    space: From = "mobile-cnn",
    trials: Annotated[int, typer.Option(min=2001, help="Trials to record.", metavar="N")] = 10_000,
    as_json: AsJson = False,
) -> None:
    """Measure what recording a study's trials costs, and reading them again."""
    from nas.jobs import spaces as job

    result = job.bench_record(space, trials, say=progress)
    show(result, as_json=as_json, text=job.bench_record_text)


@app.command(short_help="Samplers on a table of results.")
def search(
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="Columns: a quality, then costs; '?' behind those known without payment. May be "
            "repeated.",
            metavar="QUALITY,COST[?]",
        ),
    ] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option(help="A sampler, or optuna:NAME for one as it comes. May be repeated."),
    ] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option(help="CSV file of the table; may be repeated.", metavar="FILE.csv[.gz]"),
    ] = None,
    space: Annotated[str, typer.Option(help="What the rows are candidates of.")] = "nas-bench-201",
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each kind.", metavar="N")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first.", metavar="N")] = 0,
    paid: Annotated[int, typer.Option(min=1, help="Rows to pay for.", metavar="N")] = 200,
    pending: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Trials in flight; may be repeated.", metavar="N"),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Searches at a time.", metavar="N")] = 2,
    out: Annotated[
        Path | None,
        typer.Option(help="Keeps searches; those in it are not run again.", metavar="FILE.jsonl"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare samplers on a table: hypervolume found against rows paid for, as a share of all."""
    from nas.jobs import benchmark as job

    result = job.bench(
        tables=table or [],
        space=space,
        tasks=task or list(job.TASKS),
        samplers=sampler or list(job.SAMPLERS),
        seeds=seeds,
        first_seed=first_seed,
        paid=paid,
        pending=pending or [1],
        processes=processes,
        file=out,
        say=progress,
    )
    show(result, as_json=as_json, text=job.bench_text)


def _kernels(system: str) -> None:
    """Add the command of a kernel system."""

    @app.command(system, short_help="Kernels beside their baselines.")
    def kernels(
        case: Annotated[
            str, typer.Option(help="Only cases whose names contain this.", metavar="TEXT")
        ] = "",
        out: Annotated[Path | None, typer.Option(help="A JSON file of all that was found.")] = None,
        compile_only: Annotated[
            bool, typer.Option("--compile", help="Compile all kernels and stop; needs no GPU.")
        ] = False,
        commit: Annotated[str, typer.Option(help="Recorded with the results.")] = "",
        as_json: AsJson = False,
    ) -> None:
        """Time the system's cases of record beside their baselines on this GPU.

        Some compile and check first what will run. Exit code 1 if a check does not hold.
        """
        from nas.jobs import kernels as job

        result = job.bench(
            system, case=case, out=out, compile_only=compile_only, commit=commit, say=progress
        )
        show(result, as_json=as_json, text=job.bench_text)
        if not all(row["passed"] for row in result.get("checks", [])):
            raise typer.Exit(1)


for _system in SYSTEMS:
    _kernels(_system)
