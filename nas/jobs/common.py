"""What several jobs need: which study of a run is meant, and fronts as values and as tables."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernels.errors import NasError
from nas.figures import figure, number
from nas.tables import table
from studies.front import FrontPoint
from studies.storage import Repository
from studies.workspace import Workspace

Json = dict[str, Any]

_PIPE_WIDTH = 1000
MOST_WIDTH = 110
"""Of running text, however wide the terminal is."""


def study_name(run: Path, study: str | None) -> str:
    """Return the study that is meant: the one named, or the only one of the run.

    Raises:
        NasError: there is no record, or it holds none or several studies.
    """
    with Workspace.of(run).open(create=False) as repository:
        return chosen_study(repository, run, study)


def chosen_study(repository: Repository, run: Path, study: str | None) -> str:
    """See :func:`study_name`."""
    if study is not None:
        return repository.study(study).name
    names = [record.name for record in repository.studies()]
    if not names:
        raise NasError(f"{run} holds no study; make one with: nas search SPACE --out {run}.")
    if len(names) > 1:
        raise NasError(f"{run} holds the studies {', '.join(names)}; choose one with --study.")
    return names[0]


def point_json(point: FrontPoint) -> Json:
    """Return a point of a front as plain values."""
    return {
        "key": point.key,
        "trial": point.trial,
        "text": point.text,
        "values": {name: dataclasses.asdict(value) for name, value in point.values.items()},
    }


def screen_width() -> int:
    """Return how many characters a line may have: those of the terminal, many in a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_WIDTH


def front_table(points: Sequence[Json], metrics: Sequence[str]) -> str:
    """Write points as a table; where the terminal is narrow, without spreads."""
    title = f"{len(points)} {'point' if len(points) == 1 else 'points'} on the front"
    if not points:
        return title
    shown = [name for name in metrics if any(name in point["values"] for point in points)]
    header = ["key", "trial", *shown]
    wide = [
        [*_names(point), *(figure(name, point["values"].get(name)) for name in shown)]
        for point in points
    ]
    text = table(header, wide)
    if max(map(len, text.splitlines())) > screen_width():
        narrow = [
            [*_names(point), *(_bare(name, point["values"].get(name)) for name in shown)]
            for point in points
        ]
        text = table(header, narrow)
    return f"{title}\n{text}"


def _names(point: Json) -> list[str]:
    return [point["key"][:8], str(point["trial"])]


def _bare(name: str, value: Json | None) -> str:
    return "" if value is None else number(name, value["value"])
