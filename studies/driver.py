"""The driver's loop: ask, pass each candidate through the stages, record, tell.

One process drives a study and is the only writer of its trials. Each figure is in the record as
soon as it is known, so a driver that dies leaves trials that the next one goes on with.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from evaluators.protocol import Evaluator, Measured
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.config import StudyConfig
from studies.deadline import deadline
from studies.enrol import Setting
from studies.executors import Executor, Job, LocalExecutor, Outbox, Outcome
from studies.flight import Flight, Progress, begun_trial
from studies.funnel import Stage, misleads
from studies.heartbeat import LEASE_SECONDS, Heartbeat
from studies.ledger import Ending, Ledger
from studies.metrics import quality_of
from studies.presets import BASELINE
from studies.samplers import Sampler
from studies.storage import (
    Evaluation,
    Owner,
    Repository,
    StudyRecord,
    TrialRecord,
    TrialState,
    Value,
)

ASK_SECONDS = 120.0
"""How long a space function and a sampler may take over one proposal."""
MIN_FREE_BYTES = 64 << 20
"""Room that must be left on the artifacts' disk to begin an evaluation."""
_TICK_SECONDS = 2.0
_CLAIM_POLL_SECONDS = 0.25


class Driver:
    """Runs one study; see :func:`studies.search.run_study`."""

    def __init__(
        self,
        config: StudyConfig,
        setting: Setting,
        *,
        repository: Repository,
        study: StudyRecord,
        sampler: Sampler,
        executor: Executor,
        root: Path,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.config, self.setting = config, setting
        self.repository, self.study = repository, study
        self.sampler, self.executor, self.on_progress = sampler, executor, on_progress
        self.root, self.outbox, self.owner = root, Outbox(root / "outbox"), Owner.here()
        self.inline = LocalExecutor()
        self.ledger = Ledger(config, setting.lookahead, sampler)
        self.flights: dict[int, Flight] = {}
        self.job_count = 0
        self.jobs: dict[int, tuple[Flight, Evaluator, str]] = {}
        self.begun = time.monotonic()
        self.spent_seconds = sum(repository.seconds_spent(study.id).values())
        self.gates_off: set[str] = set()
        self.over: tuple[Ending, str] | None = None

    def run(self) -> tuple[Ending, str]:
        """Drive the study to its end.

        Raises:
            NasError: it cannot go on; the record is in order.
        """
        with Heartbeat(self.repository, self.study.id, self.owner) as heartbeat:
            self._take_up()
            self._note("started", complete=self.ledger.counts[TrialState.COMPLETE])
            try:
                self._loop(heartbeat)
            finally:
                for _, _, key in self.jobs.values():
                    self.repository.release(key, self.owner)
            self.ledger.tell_until(self.ledger.next_number)
            assert self.over is not None, "the loop ends with a reason"
            self._note("ended", ending=self.over[0], message=self.over[1])
        return self.over

    def _loop(self, heartbeat: Heartbeat) -> None:
        while True:
            heartbeat.check()
            while self.over is None and self.ledger.ready(self._is_over):
                self._launch()
            if not self.flights:
                return
            self._wait()

    def _take_up(self) -> None:
        """Read the record: what ended, and what a dead driver left."""
        recorded = self.repository.trials(self.study.id)
        for trial in recorded:
            self.ledger.begin(trial.number, trial.key, baseline=trial.origin.get("by") == BASELINE)
            if trial.state is not TrialState.REPEAT:
                self._arrivals(trial.number, trial.values)
            if trial.state is TrialState.RUNNING:
                architecture = self.repository.architecture(trial.key)
                self._fly(trial, architecture, trial.origin.get("told", 0))
            else:
                self.ledger.end(trial)
                self._count_passes(trial)
        if recorded:
            self.ledger.tell_until(max(trial.origin.get("told", 0) for trial in recorded))
        for flight in list(self.flights.values()):
            self._advance(flight)

    def _count_passes(self, trial: TrialRecord) -> None:
        """Count the gates that a recorded trial went through."""
        for stage in self.setting.stages:
            for gate in stage.gates:
                came = trial.state is not TrialState.REPEAT and gate.names[0] in trial.values
                gate.passed += came and trial.stage != stage.name

    def _is_over(self) -> bool:
        """Tell whether no trial is to be begun any more; trials in flight change nothing of it."""
        self.over = self.over or self._ending()
        return self.over is not None

    def _ending(self) -> tuple[Ending, str] | None:
        config = self.config
        minutes = (time.monotonic() - self.begun) / 60
        if config.minutes is not None and minutes >= config.minutes:
            return Ending.BUDGET, f"The {config.minutes:g} minutes of this run are over."
        if config.device_minutes is not None and self.spent_seconds / 60 >= config.device_minutes:
            return Ending.BUDGET, f"The {config.device_minutes:g} minutes of evaluation are spent."
        for stage in self.setting.stages:
            for gate in stage.gates:
                if gate.config.limit is not None and gate.passed >= gate.config.limit:
                    return Ending.BUDGET, (
                        f"{gate.config.limit} candidates went on from the stage {gate.config.by}."
                    )
        return self.ledger.ending()

    def _launch(self) -> None:
        number = self.ledger.next_number
        told = self.ledger.told
        if number < len(self.setting.presets):
            preset = self.setting.presets[number]
            candidate, origin = preset.candidate, dict(preset.origin)
        else:
            candidate, origin = self._ask(number)
        origin["told"] = told
        trial_id = self.repository.add_trial(self.study.id, number, candidate, origin=origin)
        architecture = candidate.architecture
        trial = begun_trial(trial_id, number, candidate, origin)
        self.ledger.begin(number, trial.key, baseline=origin["by"] == BASELINE)
        self._advance(self._fly(trial, architecture, told))

    def _ask(self, number: int) -> tuple[Candidate, dict[str, object]]:
        pending = [
            self.ledger.trials[item].decisions
            if item in self.ledger.trials
            else self.flights[item].trial.decisions
            for item in range(self.ledger.told, number)
        ]
        with deadline(ASK_SECONDS, f"The space {self.setting.space.name!r}"):
            proposal = self.sampler.ask(number, pending)
        return proposal.candidate, dict(proposal.origin)

    def _fly(self, trial: TrialRecord, architecture: Architecture, told: int) -> Flight:
        flight = Flight(trial, architecture, told, values=dict(trial.values))
        self.flights[trial.number] = flight
        return flight

    def _advance(self, flight: Flight) -> None:
        """Take a trial as far as it goes without waiting."""
        first = self.ledger.original(flight.number, flight.trial.key)
        if first is not None:
            self._repeat(flight, first)
            return
        while flight.stage < len(self.setting.stages):
            stage = self.setting.stages[flight.stage]
            for evaluator in stage.evaluators:
                if flight.failure is None and not flight.values.keys() >= set(evaluator.metrics):
                    self._obtain(flight, evaluator)
            if flight.jobs or (flight.claimed and flight.failure is None):
                return
            if flight.failure is not None:
                self._settle(flight, TrialState.FAILED, flight.failure)
                return
            reason = self._judge(flight, stage)
            if reason is not None:
                self._settle(flight, TrialState.DROPPED, reason, stage=stage.name)
                return
            flight.stage += 1
        self._settle(flight, TrialState.COMPLETE)

    def _repeat(self, flight: Flight, first: int) -> None:
        """Give a trial the figures of the earlier one, once that one ended."""
        earlier = self.ledger.trials.get(first)
        if earlier is not None:
            self.repository.copy_values(earlier.id, flight.trial.id)
            flight.values = dict(earlier.values)
            reason = f"the same architecture as trial {first}"
            self._settle(flight, TrialState.REPEAT, reason)

    def _obtain(self, flight: Flight, evaluator: Evaluator) -> None:
        """Find an evaluator's figures, or have them made."""
        if evaluator.slot == "inline":
            self.inline.submit(Job(0, evaluator, flight.architecture, ""))
            (outcome,) = self.inline.wait()
            self._take(flight, evaluator, outcome, key="")
            return
        if evaluator in flight.jobs:
            return
        key = evaluator.cache_key(flight.architecture)
        if key and self._reuse(flight, evaluator, key):
            return
        if key and not self.repository.claim(key, self.owner, LEASE_SECONDS):
            if evaluator not in flight.claimed:
                flight.claimed.append(evaluator)
            return
        if evaluator in flight.claimed:
            flight.claimed.remove(evaluator)
        self._check_room()
        self.job_count += 1
        self.jobs[self.job_count] = (flight, evaluator, key)
        flight.jobs.append(evaluator)
        self.executor.submit(Job(self.job_count, evaluator, flight.architecture, key))

    def _reuse(self, flight: Flight, evaluator: Evaluator, key: str) -> bool:
        found = self.repository.reuse(flight.trial.id, key, evaluator.metrics)
        if found is not None:
            self._note("reused", trial=flight.number, metrics=evaluator.metrics, cache_key=key)
            if evaluator in flight.claimed:
                flight.claimed.remove(evaluator)
            self._learn_figures(flight, evaluator, found)
            return True
        left = self.outbox.get(key)
        if left is None:
            return False
        self._take(flight, evaluator, left, key=key)
        return True

    def _wait(self) -> None:
        """Take what is done, and look again for what other drivers claimed."""
        polls = any(flight.claimed for flight in self.flights.values())
        outcomes = self.executor.wait(_CLAIM_POLL_SECONDS if polls else _TICK_SECONDS)
        if polls and not self.jobs:
            time.sleep(_CLAIM_POLL_SECONDS)  # the executor has nothing to wait for
        for outcome in outcomes:
            flight, evaluator, key = self.jobs.pop(outcome.job)
            flight.jobs.remove(evaluator)
            self._take(flight, evaluator, outcome, key=key)
            if key:
                self.repository.release(key, self.owner)
        for flight in sorted(self.flights.values(), key=lambda item: item.number):
            if flight.number in self.flights:
                self._advance(flight)

    def _take(self, flight: Flight, evaluator: Evaluator, outcome: Outcome, *, key: str) -> None:
        """Record an evaluation that was made."""
        seconds = (outcome.ended - outcome.started).total_seconds()
        if evaluator.slot != "inline":
            self.spent_seconds += seconds
            self._note(
                "evaluated",
                trial=flight.number,
                metrics=evaluator.metrics,
                slot=evaluator.slot,
                started=outcome.started.isoformat(),
                ended=outcome.ended.isoformat(),
                attempts=outcome.attempts,
            )
        if outcome.reason is not None:
            first, _, rest = outcome.reason.partition("\n")
            flight.failure = flight.failure or first
            if rest:
                self._note("worker output", trial=flight.number, text=rest)
            return
        figures = tuple(item for item in outcome.measured if item.metric in evaluator.metrics)
        disturbed = any(item.detail.get("disturbed") for item in figures)
        evaluation = Evaluation(
            evaluator=type(evaluator).__name__,
            key=key if key and not disturbed else None,
            figures=tuple(item for item in figures if math.isfinite(item.value)),
            started=outcome.started,
            ended=outcome.ended,
            worker=outcome.worker,
        )
        self.repository.add_evaluation(flight.trial.id, evaluation)
        if key:
            self.outbox.remove(key)
        self._learn_figures(flight, evaluator, figures)

    def _learn_figures(
        self, flight: Flight, evaluator: Evaluator, figures: tuple[Measured, ...] | list[Measured]
    ) -> None:
        given = {item.metric: item for item in figures}
        for name in evaluator.metrics:
            item = given.get(name)
            if item is not None and math.isfinite(item.value):
                flight.values[name] = Value(item.value, item.low, item.high)
            elif name in self.setting.wanted:
                came = f"is {item.value}" if item is not None else "was not given"
                flight.failure = flight.failure or f"The metric {name} {came}."
            else:
                flight.values[name] = Value(math.nan)
        self._arrivals(flight.number, flight.values)

    def _arrivals(self, number: int, values: Mapping[str, Value]) -> None:
        """Note at the gates that a trial came there."""
        figures = {name: item.value for name, item in values.items()}
        for stage in self.setting.stages:
            for gate in stage.gates:
                if figures.keys() >= set(gate.names):
                    gate.arrive(number, figures)

    def _judge(self, flight: Flight, stage: Stage) -> str | None:
        """Return why a trial goes no further; baselines always do."""
        if flight.is_baseline:
            return None
        for bound in stage.bounds:
            value = flight.values[str(bound.metric)].value
            if bound.violation(value) > 0:
                return f"{bound.metric} is {value:.6g}, the constraint is {bound}."
        for gate in stage.gates:
            if self._is_off(gate.names[0], flight.known_before):
                continue
            reason = gate.verdict(flight.number, flight.known_before)
            if reason is not None:
                return reason
            gate.passed += 1
        return None

    def _is_off(self, proxy: str, before: int) -> bool:
        """Tell whether a proxy ranks this study's trained trials worse than their size does."""
        quality = quality_of(self.config.names)
        if quality is None or proxy.startswith(quality):
            return False
        trained = [
            trial.values
            for number, trial in self.ledger.trials.items()
            if number < before and trial.state is TrialState.COMPLETE and proxy in trial.values
        ]
        sign = self.setting.sign(proxy)
        columns = [
            [factor * values[name].value for values in trained]
            for name, factor in (
                (proxy, sign),
                ("params", 1.0),
                (quality, self.setting.sign(quality)),
            )
        ]
        why = misleads(*columns)
        if why is not None and proxy not in self.gates_off:
            self.gates_off.add(proxy)
            self._note("proxy off", metric=proxy, reason=why)
        return why is not None

    def _settle(
        self,
        flight: Flight,
        state: TrialState,
        reason: str | None = None,
        *,
        stage: str | None = None,
    ) -> None:
        """Record how a trial ended."""
        self.repository.finish_trial(flight.trial.id, state, reason, stage=stage)
        trial = flight.ended(state, reason, stage)
        del self.flights[flight.number]
        self.ledger.end(trial)
        counts = self.ledger.counts
        stages = self.setting.stages
        running = {item.number: stages[item.stage].name for item in self.flights.values()}
        complete = counts[TrialState.COMPLETE]
        self.on_progress(Progress(trial, complete, self.config.trials, dict(counts), running))

    def _check_room(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < MIN_FREE_BYTES:
            raise NasError(
                f"Only {free >> 20} MB are free at {self.root}; make room and give the same "
                "command to go on."
            )

    def _note(self, kind: str, **data: object) -> None:
        self.repository.add_event(self.study.id, kind, data)
