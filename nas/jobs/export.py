"""The job of ``nas export``: models out of a study, each reloaded and measured again."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluators.audit.truth import LATENCY_TOLERANCE
from evaluators.audit.values import HEADER, Audit
from kernels.errors import NasError, UnknownNameError
from nas.figures import duration
from nas.jobs.common import Json, point_json, study_name
from nas.jobs.training import find_architecture
from nas.jobs.trials import find_trial, recorded_trial
from nas.tables import table
from search_spaces.architecture import Architecture
from search_spaces.export.compare import compare
from studies.exports import Exported, Refused, export_points, export_trial
from studies.front import FrontPoint, front
from studies.metrics import best_first, quality_of
from studies.storage import TrialRecord
from studies.workspace import Workspace

_ELSEWHERE = re.compile(r"[ ;:./\\]")
"""In a name, it says that no trial is meant: these have numbers and keys."""


@dataclass(frozen=True, slots=True)
class _How:
    """What all exports of a command have in common."""

    form: str
    to: Sequence[str]
    device: str | None
    latency_tolerance: float


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
    latency_tolerance: float = LATENCY_TOLERANCE,
    out: Path | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> list[Json]:
    """Export points of a study and audit each.

    Args:
        run: directory of the run.
        study: name of the study, where the run holds several.
        names: numbers of trials, or beginnings of keys of the front.
        best: also the most accurate point of the front (of a language model that of least loss),
            to ``best`` in the run.
        every: the whole front.
        form: ``plain`` or ``packed``.
        to: formats.
        device: where to measure; that of the study by default.
        latency_tolerance: how much slower a packed export may be.
        out: directory that the exports are made in; ``exports`` in the run by default.
        on_progress: called with a line for each export of several that is done.

    Returns:
        an item for each, with whether it ``passed``; for one that could not be exported, with the
        ``reason`` and no audit.

    Raises:
        NasError: there is no such study, point, form or format, or nothing could be exported.
    """
    name = study_name(run, study)
    points = front(run, name)
    with Workspace.of(run).open(create=False) as repository:
        trials = repository.trials(repository.study(name).id)
    if not points:
        raise NasError(f"The study {name!r} has no trained candidate to export.")
    numbers = [point.trial for point in points] if every else _numbers(name, points, trials, names)
    how = _How(form, to, device, latency_tolerance)
    made: list[Exported | Refused] = []
    if numbers:
        made += _export_several(run, name, numbers, out or run / "exports", how, on_progress)
    if best or not numbers:
        most = min(points, key=lambda point: _order(name, point))
        made.append(export_trial(run, name, most.trial, run / "best", **asdict(how)))
    if all(isinstance(item, Refused) for item in made):
        raise NasError(next(item.reason for item in made if isinstance(item, Refused)))
    return [_json(run, item) for item in made]


def export_text(exports: Sequence[Json]) -> str:
    """Say where exports are, what their audits found, and how far it is from the study."""
    return "\n\n".join(map(_export_text, exports))


def _export_text(item: Json) -> str:
    if "audit" not in item:
        return f"trial {item['trial']} ({item['key'][:8]}) was not exported: {item['reason']}"
    audit = Audit.from_json(item["audit"])
    alone = "torch alone" if audit.form == "plain" else "this package"
    verdict = f"reloaded with {alone}, same outputs" if audit.passed else "AUDIT FAILED"
    earlier = " (of an earlier export that is still whole)" if item["reused"] else ""
    lines = [
        f"{item['directory']}: {item['key'][:8]}, {verdict}{earlier}",
        table(HEADER, audit.rows()),
        *audit.remarks(),
    ]
    return "\n".join(lines)


def compare_networks(run: Path | None, study: str | None, names: tuple[str, str]) -> Json:
    """Set two networks side by side.

    Args:
        run: directory of a run.
        study: name of the study, where the run holds several.
        names: of each network: number or beginning of the key of a trial of the study; or what
            :func:`nas.jobs.training.find_architecture` reads.

    Raises:
        NasError: one cannot be found.
    """
    pair = [_network(run, study, name) for name in names]
    comparison = compare(pair[0], pair[1])
    return {
        "names": list(names),
        "keys": [item.key for item in pair],
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
    (first, second), keys = result["names"], [key[:8] for key in result["keys"]]
    return f"{first} ({keys[0]}) -> {second} ({keys[1]})\n{result['text']}"


def _network(run: Path | None, study: str | None, name: str) -> Architecture:
    if run is None or _ELSEWHERE.search(name):
        return find_architecture(name)[0]
    found = study_name(run, study)
    with Workspace.of(run).open(create=False) as repository:
        trial = recorded_trial(repository, repository.study(found), name)
        return repository.architecture(trial.key)


def _export_several(
    run: Path,
    study: str,
    numbers: Sequence[int],
    place: Path,
    how: _How,
    on_progress: Callable[[str], None],
) -> list[Exported | Refused]:
    """Export trials, and say of each of several that it is done, and how."""
    total = len(set(numbers))
    made: list[Exported | Refused] = []

    def tell(item: Exported | Refused) -> None:
        made.append(item)
        if total > 1:
            head = f"[{len(made)}/{total}] trial {item.trial} {item.key[:8]}"
            on_progress(f"{head} {_outcome(item)}")

    for item in export_points(run, study, numbers, place, on_refused=tell, **asdict(how)):
        tell(item)
    return made


def _outcome(item: Exported | Refused) -> str:
    if isinstance(item, Refused):
        return f"not exported: {item.reason}"
    verdict = "passed" if item.audit.passed else "AUDIT FAILED"
    took = "as it was" if item.reused else f"in {duration(item.audit.seconds)}"
    return f"{verdict} {took}, {item.directory}"


def _order(study: str, point: FrontPoint) -> float:
    """Return a key by which the most accurate point, or that of least loss, comes first."""
    quality = quality_of(point.values)
    if quality is None:
        raise NasError(f"The study {study!r} trained nothing; name the points to export.")
    return best_first(quality, point.values[quality].value)


def _json(run: Path, made: Exported | Refused) -> Json:
    if isinstance(made, Refused):
        return {
            "study": made.study,
            "trial": made.trial,
            "key": made.key,
            "passed": False,
            "reason": made.reason,
        }
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
    numbers = {str(trial.number) for trial in trials}
    for name in names:
        matches = [point for point in points if point.key.startswith(name.lower())]
        if name in numbers:  # a key may begin with the same digits
            found.append(int(name))
        elif len(matches) == 1:
            found.append(matches[0].trial)
        elif name.isdecimal():
            found.append(find_trial(trials, name, study).number)
        else:
            raise UnknownNameError("point of the front", name, [item.key[:12] for item in points])
    return found
