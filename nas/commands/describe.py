"""What needs no run: ``nas profile``, ``nas spaces``, ``nas doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.commands.shared import AsJson, Data, Device, complete_space
from nas.output import progress, show


def profile(
    space: Annotated[
        str,
        typer.Argument(help="Name of a space, or FILE.py[:NAME].", autocompletion=complete_space),
    ],
    data: Data,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="A bound to check; may be repeated.", metavar="METRIC<=NUMBER"),
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=10, help="Random candidates to draw.", metavar="N")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.", metavar="N")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="A run: tell what was measured there to pay.", metavar="DIR"),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Tell how large a space is, what its networks cost, and which constraints it can meet.

    Exit code 1 if a constraint is met by nothing that was found.
    """
    from nas.jobs import profiling as job
    from nas.jobs.profiling_text import profile_text

    result = job.profile(
        space,
        data=data,
        constraints=constraint or [],
        candidates=candidates,
        seed=seed,
        device=device,
        out=out,
        say=progress,
    )
    show(result, as_json=as_json, text=profile_text)
    if any(item["met"] == "not found" for item in result["constraints"]):
        raise typer.Exit(1)


def spaces(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Spaces to size; all if none.", autocompletion=complete_space),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Of one sample: CxHxW [3x32x32], or tokens of text [128].", metavar="SHAPE"
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(help="Of images [10]; of text, the vocabulary's size [65].", metavar="N"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List search spaces and how many candidates each has."""
    from nas.jobs import spaces as job

    rows = job.spaces(names or [], input_shape, classes, say=progress)
    show(rows, as_json=as_json, text=job.spaces_text)


def doctor(as_json: AsJson = False) -> None:
    """Look at device, driver, libraries and folders; say what is missing and how to get it.

    Exit code 1 if something that is needed is broken.
    """
    from nas.jobs import doctor as job

    result = job.doctor()
    show(result, as_json=as_json, text=job.doctor_text)
    if not result["healthy"]:
        raise typer.Exit(1)
