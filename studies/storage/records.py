"""Rows of the record as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from evaluators.protocol import Measured
from kernels.errors import NasError
from search_spaces.choose import Option


class StudyBusyError(NasError):
    """Another driver runs the study; or took it over, where it was this one's."""


class RecordUnreachableError(NasError):
    """The record's database does not answer, or is busy; it may answer later."""


class TrialState(StrEnum):
    """How far a trial came."""

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    REPEAT = "repeat"
    DROPPED = "dropped"


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
        archived: whether lists leave it out.
    """

    id: int
    name: str
    config: Mapping[str, Any]
    conditions: Mapping[str, str]
    versions: Mapping[str, str]
    created: datetime
    archived: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """Who runs a study: a process of a host, and since when (UTC)."""

    host: str
    pid: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a trial made.

    Attributes:
        name: of the file; once a trial.
        kind: what it is, such as ``weights``.
        content_hash: what the workspace finds its content by.
        size: bytes.
    """

    name: str
    kind: str
    content_hash: str
    size: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluator found on a candidate.

    Attributes:
        evaluator: its name.
        key: what other studies find it by; None where it must not be reused.
        figures: one a metric; those not finite are recorded with their details, but are no values.
        started: UTC.
        ended: UTC.
        worker: where it ran.
        artifacts: the files that it made.
    """

    evaluator: str
    key: str | None
    figures: tuple[Measured, ...]
    started: datetime
    ended: datetime
    worker: str = ""
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker of a study.

    Attributes:
        name: of its process, ``host:pid``, or of what is to become one.
        node: the machine it is on; empty where that is not known yet.
        slot: what it does: ``training`` or ``measurement``.
        device: what it does it on.
        state: ``starting``, ``idle``, ``busy``, ``paused`` or ``lost``.
        trial: number of the trial it works for; None while it does not.
        since: when it came into this state, UTC.
        seen: when its driver last saw it, UTC.
    """

    name: str
    node: str
    slot: str
    device: str
    state: str
    trial: int | None
    since: datetime
    seen: datetime


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
        reason: why it failed or was dropped, or what it repeats; None otherwise.
        rejections: how often each rule rejected a draw before it.
        started: UTC.
        ended: UTC; None while it runs.
        stage: of the funnel at which it was dropped; None otherwise.
        origin: who proposed it under ``by`` (``sampler``, ``enqueued``, ``everywhere``,
            ``baseline``), and what that one said of it.
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
    stage: str | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened in a study: when (UTC), what kind, and more as JSON."""

    time: datetime
    kind: str
    data: Mapping[str, Any]
