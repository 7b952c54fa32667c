"""A trial on its way through the stages, and what a driver reports of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from evaluators.protocol import Evaluator
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.presets import BASELINE
from studies.storage import TrialRecord, TrialState, Value

UNSTORED = 0
"""The id of a trial that is not in the record yet."""


def begun_trial(number: int, candidate: Candidate, origin: Mapping[str, Any]) -> TrialRecord:
    """Return the record of a trial that begins now."""
    return TrialRecord(
        id=UNSTORED,
        number=number,
        state=TrialState.RUNNING,
        key=candidate.architecture.key,
        text=candidate.architecture.text,
        decisions=candidate.decisions,
        values={},
        reason=None,
        rejections=candidate.rejections,
        started=datetime.now(UTC),
        ended=None,
        stage=None,
        origin=origin,
    )


@dataclass(slots=True)
class Flight:
    """A trial on its way.

    Attributes:
        trial: as it was begun.
        architecture: its network.
        stage: number of the stage it is in.
        values: its figures so far.
        known_before: gates compare it with trials below this number only.
        open: evaluators whose figures are looked for or made.
        paused: evaluators that were made for it and may have left a state to go on from.
        control: whether it is trained to the end, although a rung would have stopped it.
        failure: why it fails, once nothing of it is in work any more.
    """

    trial: TrialRecord
    architecture: Architecture
    known_before: int
    stage: int = 0
    values: dict[str, Value] = field(default_factory=dict)
    open: list[Evaluator] = field(default_factory=list)
    paused: list[Evaluator] = field(default_factory=list)
    control: bool = False
    failure: str | None = None

    @property
    def number(self) -> int:
        """Of the trial in its study."""
        return self.trial.number

    @property
    def is_baseline(self) -> bool:
        """Whether it is there to be compared with."""
        return self.trial.origin.get("by") == BASELINE

    def ended(self, state: TrialState, reason: str | None, stage: str | None) -> TrialRecord:
        """Return the record of the trial as it ends now."""
        finite = {name: item for name, item in self.values.items() if isfinite(item.value)}
        return replace(
            self.trial,
            state=state,
            reason=reason,
            stage=stage,
            values=finite,
            ended=datetime.now(UTC),
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a study stands, each time a trial ends.

    Attributes:
        trial: the one that ended.
        complete: trials evaluated in full so far.
        trials: how many are wanted.
        counts: trials by state so far, without baselines.
        running: numbers of trials in flight, and the stage each is in.
    """

    trial: TrialRecord
    complete: int
    trials: int
    counts: Mapping[TrialState, int]
    running: Mapping[int, str]
