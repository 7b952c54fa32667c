"""Finding a trial of a study by its number or its key."""

from __future__ import annotations

from pathlib import Path

from kernels.errors import NasError
from search_spaces.architecture import Architecture
from studies.storage import Repository, StudyRecord, TrialRecord
from studies.workspace import Workspace

_LISTED = 5


def find_trial(trials: list[TrialRecord], name: str, study: str) -> TrialRecord:
    """Return the trial of a number, or else the first one whose key begins with a text.

    Raises:
        NasError: there is none, or several networks have keys that begin so.
    """
    if name.isdecimal():
        for trial in trials:
            if trial.number == int(name):
                return trial
    matches = [trial for trial in trials if trial.key.startswith(name.lower())]
    keys = sorted({trial.key for trial in matches})
    if not matches:
        raise NasError(
            f"The study {study!r} has no trial of the number or key {name!r}; "
            "'nas show RUN' lists those of its front."
        )
    if len(keys) > 1:
        some = ", ".join(key[:12] for key in keys[:_LISTED])
        raise NasError(
            f"{len(keys)} networks of the study {study!r} have keys that begin with {name!r}, "
            f"such as {some}; give more of it."
        )
    return matches[0]


def recorded_trial(repository: Repository, study: StudyRecord, name: str) -> TrialRecord:
    """Return the trial of a study by its number or the beginning of its key.

    Raises:
        NasError: there is none, or several networks have keys that begin so.
    """
    found = repository.trials(study.id, number=int(name)) if name.isdecimal() else []
    return find_trial(found or repository.trials(study.id, key=name.lower()), name, study.name)


def recorded_architecture(run: Path, key: str) -> tuple[Architecture, str]:
    """Return a network of any study of a run by the beginning of its key, and its study's data.

    Raises:
        NasError: there is none, or several.
    """
    with Workspace.of(run).open(create=False) as repository:
        found = {
            trial.key: str(record.config["data"])
            for record in repository.studies(archived=True)
            for trial in repository.trials(record.id, key=key.lower())
        }
        if len(found) != 1 or not key:
            count = "no network has a key" if not found else f"{len(found)} networks have keys"
            raise NasError(f"{run}: {count} that begins with {key!r}; see 'nas show {run}'.")
        ((whole, data),) = found.items()
        return repository.architecture(whole), data
