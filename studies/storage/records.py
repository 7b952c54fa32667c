"""Rows of the record as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from search_spaces.choose import Option


class TrialState(StrEnum):
    """How far a trial came."""

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    REPEAT = "repeat"


@dataclass(frozen=True, slots=True)
class Value:
    """One figure of a trial, with the ends of its spread; None where it is exact."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study.

    Attributes:
        id: its number in the record.
        name: unique in the record.
        config: the settings, as JSON.
        conditions: what must not change while it goes on: data, recipe, space version, device.
        versions: of the libraries it was started with.
        created: when, UTC.
    """

    id: int
    name: str
    config: Mapping[str, Any]
    conditions: Mapping[str, str]
    versions: Mapping[str, str]
    created: datetime


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A trial without its details.

    Attributes:
        id: its number in the record.
        number: its number in the study, from 0.
        state: how far it came.
        key: of its architecture.
        text: one-line form of its architecture.
        decisions: the answers that lead to it.
        values: by metric name.
        reason: why it failed, or what it repeats; None otherwise.
        rejections: how often each rule rejected a draw before it.
        started: UTC.
        ended: UTC; None while it runs.
    """

    id: int
    number: int
    state: TrialState
    key: str
    text: str
    decisions: Mapping[str, Option]
    values: Mapping[str, Value]
    reason: str | None
    rejections: Mapping[str, int]
    started: datetime
    ended: datetime | None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened in a study: when (UTC), what kind, and more as JSON."""

    time: datetime
    kind: str
    data: Mapping[str, Any]
