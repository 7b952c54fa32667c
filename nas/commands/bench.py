"""``nas bench search``, beside what else ``nas bench`` measures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nas.commands.describe import bench as others
from nas.commands.shared import AsJson
from nas.output import progress, show

_OTHERS = "others"


class _BenchGroup(TyperGroup):
    """Hands everything to the command of the other benchmarks that is not a command of its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the command first."""
        if not args or args[0] not in self.commands:
            args = [_OTHERS, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_BenchGroup, add_completion=False, rich_markup_mode=None)
app.command(_OTHERS, hidden=True)(others)


@app.command("search")
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
