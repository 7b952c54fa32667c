"""The command line: parse, call the library, print.

Results go to standard output (with ``--json`` for machines), progress to standard error. Exit
codes: 0 done, 1 a check did not pass, 2 the input cannot be used (one line says why), 130
interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kernels.errors import NasError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: importing rich would double the time to the first line
    pretty_exceptions_enable=False,
    help="Hardware-aware architecture search with measured latency.",
)

Run = Annotated[Path, typer.Argument(help="Directory of a run, as --out of 'nas search' named it.")]
Study = Annotated[str | None, typer.Option(help="Study, where the run holds several.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def search(
    space: Annotated[str | None, typer.Argument(help="Name of a space, or FILE.py[:NAME].")] = None,
    out: Annotated[Path, typer.Option(help="Directory of the run.")] = Path("runs/search"),
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    data: Annotated[str | None, typer.Option(help="Data set.")] = None,
    objectives: Annotated[str | None, typer.Option(help="Metrics, with commas.")] = None,
    trials: Annotated[int | None, typer.Option(help="Candidates to evaluate in full.")] = None,
    recipe: Annotated[str | None, typer.Option(help="How candidates are trained.")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, nsga2 or random.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the search and of every training.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a training.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search a space; the same command goes on where it was interrupted."""
    from nas import jobs

    given = {
        "name": name,
        "space": space,
        "data": data,
        "objectives": objectives.split(",") if objectives is not None else None,
        "trials": trials,
        "recipe": recipe,
        "sampler": sampler,
        "seed": seed,
        "device": device,
        "threads": threads,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    summary = jobs.search(settings, config=config, out=out, say=_progress)
    _print(summary, as_json=as_json, text=jobs.summary_text(summary))


@app.command()
def front(run: Run, study: Study = None, as_json: AsJson = False) -> None:
    """Test the front's points, print them, and write front.csv and front.html."""
    from nas import jobs

    points = jobs.front(run, study)
    _print(points, as_json=as_json, text=jobs.front_text(points))


@app.command()
def export(
    run: Run,
    points: Annotated[list[str] | None, typer.Argument(help="Keys, or their beginnings.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The most accurate, to RUN/best.")] = False,
    study: Study = None,
    as_json: AsJson = False,
) -> None:
    """Write points as plain PyTorch (source and safetensors), and reload each as a check."""
    from nas import jobs

    exports = jobs.export(run, study, points or [], best=best)
    _print(exports, as_json=as_json, text=jobs.export_text(exports))
    if not all(item["passed"] for item in exports):
        raise typer.Exit(1)


@app.command()
def spaces(
    names: Annotated[list[str] | None, typer.Argument(help="Spaces to size; all if none.")] = None,
    input_shape: Annotated[str, typer.Option(help="Of one sample, CxHxW.")] = "3x32x32",
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 10,
    as_json: AsJson = False,
) -> None:
    """List search spaces and how many candidates each has."""
    from nas import jobs

    rows = jobs.spaces(names or [], input_shape, classes)
    _print(rows, as_json=as_json, text="\n".join(f"{row['name']}: {row['size']}" for row in rows))


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="'candidates': drawing and scoring.")] = "candidates",
    space: Annotated[str, typer.Option(help="Where candidates are drawn from.")] = "mobile-cnn",
    seconds: Annotated[float, typer.Option(help="Processor time to spend.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Measure how fast candidates are sampled, shape-checked, hashed and scored on one core."""
    from nas import jobs

    result = jobs.bench(what, space, seconds)
    text = (
        f"{result['median']:,.0f} candidates a second on one core (p10 {result['p10']:,.0f}, "
        f"p90 {result['p90']:,.0f}; {result['candidates']:,} of {space}, "
        f"{result['nodes']:.1f} nodes each)"
    )
    _print(result, as_json=as_json, text=text)


def main() -> None:
    """Run the command line; an error of the user's is one line and exit code 2."""
    try:
        app()
    except NasError as problem:
        print(f"nas: {problem}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _print(result: Any, *, as_json: bool, text: str) -> None:
    print(json.dumps(result, indent=1) if as_json else text)  # noqa: T201
