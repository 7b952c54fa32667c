"""The Optuna storage of one ask: what a sampler is to see, and what it notes while it thinks."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

STUDY = "ask"
"""Name of the study on a shelf."""
MOMENT = datetime(2000, 1, 1, tzinfo=UTC).replace(tzinfo=None)
"""When all trials on a shelf began and ended: no proposal depends on the clock."""
_ID = 0


class Shelf(BaseStorage):
    """Holds one study: trials that are put there once, and those that are asked for after them.

    NOTE: Optuna's own storage in memory copies every trial it is given and keeps every trial it was
    asked for; a study of 2,500 trials could not be set up anew for each ask. A shelf can, so that
    nothing of an ask is left for the next.

    Args:
        directions: of the objectives.
        trials: finished and running ones, by ascending number, which is their id too; they are not
            copied, and not changed.
    """

    def __init__(self, directions: Sequence[StudyDirection], trials: Sequence[FrozenTrial]) -> None:
        self._directions = list(directions)
        self._trials = {trial.number: trial for trial in trials}
        self._next = trials[-1].number + 1 if trials else 0
        self._user_attrs: dict[str, Any] = {}
        self._system_attrs: dict[str, Any] = {}

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> NoReturn:
        """Refuse: there is one study."""
        raise NotImplementedError("A shelf holds one study.")

    def delete_study(self, study_id: int) -> NoReturn:
        """Refuse: there is one study."""
        raise NotImplementedError("A shelf holds one study.")

    def get_all_studies(self) -> NoReturn:
        """Refuse: no sampler looks for others."""
        raise NotImplementedError("A shelf holds one study.")

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note something."""
        self._user_attrs[key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note something."""
        self._system_attrs[key] = value

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the id of the study."""
        return _ID

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name of the study."""
        return STUDY

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the directions of the objectives."""
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return what was noted."""
        return dict(self._user_attrs)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return what was noted."""
        return dict(self._system_attrs)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Add a running trial."""
        if template_trial is not None:
            raise NotImplementedError("A shelf is filled when it is made.")
        number = self._next
        self._trials[number] = make_trial(number, TrialState.RUNNING)
        self._next += 1
        return number

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Answer a question of a running trial."""
        trial = self._changed(trial_id)
        value = distribution.to_external_repr(param_value_internal)
        trial.params = {**trial.params, param_name: value}
        trial.distributions = {**trial.distributions, param_name: distribution}

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change the state of a running trial."""
        trial = self._changed(trial_id)
        trial.state = state
        if values is not None:
            trial.values = list(values)
        if state.is_finished():
            trial.datetime_complete = MOMENT
        return True

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Note a value of a running trial."""
        trial = self._changed(trial_id)
        trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note something about a running trial."""
        trial = self._changed(trial_id)
        trial.user_attrs = {**trial.user_attrs, key: value}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note something about a running trial."""
        trial = self._changed(trial_id)
        trial.system_attrs = {**trial.system_attrs, key: value}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial."""
        return self._trials[trial_id]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials in the order of their numbers."""
        found = [item for item in self._trials.values() if states is None or item.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def _changed(self, trial_id: int) -> FrozenTrial:
        """Put a copy in the place of a trial, as others may hold the old one, and return it."""
        trial = copy.copy(self._trials[trial_id])
        self.check_trial_is_updatable(trial_id, trial.state)
        self._trials[trial_id] = trial
        return trial


def make_trial(
    number: int,
    state: TrialState,
    *,
    values: Sequence[float] | None = None,
    params: dict[str, Any] | None = None,
    distributions: dict[str, BaseDistribution] | None = None,
) -> FrozenTrial:
    """Return a trial of that number and id."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        values=values,
        datetime_start=MOMENT,
        datetime_complete=MOMENT if state.is_finished() else None,
        params=params or {},
        distributions=distributions or {},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
