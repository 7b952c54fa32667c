"""A study in an Optuna storage, for Optuna's tools."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as Theirs
from sqlalchemy.exc import SQLAlchemyError

from kernels.errors import NasError
from search_spaces.choose import Option
from studies.config import StudyConfig
from studies.storage import StudyRecord, TrialRecord, TrialState
from studies.study_export import Exported
from studies.workspace import Workspace


def export_optuna(workspace: Workspace | Path | str, study: str, target: str) -> Exported:
    """Write a study into an Optuna storage, under its own name, for Optuna's tools.

    Trials keep their answers as parameters, their objectives as values, their constraints under
    the constraints' text, and the rest as user attributes. A repeat is a complete trial, a dropped
    one is pruned, one that still runs is left out.

    Args:
        workspace: where it is recorded.
        study: its name.
        target: URL of a database (with ``://``), or path of a journal file; made if not there.

    Raises:
        NasError: there is no such record or study, the storage cannot be used, or it has a study
            of that name.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        record = repository.study(study)
        trials = repository.trials(record.id)
    config = StudyConfig(**record.config)
    ended = [trial for trial in trials if trial.state is not TrialState.RUNNING]
    made = _optuna_study(record, config, target)
    choices = _choices(ended)
    made.add_trials([_optuna_trial(trial, config, choices) for trial in ended])
    return Exported(target, len(ended), len(trials) - len(ended))


def _optuna_study(record: StudyRecord, config: StudyConfig, target: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage: BaseStorage = (
            optuna.storages.RDBStorage(target)
            if "://" in target
            else optuna.storages.JournalStorage(JournalFileBackend(target))
        )
        study = optuna.create_study(
            storage=storage,
            study_name=record.name,
            directions=[
                "maximize" if item.direction == "max" else "minimize" for item in config.targets
            ],
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise NasError(
            f"The Optuna storage {target} has a study {record.name!r} already; give another one."
        ) from None
    except (OSError, ImportError, ValueError, RuntimeError, SQLAlchemyError) as problem:
        reason = str(problem).splitlines()[0]
        raise NasError(f"Cannot use the Optuna storage {target}: {reason}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(config.names))
    for name in ("config", "conditions", "versions"):
        study.set_user_attr(name, getattr(record, name))
    return study


def _choices(trials: Sequence[TrialRecord]) -> dict[str, list[Option]]:
    """Return the answers that each question was given, the same for all trials.

    Numbers come first in order; the record has no options that were never taken.
    """
    found: dict[str, dict[str, Option]] = {}
    for trial in trials:
        for name, answer in trial.decisions.items():
            found.setdefault(name, {})[json.dumps(answer)] = answer
    return {name: sorted(answers.values(), key=_rank) for name, answers in found.items()}


def _rank(answer: Option) -> tuple[bool, float, str]:
    number = isinstance(answer, int | float) and not isinstance(answer, bool)
    return not number, float(answer) if number and answer is not None else 0.0, str(answer)


def _optuna_trial(
    trial: TrialRecord, config: StudyConfig, choices: Mapping[str, Sequence[Option]]
) -> FrozenTrial:
    figures = {name: figure.value for name, figure in trial.values.items()}
    whole = figures.keys() >= set(config.names)
    state = Theirs.FAIL
    if trial.state is TrialState.DROPPED:
        state = Theirs.PRUNED
    elif whole and trial.state in (TrialState.COMPLETE, TrialState.REPEAT):
        state = Theirs.COMPLETE
    told = {
        "number": trial.number,
        "state": str(trial.state),
        "key": trial.key,
        "text": trial.text,
        "reason": trial.reason,
        "stage": trial.stage,
        "origin": dict(trial.origin),
        "started": trial.started.isoformat(),
        "ended": trial.ended.isoformat() if trial.ended else None,
    }
    return create_trial(
        state=state,
        values=[figures[name] for name in config.names] if state is Theirs.COMPLETE else None,
        params=dict(trial.decisions),
        distributions={name: CategoricalDistribution(choices[name]) for name in trial.decisions},
        user_attrs={
            **figures,
            **{name: value for name, value in told.items() if value is not None},
        },
        constraints={
            str(bound): bound.violation(figures[str(bound.metric)])
            for bound in config.bounds
            if str(bound.metric) in figures
        },
    )
