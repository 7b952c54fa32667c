"""The record of studies: SQLAlchemy tables behind functions that take and give frozen values."""

from studies.storage.records import EventRecord, StudyRecord, TrialRecord, TrialState, Value
from studies.storage.repository import Repository

__all__ = ["EventRecord", "Repository", "StudyRecord", "TrialRecord", "TrialState", "Value"]
