"""What each command does: joins the packages below and returns plain values to print."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dashboards.from_study import read_front
from dashboards.front_page import write_front_page
from evaluators.audit import audit_plain
from kernels.errors import NasError, UnknownNameError
from nas.bench import candidate_throughput
from nas.tables import table
from search_spaces.build import build, load_weights
from search_spaces.export.plain import export_plain
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space, space_names
from studies.config import StudyConfig
from studies.front import FrontPoint, finish_front, write_front_csv
from studies.search import Progress, run_study
from studies.workspace import Workspace

Json = dict[str, Any]

_MAIN_METRICS = ("accuracy", "test_accuracy", "latency_ms", "params", "macs")


def search(
    settings: Mapping[str, Any], *, config: Path | None, out: Path, say: Callable[[str], None]
) -> Json:
    """Run a study, or go on with it; progress is said line by line."""
    if config is None and "space" not in settings:
        raise NasError(f"Name a space: nas search SPACE. Known: {', '.join(space_names())}.")
    defaults = {"name": out.resolve().name, "data": "digits"}
    if config is None:
        study = StudyConfig(**{**defaults, **settings})
    else:
        study = StudyConfig.from_toml(config, defaults, **settings)

    def report(progress: Progress) -> None:
        say(_progress_line(progress, study))

    summary = run_study(study, out, on_progress=report)
    return {
        "study": summary.study,
        "run": str(out),
        "ending": str(summary.ending),
        "message": summary.message,
        "complete": summary.complete,
        "failed": summary.failed,
        "repeats": summary.repeats,
        "seconds": summary.seconds,
        "objectives": list(study.objectives),
        "front": [_point(point) for point in summary.front],
    }


def _progress_line(progress: Progress, study: StudyConfig) -> str:
    trial = progress.trial
    head = f"[{progress.complete}/{progress.trials}] trial {trial.number} {trial.key[:8]}"
    if trial.reason is not None:
        return f"{head} {trial.state}: {trial.reason}"
    figures = [f"{name} {_number(name, trial.values[name].value)}" for name in study.objectives]
    return f"{head} {', '.join(figures)}"


def summary_text(summary: Json) -> str:
    """Say how a search ended, with its front."""
    counts = (
        f"{summary['complete']} trained, {summary['failed']} failed, {summary['repeats']} repeats "
        f"in {summary['seconds']:.0f} s"
    )
    front = front_text(summary["front"], metrics=summary["objectives"])
    return f"{summary['message']} {counts}.\n{front}"


def front(run: Path, study: str | None) -> list[Json]:
    """Test the points of a front and write its table and page into the run's directory."""
    name = _study_name(run, study)
    points = finish_front(run, name)
    write_front_csv(points, run / "front.csv")
    write_front_page(read_front(run, name), run / "front.html")
    return [_point(point) for point in points]


def front_text(points: Sequence[Json], metrics: Sequence[str] = _MAIN_METRICS) -> str:
    """Write a front as a table for the terminal."""
    shown = [name for name in metrics if any(name in point["values"] for point in points)]
    rows = [
        [point["key"][:8], *(_cell(name, point["values"].get(name)) for name in shown)]
        for point in points
    ]
    title = f"{len(points)} points on the front"
    return f"{title}\n{table(['key', *shown], rows)}" if points else title


def export(run: Path, study: str | None, keys: Sequence[str], *, best: bool) -> list[Json]:
    """Export points of a front as plain PyTorch and reload each in a clean process."""
    name = _study_name(run, study)
    points = finish_front(run, name)
    if not points:
        raise NasError(f"The study {name!r} has no trained candidate to export.")
    chosen = {f"exports/{point.key[:12]}": point for point in _matching(points, keys)}
    if best or not keys:
        chosen["best"] = max(points, key=lambda point: point.values["accuracy"].value)
    return [_export_one(run, name, point, run / place) for place, point in chosen.items()]


def _matching(points: Sequence[FrontPoint], keys: Sequence[str]) -> list[FrontPoint]:
    found = []
    for key in keys:
        matches = [point for point in points if point.key.startswith(key)]
        if len(matches) != 1:
            raise UnknownNameError("point of the front", key, [point.key[:12] for point in points])
        found += matches
    return found


def _export_one(run: Path, study: str, point: FrontPoint, directory: Path) -> Json:
    place = Workspace.of(run)
    with place.open(create=False) as repository:
        architecture = repository.architecture(point.key)
        dense_key = repository.detail(point.trial_id, "accuracy")["dense_key"]
    module = build(architecture)
    load_weights(module, architecture, place.weights.load(dense_key))
    export_plain(architecture, module, directory)
    audit = audit_plain(directory)
    return {
        "directory": str(directory),
        "study": study,
        **_point(point),
        **dataclasses.asdict(audit),
    }


def export_text(exports: Sequence[Json]) -> str:
    """Say where exports are and what their check found."""
    lines = []
    for item in exports:
        verdict = "reloaded with torch alone, same outputs" if item["passed"] else "CHECK FAILED"
        lines.append(
            f"{item['directory']}: {item['key'][:8]}, {verdict} "
            f"(largest difference {item['max_difference']:.1e} at scale {item['output_scale']:.1f})"
        )
    return "\n".join(lines)


def spaces(names: Sequence[str], input_shape: str, classes: int) -> list[Json]:
    """Return name, version and size of search spaces."""
    try:
        shape = tuple(int(size) for size in input_shape.split("x"))
        if len(shape) != 3 or min(shape) < 1 or classes < 1:
            raise ValueError
    except ValueError:
        raise NasError(
            f"Expected --input-shape CxHxW and --classes, got {input_shape!r} and {classes}."
        ) from None
    rows = []
    for name in names or space_names():
        space = load_space(name)
        size = space.size(DataSpec(shape, classes))
        rows.append(
            {
                "name": space.name,
                "version": space.version,
                "size": str(size),
                "count": size.count,
                "low": size.low,
                "high": size.high,
                "exact": size.exact,
            }
        )
    return rows


def bench(what: str, space: str, seconds: float) -> Json:
    """Measure the throughput of candidates."""
    if what != "candidates":
        raise UnknownNameError("benchmark", what, ["candidates"])
    result = candidate_throughput(load_space(space), DataSpec((3, 32, 32), 10), seconds=seconds)
    return dataclasses.asdict(result)


def _study_name(run: Path, study: str | None) -> str:
    if study is not None:
        return study
    with Workspace.of(run).open(create=False) as repository:
        names = [record.name for record in repository.studies()]
    if len(names) != 1:
        raise NasError(f"{run} holds the studies {names}; choose one with --study.")
    return names[0]


def _point(point: FrontPoint) -> Json:
    return {
        "key": point.key,
        "trial": point.trial,
        "text": point.text,
        "values": {name: dataclasses.asdict(value) for name, value in point.values.items()},
    }


def _cell(name: str, value: Mapping[str, float | None] | None) -> str:
    if value is None or value["value"] is None:
        return ""
    text = _number(name, value["value"])
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} ({_number(name, value['low'])} to {_number(name, value['high'])})"


def _number(name: str, value: float) -> str:
    if "accuracy" in name:
        return f"{100 * value:.1f}%"
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"
