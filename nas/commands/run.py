"""What is done with a run: ``nas front``, ``nas show``, ``nas export``; and ``nas train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kernels.errors import NasError
from nas.commands.shared import AsJson, Device, Run, Study, complete_data, complete_recipe
from nas.output import progress
from nas.output import show as print_result

Compare = Annotated[
    tuple[str, str] | None,
    typer.Option(
        help="Print what differs between two networks, and export nothing: trials of the run, "
        "JSON files, RUN:KEY or text in quotes.",
        metavar="A B",
    ),
]


def front(
    run: Run,
    study: Study = None,
    confirm: Annotated[
        int, typer.Option(min=0, help="Train each point from so many seeds.", metavar="K")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Test the front's points, print them, and write front.csv and front.html."""
    from nas.jobs import front as job

    print_result(job.front(run, study, confirm=confirm), as_json=as_json, text=job.front_text)


def show(
    run: Run,
    trial: Annotated[
        str | None, typer.Argument(help="Number of a trial, or beginning of its key.")
    ] = None,
    study: Study = None,
    as_json: AsJson = False,
) -> None:
    """Show a study at a glance, or all that is known of one trial."""
    from nas.jobs import showing as job
    from nas.jobs import showing_text as texts

    if trial is None:
        print_result(job.show_run(run, study), as_json=as_json, text=texts.run_text)
    else:
        print_result(job.show_trial(run, study, trial), as_json=as_json, text=texts.trial_text)


def train(
    architecture: Annotated[
        str, typer.Argument(help="JSON file, RUN:KEY, or the text form in quotes.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set, as in 'nas search'; by default that of the study of RUN:KEY.",
            autocompletion=complete_data,
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="How to train: a name, FILE.toml, or either with ?field=value.",
            autocompletion=complete_recipe,
        ),
    ] = "full",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.", metavar="N")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.", metavar="N")] = 0,
    device: Device = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.", metavar="N")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory for weights and figures; seeds in it are kept.", metavar="DIR"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train one architecture from several seeds and test each."""
    from nas.jobs import training as job

    result = job.train(
        architecture,
        data=data,
        recipe=recipe,
        seeds=seeds,
        first_seed=first_seed,
        device=device,
        threads=threads,
        out=out,
    )
    print_result(result, as_json=as_json, text=job.train_text)


def export(
    run: Annotated[
        Path | None,
        typer.Argument(help="Directory of a run, as --out of 'nas search' named it."),
    ] = None,
    points: Annotated[
        list[str] | None, typer.Argument(help="Keys of the front, or numbers of trials.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="The most accurate, to RUN/best.")] = False,
    every: Annotated[bool, typer.Option("--all", help="The whole front.")] = False,
    form: Annotated[
        str, typer.Option(help="plain (torch alone) or packed (our kernels).")
    ] = "plain",
    to: Annotated[
        str, typer.Option(help="python, pt2, onnx, safetensors; with commas.")
    ] = "python",
    out: Annotated[
        Path | None, typer.Option(help="Directory of the exports; RUN/exports by default.")
    ] = None,
    compare: Compare = None,
    latency_tolerance: Annotated[
        float,
        typer.Option(min=0, help="How much slower a packed export may be.", metavar="SHARE"),
    ] = 0.15,
    study: Study = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Write points as PyTorch files; reload and measure each in a clean process as a check.

    Interrupted, the same command goes on where it was.
    """
    from nas.jobs import export as job

    if compare is not None:
        compared = job.compare_networks(run, study, compare)
        print_result(compared, as_json=as_json, text=job.comparison_text)
        return
    if run is None:
        raise NasError("Name the run to export from: nas export RUN [POINTS].")
    formats = [item.strip() for item in to.split(",") if item.strip()]
    exports = job.export(
        run,
        study,
        points or [],
        best=best,
        every=every,
        form=form,
        to=formats,
        device=device,
        latency_tolerance=latency_tolerance,
        out=out,
        on_progress=progress,
    )
    print_result(exports, as_json=as_json, text=job.export_text)
    if not all(item["passed"] for item in exports):
        raise typer.Exit(1)
