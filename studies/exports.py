"""Models out of a study: written, reloaded in a clean process, and recorded with what it found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save

from evaluators.audit.audit import audit_export
from evaluators.audit.files import check_files
from evaluators.audit.truth import LATENCY_TOLERANCE, Truth
from evaluators.audit.values import Audit
from kernels.errors import NasError
from search_spaces.export.names import safe_name
from search_spaces.export.values import checked_form, checked_formats
from search_spaces.export.write import checksum, export_network, read_manifest
from studies.config import StudyConfig
from studies.export_truth import Wanted, study_device, truth_of
from studies.front import front
from studies.storage import Artifact, Repository, StudyRecord, TrialRecord
from studies.workspace import Workspace

KIND = "audit"
"""Kind of the artifact that holds an audit."""
EVENT = "exported"
"""Kind of the event that says so."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A model that was exported.

    Attributes:
        directory: the folder.
        study: name of the study.
        trial: number of the trial.
        key: of its network.
        audit: what came of reloading it.
        reused: whether it was there already, whole and audited, and nothing was done.
    """

    directory: Path
    study: str
    trial: int
    key: str
    audit: Audit
    reused: bool = False


def export_points(
    workspace: Workspace | Path | str,
    study: str,
    trials: Sequence[int] | None,
    directory: Path | str,
    *,
    form: str = "plain",
    to: Sequence[str] = ("python",),
    device: str | None = None,
    latency_tolerance: float = LATENCY_TOLERANCE,
) -> Iterator[Exported]:
    """Export trials of a study, each to a folder of its own, and audit each.

    Interrupted, it goes on where it was: folders that are whole, say what the record says and
    passed their audit are kept.

    Args:
        workspace: where the study is kept.
        study: its name.
        trials: their numbers; None for the whole front.
        directory: that the folders are made in, named by study, key and form.
        form: ``plain`` or ``packed``.
        to: formats, see ``search_spaces.export.values``.
        device: where to measure; that of the study by default.
        latency_tolerance: see :func:`evaluators.audit.audit.audit_export`.

    Yields:
        each as it is done.

    Raises:
        NasError: there is no such study or trial, or one cannot be exported.
    """
    place = Workspace.of(workspace)
    numbers = [item.trial for item in front(place, study)] if trials is None else list(trials)
    if not numbers:
        raise NasError(f"The study {study!r} has no point to export.")
    with place.open(create=False) as repository:
        wanted = _wanted(place, repository, study, form=form, to=to, device=device)
        found = [_trial(repository, wanted.study, number) for number in dict.fromkeys(numbers)]
        for trial in found:
            folder = Path(directory) / f"{safe_name(study)}-{trial.key[:12]}-{form}"
            yield _export(repository, wanted, trial, folder, latency_tolerance)


def export_trial(
    workspace: Workspace | Path | str,
    study: str,
    trial: int,
    directory: Path | str,
    *,
    form: str = "plain",
    to: Sequence[str] = ("python",),
    device: str | None = None,
    latency_tolerance: float = LATENCY_TOLERANCE,
) -> Exported:
    """Export one trial to a folder that is named, and audit it; else as :func:`export_points`."""
    place = Workspace.of(workspace)
    with place.open(create=False) as repository:
        wanted = _wanted(place, repository, study, form=form, to=to, device=device)
        found = _trial(repository, wanted.study, trial)
        return _export(repository, wanted, found, Path(directory), latency_tolerance)


def audits(workspace: Workspace | Path | str, study: str, trial: int) -> list[Audit]:
    """Return what the audits of a trial's exports found, oldest first.

    Raises:
        NasError: there is no such study or trial, or the file of an audit is not there.
    """
    place = Workspace.of(workspace)
    with place.open(create=False) as repository:
        found = _trial(repository, repository.study(study), trial)
        return [Audit.from_json(item["audit"]) for item in _documents(place, repository, found)]


def _wanted(
    place: Workspace,
    repository: Repository,
    study: str,
    *,
    form: str,
    to: Sequence[str],
    device: str | None,
) -> Wanted:
    record = repository.study(study)
    config = StudyConfig(**record.config)
    return Wanted(
        place=place,
        study=record,
        config=config,
        form=checked_form(form),
        to=checked_formats(to),
        device=study_device(config, device),
    )


def _trial(repository: Repository, study: StudyRecord, number: int) -> TrialRecord:
    found = repository.trials(study.id, number=number)
    if not found:
        raise NasError(f"The study {study.name!r} has no trial {number}.")
    return found[0]


def _export(
    repository: Repository, wanted: Wanted, trial: TrialRecord, folder: Path, tolerance: float
) -> Exported:
    truth = truth_of(repository, wanted, trial)
    audit = _earlier(repository, wanted, trial, folder, truth)
    reused = audit is not None
    if audit is None:
        export_network(truth.architecture, truth.module, folder, truth.order)
        audit = audit_export(folder, truth, latency_tolerance=tolerance)
        _keep(repository, wanted, trial, folder, audit)
    return Exported(folder, wanted.study.name, trial.number, trial.key, audit, reused)


def _earlier(
    repository: Repository, wanted: Wanted, trial: TrialRecord, folder: Path, truth: Truth
) -> Audit | None:
    """Return the audit of an export that stands there, is still whole, and passed."""
    if not (folder / "export.json").is_file():
        return None
    if not all(check.passed for check in check_files(folder, truth)):
        return None
    state = {name: item.contiguous() for name, item in truth.module.state_dict().items()}
    stated = read_manifest(folder)["files"]["model.safetensors"]["sha256"]
    if checksum(save(state)) != stated:
        return None
    manifest = checksum((folder / "export.json").read_bytes())
    for document in reversed(_documents(wanted.place, repository, trial)):
        audit = Audit.from_json(document["audit"])
        if document["manifest"] == manifest and audit.passed:
            return audit
    return None


def _keep(
    repository: Repository, wanted: Wanted, trial: TrialRecord, folder: Path, audit: Audit
) -> None:
    """Record an audit: the whole as an artifact, the gist as an event of the trial."""
    manifest = checksum((folder / "export.json").read_bytes())
    document = {"audit": audit.to_json(), "manifest": manifest, "directory": str(folder)}
    content = (json.dumps(document, indent=1) + "\n").encode()
    digest = checksum(content)
    place = _artifact_path(wanted.place, digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    number = sum(item.kind == KIND for item in repository.artifacts(trial.id))
    name = f"audit-{number:03d}-{audit.form}-{'-'.join(audit.formats)}.json"
    repository.add_artifact(trial.id, Artifact(name, KIND, digest, len(content)))
    gist: dict[str, Any] = {
        "trial": trial.number,
        "form": audit.form,
        "to": list(audit.formats),
        "passed": audit.passed,
        "failed": [check.name for check in audit.failures],
        "directory": str(folder),
    }
    repository.add_event(wanted.study.id, EVENT, gist)


def _documents(
    place: Workspace, repository: Repository, trial: TrialRecord
) -> list[dict[str, Any]]:
    found = []
    for artifact in repository.artifacts(trial.id):
        if artifact.kind == KIND:
            path = _artifact_path(place, artifact.content_hash)
            try:
                found.append(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError):
                raise NasError(
                    f"The audit {artifact.name} of trial {trial.number} cannot be read: {path}; "
                    "were the artifacts moved?"
                ) from None
    return found


def _artifact_path(place: Workspace, digest: str) -> Path:
    return place.root / "artifacts" / f"{digest}.json"
