"""The job of ``nas search``: settings from flags and file, a study, and how it is watched."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kernels.errors import NasError
from nas.figures import duration
from nas.jobs.common import Json, front_table, point_json
from nas.live.lines import progress_line
from nas.output import progress
from search_spaces.zoo import space_names
from studies.config import StudyConfig
from studies.flight import Progress
from studies.search import StudySummary, make_executor, run_study
from studies.workspace import Workspace


def search(settings: Mapping[str, Any], *, config: Path | None, out: Path, plain: bool) -> Json:
    """Run a study, or go on with it.

    Args:
        settings: those given as flags.
        config: TOML file of others.
        out: directory of the run.
        plain: say a line for each trial, though there is a terminal.
    """
    study = _settings(settings, config, out)
    if plain or not _can_draw():
        summary = run_study(study, out, on_progress=lambda item: _say(item, study))
    else:
        summary = _run_live(study, out)
    return {
        "study": summary.study,
        "run": str(out),
        "ending": str(summary.ending),
        "message": summary.message,
        "complete": summary.complete,
        "failed": summary.failed,
        "repeats": summary.repeats,
        "dropped": dict(summary.dropped),
        "seconds": summary.seconds,
        "objectives": list(study.names),
        "front": [point_json(point) for point in summary.front],
    }


def summary_text(summary: Json) -> str:
    """Say how a search ended, with its front."""
    counts = [f"{summary['complete']} complete"]
    counts += [f"{summary[word]} {word}" for word in ("failed", "repeats") if summary[word]]
    counts += [f"{count} dropped at {stage}" for stage, count in summary["dropped"].items()]
    front = front_table(summary["front"], summary["objectives"])
    ended = f"{summary['message']} {', '.join(counts)} in {duration(summary['seconds'])}."
    return f"{ended}\n\n{front}"


def _settings(settings: Mapping[str, Any], config: Path | None, out: Path) -> StudyConfig:
    if config is None and not {"space", "from_model"} & settings.keys():
        raise NasError(f"Name a space: nas search SPACE. Known: {', '.join(space_names())}.")
    defaults = {"name": out.resolve().name, "data": "digits"}
    if config is None:
        return StudyConfig(**{**defaults, **settings})
    return StudyConfig.from_toml(config, defaults, **settings)


def _can_draw() -> bool:
    """Tell whether standard error is a terminal on which what was written can be drawn over."""
    if not sys.stderr.isatty():
        return False
    from rich.console import Console

    return not Console(stderr=True).is_dumb_terminal


def _say(item: Progress, study: StudyConfig) -> None:
    progress(progress_line(item, study.names))


def _run_live(study: StudyConfig, out: Path) -> StudySummary:
    # Rich is loaded only where it draws.
    from nas.live.board import Board
    from nas.live.view import LiveView
    from nas.live.watch import WatchedExecutor

    place = Workspace.of(out)
    recorded, spent = _recorded(study, place)
    board = Board(study, recorded, spent_seconds=spent)
    executor = WatchedExecutor(make_executor(study, place), board)
    with LiveView(board, f"{study.name}: {study.space} on {study.data}"):
        return run_study(study, place, executor=executor, on_progress=board.ended)


def _recorded(study: StudyConfig, place: Workspace) -> tuple[list[Any], float]:
    """Return the trials of earlier runs, and the seconds they spent evaluating."""
    if place.database is None and not (place.root / "record.db").is_file():
        return [], 0.0
    with place.open(create=False) as repository:
        found = repository.find_study(study.name)
        if found is None:
            return [], 0.0
        spent = sum(repository.seconds_spent(found.id).values())
        return repository.trials(found.id), spent
