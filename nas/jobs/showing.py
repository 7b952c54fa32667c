"""The job of ``nas show``: a study at a glance, or all that is known of one trial."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from evaluators.accuracy.recipe import RECIPES
from kernels.errors import NasError
from nas.jobs.common import Json, chosen_study, point_json
from nas.jobs.trials import recorded_trial
from search_spaces.architecture import Architecture
from studies.audits import EVENT as EXPORTED
from studies.audits import audits_of, latest
from studies.config import StudyConfig
from studies.front import front
from studies.manage import show_study
from studies.offers import CONDITION
from studies.screening import screening_text
from studies.stopping import stopping_text
from studies.storage import Evaluation, EventRecord, Repository, TrialRecord
from studies.variant_tables import recorded_table, table_of
from studies.workspace import Workspace

_EVENTS = 10


def show_run(run: Path, study: str | None) -> Json:
    """Return a study at a glance; what it takes does not grow with the trials behind the front.

    Raises:
        NasError: there is no such record or study.
    """
    place = Workspace.of(run)
    with place.open(create=False) as repository:
        name = chosen_study(repository, run, study)
        record = repository.study(name)
        config = StudyConfig(**record.config)
        baselines = repository.trials(record.id, baselines=True)
        events = repository.events(record.id, newest=_EVENTS)
        exports = repository.events(record.id, kind=EXPORTED)
        screened = screening_text(repository, record.id, config)
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
        "recipe": _recipe(config, view.conditions.get("recipe")),
        "conditions": dict(view.conditions),
        "versions": dict(view.versions),
        "counts": {str(state): count for state, count in line.counts.items()},
        "reasons": dict(view.reasons),
        "seconds": dict(view.seconds),
        "stopping": None if view.stopping is None else stopping_text(view.stopping),
        "workers": dict(Counter(f"{item.slot} {item.state}" for item in view.workers)),
        "screening": screened,
        "variants": _offered(place, record.conditions),
        "objectives": list(config.names),
        "front": [point_json(point) for point in front(place, name)],
        "baselines": [{"name": trial.origin["name"], **_trial_json(trial)} for trial in baselines],
        "exports": _exports(exports),
        "events": [_event_json(item) for item in events],
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
        trial = recorded_trial(repository, record, which)
        architecture = repository.architecture(trial.key)
        return {
            "study": name,
            **_trial_json(trial),
            "decisions": dict(trial.decisions),
            "rejections": dict(trial.rejections),
            "layers": layers(architecture),
            "params": architecture.params,
            "macs": architecture.macs,
            "figures": {metric: _figure(repository, trial, metric) for metric in trial.values},
            "evaluations": [_evaluation_json(item) for item in repository.evaluations(trial.id)],
            "variants": _variants(place, repository, trial),
            "exports": _audited(place, repository, trial),
            "lineage": lineage(partial(_numbered, repository, record.id), trial),
            "events": [
                _event_json(item) for item in repository.events(record.id, trial=trial.number)
            ],
        }


def _recipe(config: StudyConfig, digest: str | None) -> str | None:
    """Return what the settings call the recipe, and the registered one that it is."""
    if digest is None:
        return None
    known = [name for name, recipe in RECIPES if recipe.digest == digest]
    if not known or known[0] == config.recipe:
        return config.recipe
    return f"{config.recipe} ({known[0]})"


def _numbered(repository: Repository, study_id: int, number: int) -> TrialRecord | None:
    return next(iter(repository.trials(study_id, number=number)), None)


def _evaluation_json(item: Evaluation) -> Json:
    return {
        "evaluator": item.evaluator,
        "key": item.key,
        "metrics": [figure.metric for figure in item.figures],
        "started": item.started.isoformat(),
        "seconds": (item.ended - item.started).total_seconds(),
        "worker": item.worker,
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


def lineage(find: Callable[[int], TrialRecord | None], trial: TrialRecord) -> list[Json]:
    """Return a trial's ancestors, nearest first, each with what was changed to get from it.

    Args:
        find: returns the trial of a number, if there is one.
        trial: whose ancestors are wanted.
    """
    found: list[Json] = []
    seen = {trial.number}
    current = trial
    while isinstance(parent := current.origin.get("parent"), int) and parent not in seen:
        seen.add(parent)
        ancestor = find(parent)
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
    told = [_event_json(item) for item in events]
    return list({item["directory"]: item for item in told}.values())


def _variants(place: Workspace, repository: Repository, trial: TrialRecord) -> str:
    """Return what was measured of the ways to compute each layer, as text; empty where nothing."""
    try:
        table = recorded_table(place, repository, trial.id)
    except NasError as problem:
        return str(problem)
    return "" if table is None else str(table)


def _offered(place: Workspace, conditions: Mapping[str, str]) -> str:
    """Return what a study is offered and what not, as text; empty where nothing was measured."""
    digest = conditions.get(CONDITION)
    try:
        return "" if digest is None else str(table_of(place, digest))
    except NasError as problem:
        return str(problem)


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


def _event_json(event: EventRecord) -> Json:
    return {"time": event.time.isoformat(), "kind": event.kind, **event.data}
