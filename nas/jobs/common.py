"""What several jobs need: which study of a run is meant, and fronts as values and as tables."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kernels.errors import NasError
from nas.figures import figure, number
from nas.tables import table
from search_spaces.architecture.text import variants_by_kind
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
    """Return a point of a front, or a baseline with its name, as plain values."""
    return {
        **({"name": point.name} if point.name else {}),
        "key": point.key,
        "trial": point.trial,
        "text": point.text,
        "values": {name: dataclasses.asdict(value) for name, value in point.values.items()},
    }


def screen_width() -> int:
    """Return how many characters a line may have: those of the terminal, many in a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_WIDTH


def front_table(
    points: Sequence[Json], metrics: Sequence[str], baselines: Sequence[Json] = ()
) -> str:
    """Write points as a table, baselines below them; where the terminal is narrow, no spreads.

    Networks with variants say how many layers have one of which kind.
    """
    title = f"{len(points)} {'point' if len(points) == 1 else 'points'} on the front"
    everything = [*points, *baselines]
    if not everything:
        return title
    shown = [name for name in metrics if any(name in point["values"] for point in everything)]
    wide = _table(points, baselines, shown, figure)
    fits = max(map(len, wide.splitlines())) <= screen_width()
    return f"{title}\n{wide if fits else _table(points, baselines, shown, _bare)}"


def _table(
    points: Sequence[Json],
    baselines: Sequence[Json],
    metrics: Sequence[str],
    write: Callable[[str, Json | None], str],
) -> str:
    rows = [
        [
            point["key"][:8],
            str(point["trial"]),
            *(write(name, point["values"].get(name)) for name in metrics),
            variants_by_kind(point.get("text", "")),
            point.get("name", ""),
        ]
        for point in (*points, *baselines)
    ]
    varied = any(row[-2] for row in rows)
    header = ["key", "trial", *metrics]
    header += ["variants" if varied else "", "baseline" if baselines else ""]
    return table(header, rows, left=(0, len(header) - 2, len(header) - 1))


def _bare(name: str, value: Json | None) -> str:
    return "" if value is None else number(name, value["value"])
