"""The record of studies: SQLAlchemy tables behind functions that take and give frozen values."""

from studies.storage.owner import Owner
from studies.storage.records import (
    Artifact,
    Evaluation,
    EventRecord,
    Holder,
    RecordUnreachableError,
    StudyBusyError,
    StudyRecord,
    TrialRecord,
    TrialState,
    Value,
    WorkerRecord,
)
from studies.storage.repository import Repository

__all__ = [
    "Artifact",
    "Evaluation",
    "EventRecord",
    "Holder",
    "Owner",
    "RecordUnreachableError",
    "Repository",
    "StudyBusyError",
    "StudyRecord",
    "TrialRecord",
    "TrialState",
    "Value",
    "WorkerRecord",
]
