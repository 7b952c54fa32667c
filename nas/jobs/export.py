"""The job of ``nas export``: models out of a study, each reloaded and measured again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluators.audit.values import HEADER, Audit
from kernels.errors import NasError, UnknownNameError
from nas.jobs.common import Json, point_json, study_name
from nas.jobs.trials import find_trial
from nas.tables import table
from search_spaces.export.compare import compare
from studies.exports import Exported, export_points, export_trial
from studies.front import FrontPoint, front
from studies.storage import TrialRecord
from studies.workspace import Workspace

_LARGEST = "outputs of "


def export(
    run: Path,
    study: str | None,
    names: Sequence[str],
    *,
    best: bool = False,
    every: bool = False,
    form: str = "plain",
    to: Sequence[str] = ("python",),
    device: str | None = None,
    out: Path | None = None,
) -> list[Json]:
    """Export points of a study and audit each.

    Args:
        run: directory of the run.
        study: name of the study, where the run holds several.
        names: numbers of trials, or beginnings of keys of the front.
        best: also the most accurate point of the front, to ``best`` in the run.
        every: the whole front.
        form: ``plain`` or ``packed``.
        to: formats.
        device: where to measure; that of the study by default.
        out: directory that the exports are made in; ``exports`` in the run by default.

    Raises:
        NasError: there is no such study, point, form or format, or a point cannot be exported.
    """
    name = study_name(run, study)
    points = front(run, name)
    with Workspace.of(run).open(create=False) as repository:
        trials = repository.trials(repository.study(name).id)
    if not points:
        raise NasError(f"The study {name!r} has no trained candidate to export.")
    numbers = [point.trial for point in points] if every else _numbers(name, points, trials, names)
    made: list[Exported] = []
    if numbers:
        place = run / "exports" if out is None else out
        made += export_points(run, name, numbers, place, form=form, to=to, device=device)
    if best or not numbers:
        most = max(points, key=lambda point: point.values["accuracy"].value)
        made.append(
            export_trial(run, name, most.trial, run / "best", form=form, to=to, device=device)
        )
    return [_json(run, item) for item in made]


def export_text(exports: Sequence[Json]) -> str:
    """Say where exports are, what their audits found, and how far it is from the study."""
    parts = []
    for item in exports:
        audit = Audit.from_json(item["audit"])
        alone = "torch alone" if audit.form == "plain" else "this package"
        verdict = f"reloaded with {alone}, same outputs" if audit.passed else "AUDIT FAILED"
        earlier = " (of an earlier export that is still whole)" if item["reused"] else ""
        lines = [
            f"{item['directory']}: {item['key'][:8]}, {verdict}{earlier}",
            table(HEADER, audit.rows()),
            *audit.remarks(),
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def compare_points(run: Path, study: str | None, first: str, second: str) -> Json:
    """Set the networks of two trials side by side, by number or beginning of the key.

    Raises:
        NasError: there is no such study or trial.
    """
    name = study_name(run, study)
    with Workspace.of(run).open(create=False) as repository:
        trials = repository.trials(repository.study(name).id)
        found = [find_trial(trials, item, name) for item in (first, second)]
        networks = [repository.architecture(item.key) for item in found]
    comparison = compare(networks[0], networks[1])
    return {
        "study": name,
        "trials": [item.number for item in found],
        "keys": [item.key for item in found],
        "lines": [
            {"mark": line.mark, "name": line.name, "first": line.first, "second": line.second}
            for line in comparison.lines
        ],
        "params": list(comparison.params),
        "macs": list(comparison.macs),
        "text": str(comparison),
    }


def comparison_text(result: Json) -> str:
    """Write what differs between two networks."""
    (first, second), keys = result["trials"], [key[:8] for key in result["keys"]]
    return f"trial {first} ({keys[0]}) -> trial {second} ({keys[1]})\n{result['text']}"


def export_point(run: Path, point: FrontPoint, directory: Path) -> Json:
    """Export one point to a folder as plain PyTorch, and audit it.

    Raises:
        NasError: it has no trained weights.
    """
    with Workspace.of(run).open(create=False) as repository:
        study = next(
            record.name
            for record in repository.studies(archived=True)
            for trial in repository.trials(record.id, number=point.trial)
            if trial.id == point.trial_id
        )
    audit = export_trial(run, study, point.trial, directory).audit
    return {**audit.to_json(), "max_difference": _largest_difference(audit)}


def _largest_difference(audit: Audit) -> float:
    found = [item.found for item in audit.checks if item.name.startswith(_LARGEST)]
    return max((value for value in found if value is not None), default=float("inf"))


def _json(run: Path, made: Exported) -> Json:
    with Workspace.of(run).open(create=False) as repository:
        record = repository.study(made.study)
        (trial,) = repository.trials(record.id, number=made.trial)
    point = FrontPoint(trial.key, trial.text, trial.decisions, trial.values, trial.number, trial.id)
    return {
        "directory": str(made.directory),
        "study": made.study,
        **point_json(point),
        "passed": made.audit.passed,
        "reused": made.reused,
        "audit": made.audit.to_json(),
    }


def _numbers(
    study: str,
    points: Sequence[FrontPoint],
    trials: list[TrialRecord],
    names: Sequence[str],
) -> list[int]:
    found = []
    for name in names:
        matches = [point for point in points if point.key.startswith(name.lower())]
        if len(matches) == 1:
            found.append(matches[0].trial)
        elif name.isdecimal():
            found.append(find_trial(trials, name, study).number)
        else:
            raise UnknownNameError("point of the front", name, [item.key[:12] for item in points])
    return found
