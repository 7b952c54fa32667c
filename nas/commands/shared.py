"""What several commands share: options, and completion of names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

Names = Callable[[str], list[str]]


def _starting(names: Callable[[], Iterable[str]]) -> Names:
    """Complete by the names that begin with what is typed; what cannot be read has none."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _spaces() -> list[str]:
    from search_spaces.zoo import space_names

    return space_names()


def _samplers() -> Iterable[str]:
    from studies.samplers import SAMPLERS

    return SAMPLERS


def _recipes() -> Iterable[str]:
    from evaluators.accuracy.recipe_reference import recipe_names

    return recipe_names()


def _data_sets() -> Iterable[str]:
    from evaluators.accuracy.data import DATASETS

    return DATASETS.names()


def _metrics() -> list[str]:
    from studies.metrics import METRICS

    return [name for name, kind in METRICS.items() if kind.searchable]


complete_space = _starting(_spaces)
complete_sampler = _starting(_samplers)
complete_recipe = _starting(_recipes)
complete_data = _starting(_data_sets)


def complete_metrics(incomplete: str) -> list[str]:
    """Complete the last of several metrics with commas between them."""
    done, comma, last = incomplete.rpartition(",")
    return [f"{done}{comma}{name}" for name in _metrics() if name.startswith(last)]


_ITEMS = re.compile(r",(?![^\[]*\])")
"""Commas between metrics, not those in their brackets."""


def items_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return metrics that are given one by one, or with commas between them.

    Example:
        >>> items_of(["params, latency_ms[batch=8,cache=cold]", "macs"])
        ('params', 'latency_ms[batch=8,cache=cold]', 'macs')
    """
    return tuple(item.strip() for text in texts for item in _ITEMS.split(text))


Run = Annotated[Path, typer.Argument(help="Directory of a run, as --out of 'nas search' named it.")]
Study = Annotated[str | None, typer.Option(help="Study, where the run holds several.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Data = Annotated[
    str,
    typer.Option(
        help="Data set: a name, npz:PATH, folder:PATH or FILE.py:FUNCTION.",
        autocompletion=complete_data,
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:1; a GPU where there is one by default.")
]
