"""The driver: asks for candidates, has them evaluated, records everything, and can be stopped.

One process drives a study and is the only writer of its trials. What it did is in the record as
soon as it is done, so a study that was interrupted or killed goes on where it stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from pathlib import Path

from evaluators.protocol import Evaluator
from search_spaces.space import Candidate
from studies.config import StudyConfig
from studies.enrol import Setting, enrol, prepare, versions
from studies.executors import Executor, Job, LocalExecutor
from studies.front import FrontPoint, front_of
from studies.samplers import Sampler, make_sampler
from studies.storage import Repository, StudyRecord, TrialRecord, TrialState
from studies.workspace import Workspace

INTERRUPTED = "interrupted"
"""Reason of a trial that its driver left; it does not count, and its candidate is asked again."""


class Ending(StrEnum):
    """Why a study ended."""

    DONE = "done"
    EXHAUSTED = "exhausted"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Progress:
    """A trial that just ended.

    Attributes:
        trial: the trial.
        complete: complete trials so far.
        trials: how many are wanted.
    """

    trial: TrialRecord
    complete: int
    trials: int


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study that ended.

    Attributes:
        study: its name.
        ending: why it ended.
        message: the same in a sentence.
        complete: trials evaluated in full.
        failed: trials with a reason instead.
        repeats: candidates met before, which cost nothing.
        front: best in the first objective first.
        seconds: of this call.
    """

    study: str
    ending: Ending
    message: str
    complete: int
    failed: int
    repeats: int
    front: tuple[FrontPoint, ...]
    seconds: float


def run_study(
    config: StudyConfig,
    workspace: Workspace | Path | str,
    *,
    evaluators: Sequence[Evaluator] | None = None,
    executor: Executor | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> StudySummary:
    """Run a study to its end, or go on with it where it stopped.

    Args:
        config: the settings; those of a study that is in the workspace must be the same, but for
            the limits (trials, max_repeats, max_failures), which may change.
        workspace: where it is recorded; made where it does not exist.
        evaluators: run in this order on every candidate; by default those the objectives need.
        executor: where they run; by default in this process.
        on_progress: called after every trial.

    Raises:
        NasError: a setting cannot be met, or does not fit what is recorded.
        KeyboardInterrupt: after Ctrl-C, with the record in order.
    """
    place = Workspace.of(workspace)
    setting = prepare(config, place, evaluators)
    with place.open() as repository:
        driver = _Driver(
            config,
            setting,
            repository=repository,
            study=enrol(config, setting, repository),
            executor=executor or LocalExecutor(),
            on_progress=on_progress or (lambda _: None),
        )
        return driver.run()


class _Driver:
    def __init__(
        self,
        config: StudyConfig,
        setting: Setting,
        *,
        repository: Repository,
        study: StudyRecord,
        executor: Executor,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.config, self.setting = config, setting
        self.repository, self.study = repository, study
        self.executor, self.on_progress = executor, on_progress
        self.sampler: Sampler = make_sampler(config, setting.space, setting.data)
        repository.fail_running(study.id, INTERRUPTED)
        recorded = repository.trials(study.id)
        self.number = len(recorded)
        self.trials: list[TrialRecord] = []
        self.known: dict[str, TrialRecord] = {}
        for trial in recorded:
            if trial.reason != INTERRUPTED:
                self.learn(trial)

    def run(self) -> StudySummary:
        start = time.perf_counter()
        self.note("started", complete=self.count(TrialState.COMPLETE), versions=versions())
        while (end := self.ending()) is None:
            self.step()
        ending, message = end
        self.note("ended", ending=ending, message=message)
        return StudySummary(
            study=self.study.name,
            ending=ending,
            message=message,
            complete=self.count(TrialState.COMPLETE),
            failed=self.count(TrialState.FAILED),
            repeats=self.count(TrialState.REPEAT),
            front=tuple(front_of(self.trials, self.config)),
            seconds=time.perf_counter() - start,
        )

    def ending(self) -> tuple[Ending, str] | None:
        """Tell whether the study is over, and why."""
        config = self.config
        if self.count(TrialState.COMPLETE) >= config.trials:
            return Ending.DONE, f"{config.trials} candidates were evaluated."
        newest = [trial.state for trial in reversed(self.trials)]
        repeats = sum(1 for _ in takewhile(lambda state: state is TrialState.REPEAT, newest))
        if repeats >= config.max_repeats:
            return Ending.EXHAUSTED, (
                f"The last {repeats} candidates were all met before: the space looks exhausted "
                f"for the sampler {config.sampler!r}. Raise max_repeats to go on."
            )
        paid = [trial for trial in reversed(self.trials) if trial.state is not TrialState.REPEAT]
        failures = list(takewhile(lambda trial: trial.state is TrialState.FAILED, paid))
        if len(failures) >= config.max_failures:
            return Ending.FAILING, (
                f"The last {len(failures)} candidates failed, most recently because: "
                f"{failures[0].reason} Raise max_failures to go on."
            )
        return None

    def step(self) -> None:
        """Ask for one candidate and see it through."""
        candidate = self.sampler.ask(len(self.trials))
        number = self.number
        trial_id = self.repository.add_trial(self.study.id, number, candidate)
        self.number += 1
        try:
            state, reason = self.settle(trial_id, candidate)
        except (KeyboardInterrupt, SystemExit):
            self.repository.finish_trial(trial_id, TrialState.FAILED, INTERRUPTED)
            self.note(INTERRUPTED, trial=number)
            raise
        self.repository.finish_trial(trial_id, state, reason)
        (trial,) = self.repository.trials(self.study.id, number=number)
        self.learn(trial)
        complete = self.count(TrialState.COMPLETE)
        self.on_progress(Progress(trial, complete, self.config.trials))

    def settle(self, trial_id: int, candidate: Candidate) -> tuple[TrialState, str | None]:
        """Record what a candidate is worth: from an earlier trial, or by evaluating it."""
        earlier = self.known.get(candidate.architecture.key)
        if earlier is not None:
            self.repository.copy_values(earlier.id, trial_id)
            return TrialState.REPEAT, f"the same architecture as trial {earlier.number}"
        for evaluator in self.setting.evaluators:
            reason = self.apply(evaluator, trial_id, candidate)
            if reason is not None:
                return TrialState.FAILED, reason
        return TrialState.COMPLETE, None

    def apply(self, evaluator: Evaluator, trial_id: int, candidate: Candidate) -> str | None:
        """Record one evaluator's figures, paid or found; return why they fail the candidate."""
        key = evaluator.cache_key(candidate.architecture)
        found = self.repository.cached(key, evaluator.metrics) if key else None
        if found is None:
            self.executor.submit(Job(evaluator, candidate.architecture))
            (outcome,) = self.executor.results()
            self.note(
                "evaluated",
                trial=self.number - 1,
                metrics=evaluator.metrics,
                exclusive=evaluator.exclusive,
                started=outcome.started.isoformat(),
                ended=outcome.ended.isoformat(),
            )
            if outcome.reason is not None:
                return outcome.reason
            found = list(outcome.measured)
        else:
            self.note("reused", trial=self.number - 1, metrics=evaluator.metrics, cache_key=key)
        figures = {item.metric: item for item in found if item.metric in evaluator.metrics}
        finite = [item for item in figures.values() if math.isfinite(item.value)]
        self.repository.add_values(trial_id, finite, cache_key=key or None)
        for name in self.config.objectives:
            if name in evaluator.metrics and name not in {item.metric for item in finite}:
                came = f"is {figures[name].value}" if name in figures else "was not given"
                return f"The objective {name} {came}."
        return None

    def learn(self, trial: TrialRecord) -> None:
        """Take a trial that ended into account, live or from the record alike."""
        self.trials.append(trial)
        original = trial
        if trial.state is TrialState.REPEAT:
            original = self.known[trial.key]
        else:
            self.known[trial.key] = trial
        values = None
        if original.state is TrialState.COMPLETE:
            values = [trial.values[name].value for name in self.config.objectives]
        self.sampler.tell(trial.decisions, values)

    def count(self, state: TrialState) -> int:
        return sum(trial.state is state for trial in self.trials)

    def note(self, kind: str, **data: object) -> None:
        self.repository.add_event(self.study.id, kind, data)
