"""The job of ``nas show``: a study at a glance, or all that is known of one trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kernels.errors import NasError
from nas.jobs.common import Json, chosen_study, point_json
from nas.jobs.trials import find_trial
from search_spaces.architecture import Architecture
from studies.audits import EVENT as EXPORTED
from studies.audits import audits_of, latest
from studies.config import StudyConfig
from studies.front import front_of
from studies.manage import show_study
from studies.storage import EventRecord, Repository, TrialRecord
from studies.workspace import Workspace

_EVENTS = 10


def show_run(run: Path, study: str | None) -> Json:
    """Return a study at a glance.

    Raises:
        NasError: there is no such record or study.
    """
    place = Workspace.of(run)
    with place.open(create=False) as repository:
        name = chosen_study(repository, run, study)
        record = repository.study(name)
        config = StudyConfig(**record.config)
        trials = repository.trials(record.id)
        events = repository.events(record.id)
    view = show_study(place, name)
    line = view.line
    return {
        "study": name,
        "run": str(run),
        "created": line.created.isoformat(),
        "last_activity": line.last_activity.isoformat(),
        "driver": None if line.driver is None else f"{line.driver.host}, process {line.driver.pid}",
        "archived": line.archived,
        "config": dict(view.config),
        "conditions": dict(view.conditions),
        "versions": dict(view.versions),
        "counts": {str(state): count for state, count in line.counts.items()},
        "reasons": dict(view.reasons),
        "seconds": dict(view.seconds),
        "objectives": list(config.names),
        "front": [point_json(point) for point in front_of(trials, config)],
        "baselines": [
            {"name": trial.origin["name"], **_trial_json(trial)}
            for trial in trials
            if trial.origin.get("by") == "baseline"
        ],
        "exports": _exports(events),
        "events": [_event_json(item) for item in events[-_EVENTS:]],
    }


def show_trial(run: Path, study: str | None, which: str) -> Json:
    """Return all that is known of a trial, found by number or key.

    Raises:
        NasError: there is no such record, study or trial.
    """
    place = Workspace.of(run)
    with place.open(create=False) as repository:
        name = chosen_study(repository, run, study)
        record = repository.study(name)
        trials = repository.trials(record.id)
        trial = find_trial(trials, which, name)
        architecture = repository.architecture(trial.key)
        evaluations = repository.evaluations(trial.id)
        events = [item for item in repository.events(record.id) if _concerns(item, trial)]
        figures = {metric: _figure(repository, trial, metric) for metric in trial.values}
        exports = _audited(place, repository, trial)
    return {
        "study": name,
        **_trial_json(trial),
        "decisions": dict(trial.decisions),
        "rejections": dict(trial.rejections),
        "layers": layers(architecture),
        "params": architecture.params,
        "macs": architecture.macs,
        "figures": figures,
        "evaluations": [
            {
                "evaluator": item.evaluator,
                "key": item.key,
                "metrics": [figure.metric for figure in item.figures],
                "started": item.started.isoformat(),
                "seconds": (item.ended - item.started).total_seconds(),
                "worker": item.worker,
            }
            for item in evaluations
        ],
        "exports": exports,
        "lineage": lineage({item.number: item for item in trials}, trial),
        "events": [_event_json(item) for item in events],
    }


def layers(architecture: Architecture) -> list[Json]:
    """Return a row for each node of a network, from its description alone."""
    return [
        {
            "node": number,
            "name": node.scope,
            "op": node.op.text,
            "inputs": list(node.inputs),
            "shape": list(node.shape),
            "params": 0 if node.tie is not None else node.facts.params,
            "macs": node.facts.macs,
        }
        for number, node in enumerate(architecture.nodes)
    ]


def lineage(trials: Mapping[int, TrialRecord], trial: TrialRecord) -> list[Json]:
    """Return a trial's ancestors, nearest first, each with what was changed to get from it."""
    found: list[Json] = []
    seen = {trial.number}
    current = trial
    while isinstance(parent := current.origin.get("parent"), int) and parent not in seen:
        seen.add(parent)
        ancestor = trials.get(parent)
        if ancestor is None:
            break
        found.append(
            {
                "trial": parent,
                "key": ancestor.key,
                "changed": _changes(ancestor.decisions, current.decisions),
            }
        )
        current = ancestor
    return found


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    changed = [
        f"{name} {before[name]} -> {value}"
        for name, value in after.items()
        if name in before and before[name] != value
    ]
    changed += [f"{name} {value} (new)" for name, value in after.items() if name not in before]
    return changed + [f"{name} gone" for name in before if name not in after]


def _trial_json(trial: TrialRecord) -> Json:
    return {
        "trial": trial.number,
        "key": trial.key,
        "text": trial.text,
        "state": str(trial.state),
        "stage": trial.stage,
        "reason": trial.reason,
        "origin": dict(trial.origin),
        "started": trial.started.isoformat(),
        "ended": None if trial.ended is None else trial.ended.isoformat(),
        "values": {name: dataclasses.asdict(value) for name, value in trial.values.items()},
    }


def _figure(repository: Repository, trial: TrialRecord, metric: str) -> Json:
    value = dataclasses.asdict(trial.values[metric])
    return {**value, "detail": dict(repository.detail(trial.id, metric))}


def _exports(events: Sequence[EventRecord]) -> list[Json]:
    """Return the last export to each folder that events tell of."""
    told = [_event_json(item) for item in events if item.kind == EXPORTED]
    return list({item["directory"]: item for item in told}.values())


def _audited(place: Workspace, repository: Repository, trial: TrialRecord) -> list[Json]:
    """Return the exports of a trial and what their last audits found, or why that is not known."""
    try:
        found = latest(audits_of(place, repository, trial))
    except NasError as problem:
        return [{"problem": str(problem)}]
    return [
        {
            "directory": record.directory,
            "time": record.time.isoformat(),
            "audit": record.audit.to_json(),
        }
        for record in found
    ]


def _concerns(event: EventRecord, trial: TrialRecord) -> bool:
    return event.data.get("trial") == trial.number


def _event_json(event: EventRecord) -> Json:
    return {"time": event.time.isoformat(), "kind": event.kind, **event.data}
