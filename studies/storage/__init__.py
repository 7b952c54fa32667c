"""The record of studies: SQLAlchemy tables behind functions that take and give frozen values."""

from studies.storage.owner import Owner
from studies.storage.records import (
    Artifact,
    Evaluation,
    EventRecord,
    Holder,
    StudyBusyError,
    StudyRecord,
    TrialRecord,
    TrialState,
    Value,
)
from studies.storage.repository import Repository

__all__ = [
    "Artifact",
    "Evaluation",
    "EventRecord",
    "Holder",
    "Owner",
    "Repository",
    "StudyBusyError",
    "StudyRecord",
    "TrialRecord",
    "TrialState",
    "Value",
]
