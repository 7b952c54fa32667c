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
from search_spaces.zoo import plain_name, space_names
from studies.config import StudyConfig, read_toml
from studies.flight import Progress
from studies.front import baselines
from studies.search import StudySummary, make_executor, run_study
from studies.workspace import Workspace


def search(
    settings: Mapping[str, Any],
    *,
    config: Path | None,
    out: Path | None,
    database: str | None = None,
    plain: bool,
) -> Json:
    """Run a study, or go on with it.

    Args:
        settings: those given as flags.
        config: TOML file of others; it may say ``out`` too.
        out: directory of the run; by default ``runs/NAME``, by the name of the study, of the
            settings file, or of the space.
        database: URL of the server that keeps the record, if the directory does not say so yet.
        plain: say a line for each trial, though there is a terminal.
    """
    study, out = _settings(settings, config, out)
    place = Workspace.of(out)
    if database is not None:
        place = place.with_database(database)
    if plain or not _can_draw():
        summary = run_study(study, place, on_progress=lambda item: _say(item, study))
    else:
        summary = _run_live(study, place)
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
        "notes": list(summary.notes),
        "objectives": list(study.names),
        "front": [point_json(point) for point in summary.front],
        "baselines": [point_json(point) for point in baselines(out, summary.study)],
    }


def summary_text(summary: Json) -> str:
    """Say how a search ended, with its front."""
    counts = [f"{summary['complete']} complete"]
    counts += [f"{summary[word]} {word}" for word in ("failed", "repeats") if summary[word]]
    counts += [f"{count} dropped at {stage}" for stage, count in summary["dropped"].items()]
    front = front_table(summary["front"], summary["objectives"], summary["baselines"])
    ended = f"{summary['message']} {', '.join(counts)} in {duration(summary['seconds'])}."
    return "\n\n".join(["\n".join([ended, *summary["notes"]]), front])


def _settings(
    settings: Mapping[str, Any], config: Path | None, out: Path | None
) -> tuple[StudyConfig, Path]:
    document = {} if config is None else read_toml(config)
    place = document.pop("out", None)
    if not isinstance(place, str | None):
        raise NasError(f"{config}: Setting 'out': expected a path, got {place!r}.")
    given = {**document, **settings}
    if not {"space", "from_model"} & given.keys():
        raise NasError(f"Name a space: nas search SPACE. Known: {', '.join(space_names())}.")
    if out is None:
        out = Path(place) if place else Path("runs") / _name(given, config)
    defaults = {"name": out.resolve().name, "data": "digits"}
    if config is None:
        return StudyConfig(**{**defaults, **settings}), out
    return StudyConfig.from_document(document, config, defaults, **settings), out


def _name(given: Mapping[str, Any], config: Path | None) -> str:
    """Return what a run is called where nobody says."""
    if "name" in given:
        return str(given["name"])
    if config is not None:
        return config.stem
    return plain_name(str(given.get("space") or given["from_model"]))


def _can_draw() -> bool:
    """Tell whether standard error is a terminal on which what was written can be drawn over."""
    if not sys.stderr.isatty():
        return False
    from rich.console import Console

    return not Console(stderr=True).is_dumb_terminal


def _say(item: Progress, study: StudyConfig) -> None:
    progress(progress_line(item, study.names))


def _run_live(study: StudyConfig, place: Workspace) -> StudySummary:
    # Rich is loaded only where it draws.
    from nas.live.board import Board
    from nas.live.view import LiveView
    from nas.live.watch import WatchedExecutor

    recorded, spent = _recorded(study, place)
    board = Board(study, recorded, spent_seconds=spent)
    executor = WatchedExecutor(make_executor(study, place), board)
    with LiveView(board, f"{study.name}: {study.space} on {study.data}"):
        return run_study(study, place, executor=executor, on_progress=board.ended)


def _recorded(study: StudyConfig, place: Workspace) -> tuple[list[Any], float]:
    """Return the trials of earlier runs, and the seconds they spent evaluating."""
    if place.database is None and not (place.root / "record.db").is_file():
        return [], 0.0
    with place.open() as repository:
        found = repository.find_study(study.name)
        if found is None:
            return [], 0.0
        spent = sum(repository.seconds_spent(found.id).values())
        return repository.trials(found.id), spent
