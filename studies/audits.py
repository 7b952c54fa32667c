"""What audits found, as the record keeps it: the whole as an artifact, the gist as an event.

Who shows audits needs this file alone: ``audits`` for a trial of a workspace, ``read_audit`` for
one artifact of kind :data:`KIND`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluators.audit.values import Audit
from kernels.errors import NasError
from search_spaces.export.write import checksum
from studies.storage import Artifact, Repository, TrialRecord
from studies.workspace import Workspace

KIND = "audit"
"""Kind of the artifact that holds an audit."""
EVENT = "exported"
"""Kind of the event that says so."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An audit, and what it was made of.

    Attributes:
        audit: what was found.
        directory: where the export was then.
        manifest: checksum of its ``export.json``: names the export, whatever folder it is in.
        time: when, UTC.
    """

    audit: Audit
    directory: str
    manifest: str
    time: datetime


def audits(workspace: Workspace | Path | str, study: str, trial: int) -> list[AuditRecord]:
    """Return what the audits of a trial's exports found, oldest first.

    Raises:
        NasError: there is no such study or trial, or the file of an audit is not there.
    """
    place = Workspace.of(workspace)
    with place.open(create=False) as repository:
        found = repository.trials(repository.study(study).id, number=trial)
        if not found:
            raise NasError(f"The study {study!r} has no trial {trial}.")
        return audits_of(place, repository, found[0])


def audits_of(place: Workspace, repository: Repository, trial: TrialRecord) -> list[AuditRecord]:
    """See :func:`audits`."""
    artifacts = [item for item in repository.artifacts(trial.id) if item.kind == KIND]
    return [read_audit(place, item.content_hash) for item in artifacts]


def read_audit(workspace: Workspace | Path | str, content_hash: str) -> AuditRecord:
    """Return an audit by the content hash of its artifact; opens no record.

    Raises:
        NasError: its file is not there or damaged.
    """
    path = _path(Workspace.of(workspace), content_hash)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return AuditRecord(
            audit=Audit.from_json(document["audit"]),
            directory=document["directory"],
            manifest=document["manifest"],
            time=datetime.fromisoformat(document["time"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise NasError(f"The audit {path} cannot be read; were the artifacts moved?") from None


def latest(records: list[AuditRecord]) -> list[AuditRecord]:
    """Return the last audit of each folder, in the order of these."""
    return list({record.directory: record for record in records}.values())


def keep_audit(
    place: Workspace, repository: Repository, study_id: int, trial: TrialRecord, record: AuditRecord
) -> None:
    """Record an audit; killed in between, it leaves a file that nothing names."""
    document = {
        "audit": record.audit.to_json(),
        "directory": record.directory,
        "manifest": record.manifest,
        "time": record.time.isoformat(),
    }
    content = (json.dumps(document, indent=1) + "\n").encode()
    digest = checksum(content)
    path = _path(place, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    number = sum(item.kind == KIND for item in repository.artifacts(trial.id))
    audit = record.audit
    name = f"audit-{number:03d}-{audit.form}-{'-'.join(audit.formats)}-{digest[:8]}.json"
    repository.add_artifact(trial.id, Artifact(name, KIND, digest, len(content)))
    repository.add_event(study_id, EVENT, _gist(trial, record))


def audit_now(audit: Audit, folder: Path) -> AuditRecord:
    """Return the record of an audit that was just made."""
    manifest = checksum((folder / "export.json").read_bytes())
    return AuditRecord(audit, str(folder.resolve()), manifest, datetime.now(UTC))


def _gist(trial: TrialRecord, record: AuditRecord) -> Mapping[str, Any]:
    return {
        "trial": trial.number,
        "form": record.audit.form,
        "to": list(record.audit.formats),
        "passed": record.audit.passed,
        "failed": [check.name for check in record.audit.failures],
        "directory": record.directory,
    }


def _path(place: Workspace, digest: str) -> Path:
    return place.root / "artifacts" / f"{digest}.json"
