"""The studies of a workspace: listed, shown, compared, put away and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from kernels.errors import NasError
from studies.config import StudyConfig
from studies.front import Points, feasible_points
from studies.metrics import Direction
from studies.pareto import hypervolume, non_dominated
from studies.stopping import StoppingReport, stopping_report
from studies.storage import (
    Holder,
    Owner,
    Repository,
    StudyRecord,
    TrialState,
    WorkerRecord,
)
from studies.workspace import Workspace

_DELETING_SECONDS = 600.0
"""Lease of who deletes a study, so that no driver begins meanwhile."""
_MARGIN = 0.1
"""How far beyond the worst front point the reference lies, as a share of the fronts' range."""


@dataclass(frozen=True, slots=True)
class StudyLine:
    """A study in a list.

    Attributes:
        name: of the study.
        space: its search space.
        objectives: metrics searched for.
        counts: trials by state, all states; baselines left out.
        created: when, UTC.
        last_activity: when something last happened, UTC.
        best: the best feasible figure of the first objective; None before there is one.
        archived: whether lists leave it out.
        driver: who runs it now.
    """

    name: str
    space: str
    objectives: tuple[str, ...]
    counts: Mapping[TrialState, int]
    created: datetime
    last_activity: datetime
    best: float | None
    archived: bool
    driver: Holder | None


@dataclass(frozen=True, slots=True)
class StudyView:
    """All that is known of a study without its trials.

    Attributes:
        line: what a list shows.
        config: the settings.
        conditions: what must not change while it goes on.
        versions: of the libraries it was started with.
        reasons: how often each reason failed a trial or stage dropped one, most frequent first.
        seconds: how long each evaluator ran for it, in s.
        stopping: what early stopping did; None where there was none.
        workers: who works for it now, as its driver saw them last.
    """

    line: StudyLine
    config: Mapping[str, Any]
    conditions: Mapping[str, str]
    versions: Mapping[str, str]
    reasons: Mapping[str, int]
    seconds: Mapping[str, float]
    stopping: StoppingReport | None = None
    workers: tuple[WorkerRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """A study among others.

    Attributes:
        name: of the study.
        complete: feasible complete trials, baselines left out.
        front: points on its front.
        hypervolume: share, in [0, 1], that its front dominates of the box between the best value
            of each objective over all fronts and the common reference.
        best: the best value of each objective; None where there is no trial.
        covers: by name of another study, the share of that one's front which a point of this
            one's equals or dominates; 0 of an empty front.
    """

    name: str
    complete: int
    front: int
    hypervolume: float
    best: tuple[float | None, ...]
    covers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Studies of the same objectives.

    Attributes:
        objectives: names of their metrics.
        directions: which way is better, for each.
        reference: a point a little worse than every front, the same for all; empty where no study
            has a front.
        studies: in the order asked for.
    """

    objectives: tuple[str, ...]
    directions: tuple[Direction, ...]
    reference: tuple[float, ...]
    studies: tuple[Standing, ...]


def list_studies(workspace: Workspace | Path | str, *, archived: bool = False) -> list[StudyLine]:
    """Return the studies of a workspace, oldest first; archived ones only if wanted.

    Raises:
        NasError: there is no such record.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        return [_line(repository, item) for item in repository.studies(archived=archived)]


def show_study(workspace: Workspace | Path | str, name: str) -> StudyView:
    """Return what a study was asked, under which conditions, and how its trials went.

    Raises:
        NasError: there is no such record or study.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        record = repository.study(name)
        return StudyView(
            line=_line(repository, record),
            config=record.config,
            conditions=record.conditions,
            versions=record.versions,
            reasons=dict(repository.reasons(record.id).most_common()),
            seconds=repository.seconds_spent(record.id),
            stopping=stopping_report(repository, record),
            workers=tuple(repository.workers(record.id)),
        )


def archive_study(
    workspace: Workspace | Path | str, name: str, *, archived: bool = True
) -> StudyRecord:
    """Put a study where lists leave it out, or take it back; nothing of it is lost.

    Raises:
        NasError: there is no such record or study.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        repository.archive(repository.study(name).id, archived)
        return repository.study(name)


def delete_study(workspace: Workspace | Path | str, name: str, *, force: bool = False) -> int:
    """Delete a study for good; evaluations that other studies may find stay.

    Args:
        workspace: where it is recorded.
        name: of the study.
        force: whether to delete it although a process runs it, which then fails.

    Returns:
        how many trials it had.

    Raises:
        StudyBusyError: a process runs it, and it was not forced.
        NasError: there is no such record or study.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        record = repository.study(name)
        if not force:
            repository.take_lease(record.id, Owner.here(), _DELETING_SECONDS)
        return repository.delete_study(record.id)


def compare_studies(workspace: Workspace | Path | str, names: Sequence[str]) -> Comparison:
    """Compare the fronts of studies by one reference.

    The reference lies beyond the worst value of each objective over all the fronts, by a tenth of
    their range, so that every front point counts.

    Raises:
        NasError: there is no such record or study, or their objectives differ.
    """
    if len(set(names)) != len(names) or len(names) < 2:
        raise NasError(f"Name at least two different studies to compare, got {list(names)}.")
    with Workspace.of(workspace).open(create=False) as repository:
        records = [repository.study(name) for name in names]
        config = _common_config(records)
        points = [feasible_points(repository, record)[1] for record in records]
    directions = tuple(target.direction for target in config.targets)
    signs = np.array([1.0 if direction == "min" else -1.0 for direction in directions])
    costs = [signs * rows for rows in points]  # from here on smaller is better everywhere
    fronts = dict(zip(names, map(_front, costs), strict=True))
    ideal, reference = _box(np.concatenate(list(fronts.values())))
    standings = [
        Standing(
            name=name,
            complete=len(rows),
            front=len(fronts[name]),
            hypervolume=_volume(fronts[name], ideal, reference),
            best=_best(signs, rows),
            covers={
                other: _covered(theirs, fronts[name])
                for other, theirs in fronts.items()
                if other != name
            },
        )
        for name, rows in zip(names, costs, strict=True)
    ]
    known = (signs * reference).tolist() if len(reference) else []
    return Comparison(config.names, directions, tuple(known), tuple(standings))


def _common_config(records: Sequence[StudyRecord]) -> StudyConfig:
    first, *others = [StudyConfig(**record.config) for record in records]
    for record, config in zip(records[1:], others, strict=True):
        if config.objectives != first.objectives:
            raise NasError(
                f"{records[0].name!r} searches for {', '.join(first.objectives)} and "
                f"{record.name!r} for {', '.join(config.objectives)}; compare studies of the same "
                "objectives, in the same order."
            )
    return first


def _line(repository: Repository, record: StudyRecord) -> StudyLine:
    config = StudyConfig(**record.config)
    _, points = feasible_points(repository, record)
    best = None
    if len(points):
        first = points[:, 0]
        best = float(first.max() if config.targets[0].direction == "max" else first.min())
    return StudyLine(
        name=record.name,
        space=config.space,
        objectives=config.objectives,
        counts=repository.count_states(record.id),
        created=record.created,
        last_activity=repository.last_activity(record.id) or record.created,
        best=best,
        archived=record.archived,
        driver=repository.driver(record.id),
    )


def _front(costs: Points) -> Points:
    kept: Points = costs[non_dominated(costs.tolist(), ["min"] * costs.shape[1])]
    return kept


def _box(fronts: Points) -> tuple[Points, Points]:
    """Return the best and the reference cost of each objective; empty of no points."""
    if not len(fronts):
        return np.empty(0), np.empty(0)
    ideal, worst = fronts.min(axis=0), fronts.max(axis=0)
    span = np.where(worst > ideal, worst - ideal, 1.0)
    return ideal, worst + _MARGIN * span


def _volume(front: Points, ideal: Points, reference: Points) -> float:
    """Return the share of the box from ideal to reference that a front dominates."""
    if not len(front):
        return 0.0
    scaled = (front - ideal) / (reference - ideal)
    count = len(ideal)
    return hypervolume(scaled.tolist(), [1.0] * count, ["min"] * count)


def _best(signs: Points, costs: Points) -> tuple[float | None, ...]:
    if not len(costs):
        return (None,) * len(signs)
    return tuple((signs * costs.min(axis=0) + 0.0).tolist())  # + 0.0: no -0.0


def _covered(front: Points, by: Points) -> float:
    """Return the share of a front that points of another equal or dominate."""
    if not len(front):
        return 0.0
    return float(np.mean([bool((by <= point).all(axis=1).any()) for point in front]))
