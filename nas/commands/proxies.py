"""``nas proxies``: scores that need no training, how far to trust them, and what they improve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nas.commands.shared import AsJson, Device, Run, Study, complete_data, complete_space
from nas.output import progress, show


class _RunByDefault(TyperGroup):
    """Takes ``nas proxies RUN`` for ``nas proxies check RUN``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; what is none and no option is a run."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["check", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_RunByDefault, no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

Network = Annotated[
    str,
    typer.Argument(
        help="JSON file, RUN:KEY, the text form in quotes, torchvision:NAME or FILE.py:FUNCTION.",
        metavar="NETWORK",
    ),
]
InputShape = Annotated[
    str | None, typer.Option(help="Of a model to trace: CxHxW [3x224x224].", metavar="SHAPE")
]
Params = Annotated[float | None, typer.Option(help="Most parameters.", metavar="X")]
Macs = Annotated[float | None, typer.Option(help="Most multiply-accumulates.", metavar="X")]
Out = Annotated[
    Path | None,
    typer.Option(help="Write JSON files here, for 'nas search --enqueue'.", metavar="DIR"),
]


@app.command(short_help="A study's proxies against its own trained trials.")
def check(run: Run, study: Study = None, as_json: AsJson = False) -> None:
    """Compare each proxy with what this study's own training found; also as 'nas proxies RUN'.

    A proxy that ranks the trained trials worse than their parameter count does is switched off.
    """
    from nas.jobs import proxies as job

    show(job.check(run, study), as_json=as_json, text=job.check_text)


@app.command(short_help="Proxies on a table of results.")
def bench(
    table: Annotated[
        list[Path], typer.Argument(help="CSV files of the table.", metavar="FILE.csv[.gz]...")
    ],
    truth: Annotated[
        list[str] | None,
        typer.Option(help="Column of qualities; may be repeated.", metavar="COLUMN"),
    ] = None,
    space: Annotated[
        str,
        typer.Option(help="What the rows are candidates of.", autocompletion=complete_space),
    ] = "nas-bench-201",
    networks: Annotated[
        int, typer.Option(min=0, help="Random networks to take; 0: all.", metavar="N")
    ] = 1000,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Score of fresh networks to compute too; may be repeated."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Of the fresh networks.", metavar="N")] = 5,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set whose images jacob_cov and naswot see; without it, noise.",
            autocompletion=complete_data,
        ),
    ] = None,
    device: Device = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Fresh networks at a time.", metavar="N")
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File of each fresh network's scores; the same command goes on from it.",
            metavar="FILE.jsonl",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build networks of a table, score them, and compare the ranking with their qualities.

    Networks that nothing of the input passes through are left out. The sample is always the same.
    """
    from nas.jobs import proxies as job

    result = job.bench(
        table,
        truth=truth or [],
        space=space,
        networks=networks,
        proxies=proxy or [],
        seeds=seeds,
        data=data,
        device=device,
        processes=processes,
        out=out,
        say=progress,
    )
    show(result, as_json=as_json, text=job.bench_text)


@app.command(short_help="Choose the depths of a network's stages.")
def organise(
    network: Network,
    params: Params = None,
    macs: Macs = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Most layers.", metavar="N")] = None,
    latency_ms: Annotated[
        float | None, typer.Option(help="Most milliseconds of a sample, measured.", metavar="X")
    ] = None,
    results: Annotated[int, typer.Option(min=1, help="Choices to print.", metavar="N")] = 3,
    most: Annotated[
        int, typer.Option(min=1, help="Blocks that a stage may have.", metavar="N")
    ] = 8,
    input_shape: InputShape = None,
    device: Device = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Find the depths of a network's stages with the most 3DRF gain; the search is exact.

    Without budgets, the result has at most the parameters and multiply-accumulates of the network.
    """
    from nas.jobs import improving as job

    result = job.organised(
        network,
        input_shape=input_shape,
        params=params,
        macs=macs,
        layers=layers,
        latency_ms=latency_ms,
        device=device,
        results=results,
        most=most,
        out=out,
        say=progress,
    )
    show(result, as_json=as_json, text=job.organised_text)


@app.command(short_help="Choose the kinds of a network's kernels.")
def kernels(
    network: Network,
    params: Params = None,
    macs: Macs = None,
    input_shape: InputShape = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Swap convolutions for cheaper kernels where that costs the least 3DRF gain.

    Without budgets, the result has at most half the parameters of the network.
    """
    from nas.jobs import improving as job

    result = job.rekernelled(network, input_shape=input_shape, params=params, macs=macs, out=out)
    show(result, as_json=as_json, text=job.rekernelled_text)
