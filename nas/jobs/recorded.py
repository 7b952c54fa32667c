"""The jobs of ``nas studies``: the studies of a run listed, compared, put away and written out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from kernels.errors import UnknownNameError
from nas.figures import number
from nas.jobs.common import Json
from nas.tables import table
from studies.manage import (
    StudyLine,
    archive_study,
    compare_studies,
    delete_study,
    list_studies,
)
from studies.metrics import parse_metric
from studies.optuna_export import export_optuna
from studies.storage import TrialState
from studies.study_export import export_csv, export_json

_FORMATS = {"csv": export_csv, "json": export_json, "optuna": export_optuna}
FORMATS = tuple(_FORMATS)


def listed(run: Path, *, archived: bool) -> list[Json]:
    """Return the studies of a run.

    Raises:
        NasError: there is no record.
    """
    return [_line_json(line) for line in list_studies(run, archived=archived)]


def _line_json(line: StudyLine) -> Json:
    return {
        "name": line.name,
        "space": line.space,
        "objectives": list(line.objectives),
        "counts": {str(state): count for state, count in line.counts.items()},
        "created": line.created.isoformat(),
        "last_activity": line.last_activity.isoformat(),
        "best": line.best,
        "archived": line.archived,
        "driver": None if line.driver is None else f"{line.driver.host}, process {line.driver.pid}",
    }


def listed_text(lines: Sequence[Json]) -> str:
    """Write studies as a table."""
    if not lines:
        return "There is no study."
    rows = []
    for line in lines:
        first = line["objectives"][0]
        best = "" if line["best"] is None else f"{first} {number(first, line['best'])}"
        counts = line["counts"]
        rows.append(
            [
                line["name"] + (" (archived)" if line["archived"] else ""),
                line["space"],
                str(counts[TrialState.COMPLETE]),
                str(sum(counts.values())),
                best,
                line["last_activity"][:16].replace("T", " "),
                "running" if line["driver"] else "",
            ]
        )
    header = ["study", "space", "complete", "trials", "best", "last active (UTC)", ""]
    return table(header, rows, left=(0, 1, 4, 6))


def compared(run: Path, names: Sequence[str]) -> Json:
    """Compare the fronts of studies.

    Raises:
        NasError: there is no such study, or their objectives differ.
    """
    return dataclasses.asdict(compare_studies(run, names))


def compared_text(result: Json) -> str:
    """Write a comparison: what each front reaches and how much of the others' it covers."""
    objectives = [str(parse_metric(name, own=True)) for name in result["objectives"]]
    names = [item["name"] for item in result["studies"]]
    rows = [
        [
            item["name"],
            str(item["complete"]),
            str(item["front"]),
            f"{item['hypervolume']:.4f}",
            *(
                "" if value is None else number(name, value)
                for name, value in zip(objectives, item["best"], strict=True)
            ),
            *("-" if other == item["name"] else f"{item['covers'][other]:.0%}" for other in names),
        ]
        for item in result["studies"]
    ]
    header = ["study", "complete", "front", "hypervolume"]
    header += [f"best {name}" for name in objectives] + [f"covers {name}" for name in names]
    point = zip(objectives, result["reference"], strict=False)
    reference = ", ".join(f"{name} {number(name, value)}" for name, value in point)
    return (
        f"{table(header, rows)}\n\n"
        f"Hypervolume: share of the box up to the reference ({reference}) that the front "
        "dominates.\nCovers: share of the other's front that its own equals or dominates."
    )


def archived(run: Path, name: str, *, back: bool) -> Json:
    """Put a study into the archive, or take it back."""
    record = archive_study(run, name, archived=not back)
    return {"name": record.name, "archived": record.archived}


def archived_text(result: Json) -> str:
    """Say where a study is now."""
    place = "is in the archive; nothing of it is lost" if result["archived"] else "is listed again"
    return f"The study {result['name']!r} {place}."


def deleted(run: Path, name: str, *, force: bool) -> Json:
    """Delete a study for good."""
    return {"name": name, "trials": delete_study(run, name, force=force)}


def deleted_text(result: Json) -> str:
    """Say what was deleted."""
    return f"Deleted the study {result['name']!r} with {result['trials']} trials."


def exported(run: Path, name: str, kind: str, target: str) -> Json:
    """Write a study for other tools.

    Raises:
        NasError: the format is unknown, there is no such study, or the target cannot be written.
    """
    if kind not in _FORMATS:
        raise UnknownNameError("format", kind, _FORMATS)
    return {"name": name, "format": kind, **dataclasses.asdict(_FORMATS[kind](run, name, target))}


def exported_text(result: Json) -> str:
    """Say what was written."""
    skipped = f", {result['skipped']} still run and are left out" if result["skipped"] else ""
    return f"{result['target']}: {result['trials']} trials of {result['name']!r}{skipped}."
