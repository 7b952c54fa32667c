"""``nas search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from nas.commands.shared import AsJson
from nas.output import show

Out = Annotated[
    Path | None,
    typer.Option(
        help="Directory of the run; runs/NAME by default, by --name, the settings file or the "
        "space.",
        metavar="DIR",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="TOML file of settings, named as the flags are; flags win over it.",
        metavar="FILE.toml",
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        help="Keep the record in a server: postgresql://USER@HOST/NAME. Said once, at the start; "
        "the directory remembers it.",
        metavar="URL",
    ),
]
Plain = Annotated[
    bool, typer.Option("--plain", help="A line for each trial, as where there is no terminal.")
]


class SearchCommand(TyperCommand):
    """Takes its flags from the settings of a study, which are loaded when it is called, not before.

    So ``nas --help`` stays quick.
    """

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Make the flags first."""
        full = typer.Typer(add_completion=False)
        full.command()(_with_settings())
        made = typer.main.get_command(full)
        self.params, self.callback = made.params, made.callback
        return super().make_context(*args, **kwargs)


def search() -> None:
    """Search a space; the same command goes on where it was interrupted."""
    raise AssertionError("SearchCommand replaces this function")


def _with_settings() -> Any:
    import inspect

    from nas.commands.settings import signed

    own = inspect.signature(_run, eval_str=True).parameters.values()
    return signed(_run, [item for item in own if item.kind is item.KEYWORD_ONLY])


def _run(
    *,
    out: Out = None,
    config: Config = None,
    database: Database = None,
    plain: Plain = False,
    as_json: AsJson = False,
    **values: Any,
) -> None:
    from nas.commands.settings import given_settings
    from nas.jobs import search as job

    summary = job.search(
        given_settings(values), config=config, out=out, database=database, plain=plain
    )
    show(summary, as_json=as_json, text=job.summary_text)
    if not summary["complete"]:
        raise typer.Exit(1)
