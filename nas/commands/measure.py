"""``nas measure``: figures of the device, each paid once a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.commands.proxies import InputShape
from nas.commands.search import Database
from nas.commands.shared import AsJson, Data, Device, complete_metrics, complete_space, items_of
from nas.output import show

What = Annotated[
    list[str] | None,
    typer.Argument(
        help="Spaces (a name, FILE.py[:NAME]) and networks (JSON file, RUN:KEY, the text form "
        "in quotes, torchvision:NAME); with --list or --export, a run's directory.",
        metavar="SPACE|NETWORK|RUN...",
        autocompletion=complete_space,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        "--metrics",
        "--objective",
        "--objectives",
        help="latency_ms, energy_mj or peak_memory_mb, with conditions: latency_ms[batch=8]. "
        "[latency_ms]",
        metavar="METRIC,...",
        autocompletion=complete_metrics,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Directory of the run; by default runs/SPACE, RUN of RUN:KEY, or runs/measured.",
        metavar="DIR",
    ),
]
Trials = Annotated[int, typer.Option(min=1, help="Random networks of each space.", metavar="N")]
Seed = Annotated[int, typer.Option(min=0, help="Of the draws.", metavar="N")]
Repeat = Annotated[
    int,
    typer.Option(min=1, help="Measure so often, to see the noise; the mean counts.", metavar="N"),
]
List = Annotated[
    bool, typer.Option("--list", help="Print what the run's record holds; measure nothing.")
]
Versions = Annotated[
    bool, typer.Option("--versions", help="With --list: driver, libraries, kernels.")
]
Export = Annotated[
    Path | None,
    typer.Option(
        help="Write what the run's record holds; measure nothing.", metavar="FILE.csv|.json"
    ),
]


Variants = Annotated[
    bool,
    typer.Option(
        "--variants", help="Time what is offered for each layer, in place of whole networks."
    ),
]


def measure(
    what: What = None,
    metrics: Metrics = None,
    trials: Trials = 20,
    seed: Seed = 0,
    data: Data = "digits",
    input_shape: InputShape = None,
    repeat: Repeat = 1,
    variants: Variants = False,
    device: Device = None,
    out: Out = None,
    database: Database = None,
    list_: List = False,
    versions: Versions = False,
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Measure networks on the device into a run's record, where searches find the figures.

    What is in the record is not measured again. Exit code 1 if a figure could not be had.
    """
    from nas.jobs import measurements as reading
    from nas.jobs import measuring_text as texts

    if export is not None or list_:
        run = reading.run_of(what or [], out)
        if export is not None:
            show(reading.exported(run, export), as_json=as_json, text=texts.exported_text)
        else:
            text = partial(texts.recorded_text, versions=versions)
            show(reading.recorded(run), as_json=as_json, text=text)
        return
    wanted: dict[str, Any] = {
        "metrics": items_of(metrics or ["latency_ms"]),
        "trials": trials,
        "seed": seed,
        "data": data,
        "input_shape": input_shape,
        "device": device,
        "out": out,
    }
    if variants:
        from nas.jobs import offers

        table = offers.measured_offers(what or [], **wanted)
        show(table, as_json=as_json, text=offers.offers_text)
        return
    from nas.jobs import measuring as job

    result = job.measured(what or [], repeat=repeat, database=database, **wanted)
    show(result, as_json=as_json, text=texts.measured_text)
    if any(item["how"] == "failed" for item in result["measurements"]):
        raise typer.Exit(1)
