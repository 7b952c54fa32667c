"""Models out of a study: written, reloaded in a clean process, and recorded with what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from evaluators.audit.audit import audit_export
from evaluators.audit.files import check_files
from evaluators.audit.truth import LATENCY_TOLERANCE, Truth
from evaluators.audit.values import Audit
from kernels.errors import NasError
from search_spaces.export.names import safe_name
from search_spaces.export.values import checked_form, checked_formats
from search_spaces.export.write import checksum, export_network, read_manifest
from search_spaces.pack import pack
from studies.audits import KIND as AUDIT
from studies.audits import audit_now, keep_audit, read_audit
from studies.config import StudyConfig
from studies.export_truth import Wanted, study_device, truth_of
from studies.front import front
from studies.storage import Repository, StudyRecord, TrialRecord
from studies.workspace import Workspace


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


@dataclass(frozen=True, slots=True)
class Refused:
    """A model that could not be exported.

    Attributes:
        study: name of the study.
        trial: number of the trial.
        key: of its network.
        reason: why.
    """

    study: str
    trial: int
    key: str
    reason: str


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
    on_refused: Callable[[Refused], None] | None = None,
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
        on_refused: called with each that cannot be exported, which then does not keep the others
            from it.

    Yields:
        each as it is done.

    Raises:
        NasError: there is no such study or trial, or no point at all, or this is no place to export
            any; without ``on_refused`` also where one cannot be exported.
    """
    place = Workspace.of(workspace)
    numbers = [item.trial for item in front(place, study)] if trials is None else list(trials)
    if not numbers:
        raise NasError(f"The study {study!r} has no point to export.")
    with place.open(create=False) as repository:
        wanted = _wanted(place, repository, study, form=form, to=to, device=device)
        found = [_trial(repository, wanted.study, number) for number in dict.fromkeys(numbers)]
        for trial in found:
            folder = Path(directory) / folder_name(study, trial.key, form)
            try:
                made = _export(repository, wanted, trial, folder, latency_tolerance)
            except NasError as problem:
                if on_refused is None:
                    raise
                on_refused(Refused(study, trial.number, trial.key, str(problem)))
            else:
                yield made


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


def folder_name(study: str, key: str, form: str) -> str:
    """Return the name of the folder that a point is exported to, unless one is given."""
    return f"{safe_name(study)}-{key[:12]}-{form}"


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
        keep_audit(wanted.place, repository, wanted.study.id, trial, audit_now(audit, folder))
    return Exported(folder, wanted.study.name, trial.number, trial.key, audit, reused)


def _earlier(
    repository: Repository, wanted: Wanted, trial: TrialRecord, folder: Path, truth: Truth
) -> Audit | None:
    """Return the audit of an export that stands there, is still whole, and passed."""
    if not (folder / "export.json").is_file():
        return None
    if not all(check.passed for check in check_files(folder, truth)):
        return None
    shipped = pack(truth.architecture, truth.module, wanted.form)
    state = {name: item.contiguous() for name, item in shipped.state_dict().items()}
    stated = read_manifest(folder)["files"]["model.safetensors"]["sha256"]
    if checksum(save(state)) != stated:
        return None
    manifest = checksum((folder / "export.json").read_bytes())
    for artifact in reversed(repository.artifacts(trial.id)):
        if artifact.kind != AUDIT:
            continue
        try:
            record = read_audit(wanted.place, artifact.content_hash)
        except NasError:  # its file was lost: the export is audited anew
            continue
        if record.manifest == manifest and record.audit.passed:
            return record.audit
    return None
