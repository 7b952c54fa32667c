"""The driver's loop: ask, pass each candidate through the stages, record, tell.

One process drives a study and is the only writer of its trials. What happens in a turn of the loop
is stored before anything follows from it, so that a driver that dies leaves trials that the next
one goes on with.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.choose import Option
from search_spaces.space import Candidate
from studies.asker import Asker, Question
from studies.config import StudyConfig
from studies.crew import Crew
from studies.deadline import source_file
from studies.enrol import Setting
from studies.executors import Executor
from studies.flight import Flight, Progress, begun_trial
from studies.heartbeat import Heartbeat
from studies.judge import Judge
from studies.ledger import Ending, Ledger
from studies.pace import Pace
from studies.presets import BASELINE
from studies.samplers import Sampler
from studies.storage import Owner, Repository, StudyRecord, TrialRecord, TrialState
from studies.supply import Supply
from studies.workspace import Workspace

_TICK_SECONDS = 2.0
"""How long the loop waits for results at most."""
_ASK_POLL_SECONDS = 0.01
"""How long it waits for a proposal before it looks for results."""
_LAUNCH_SECONDS = 0.02
"""For how long it begins trials before it gives out what they need."""


@dataclass(slots=True)
class Ended:
    """A trial that ended in this turn, and how the study stood then."""

    number: int
    counts: Mapping[TrialState, int]
    running: Mapping[int, str]


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
        self.repository, self.study, self.owner = repository, study, Owner.here()
        self.executor, self.on_progress = executor, on_progress
        # Work that outlives its driver is the study's: who comes next goes on with it.
        self.claimant = Owner.of_study(study.id) if executor.outlives else self.owner
        self.journal = repository.journal(study.id, self.owner, self.claimant)
        self.asker = Asker(
            sampler,
            background=executor.slots > 0,
            what=f"The space {setting.space.name!r}",
            file=source_file(setting.space),
        )
        self.ledger = Ledger(config, setting.lookahead, self.asker.tell)
        self.judge = Judge(config, setting, self.ledger, self.journal.event, set())
        self.supply = Supply(
            self.judge,
            self.journal,
            executor,
            place=Workspace(root),
            wanted=setting.wanted,
            spent_seconds=sum(repository.seconds_spent(study.id).values()),
        )
        self.crew = Crew(executor, self.supply.trial_of)
        self.pace = Pace(config.sampler)
        self.flights: dict[int, Flight] = {}
        self.question: Question | None = None
        self.begun = time.monotonic()
        self.over: tuple[Ending, str] | None = None
        self.complaint: str | None = None
        self._repeats: defaultdict[int, list[Flight]] = defaultdict(list)
        self._ended: list[Ended] = []

    def run(self) -> tuple[Ending, str]:
        """Drive the study to its end.

        Raises:
            NasError: it cannot go on; the record is in order.
        """
        with Heartbeat(self.repository, self.study.id, self.owner, self.claimant) as heartbeat:
            try:
                self._take_up()
                self.journal.event("started", {"complete": self.ledger.counts[TrialState.COMPLETE]})
                self._loop(heartbeat)
                self.ledger.tell_until(self.ledger.next_number)
                assert self.over is not None, "the loop ends with a reason"
                self.journal.event("ended", {"ending": self.over[0], "message": self.over[1]})
                self.journal.workers([])
                self.journal.store()
                with contextlib.suppress(NasError):
                    self.repository.release_all(self.claimant)
            except BaseException:
                # What is known by now is paid for; where the record refused, it was no help.
                with contextlib.suppress(NasError):
                    self.journal.store(patience=0.0)
                raise
            finally:
                self.asker.close()
                with contextlib.suppress(NasError):
                    self.repository.release_all(self.owner)
        return self.over

    def _loop(self, heartbeat: Heartbeat) -> None:
        while True:
            heartbeat.check()
            more = self._launch()
            self._exchange()
            if not self.flights and self.question is None:
                if self._is_over():
                    return
                continue
            self._wait(busy=more)

    # Beginning

    def _take_up(self) -> None:
        """Read the record: what ended, and what a dead driver left."""
        recorded = self.repository.trials(self.study.id)
        self.journal.know({trial.number: trial.id for trial in recorded})
        for trial in recorded:
            self.ledger.begin(trial.number, trial.key, baseline=trial.origin.get("by") == BASELINE)
            if trial.state is not TrialState.REPEAT:
                self.judge.arrived(trial.number, trial.values)
            if trial.state is TrialState.RUNNING:
                architecture = self.repository.architecture(trial.key)
                flight = self._fly(trial, architecture, trial.origin.get("told", 0))
                self.supply.know(flight, self.setting.stages)
            else:
                self.ledger.end(trial)
                self.judge.recorded(trial)
        if recorded:
            self.ledger.tell_until(max(trial.origin.get("told", 0) for trial in recorded))
        self._advance_all(list(self.flights.values()))

    def _launch(self) -> bool:
        """Begin trials while proposals come at once; return whether more can be begun."""
        end = time.monotonic() + _LAUNCH_SECONDS
        while time.monotonic() < end:
            if self.question is None:
                if self.over is not None or not self.ledger.ready(self._is_over):
                    return False
                number = self.ledger.next_number
                if number < len(self.setting.presets):
                    preset = self.setting.presets[number]
                    self._begin(preset.candidate, preset.origin)
                    continue
                self.question = self.asker.ask(number, self._pending(number))
            if not self.question.wait(_ASK_POLL_SECONDS):
                return True
            proposal, self.question = self.question.proposal, None
            self.pace.proposed()
            self._begin(proposal.candidate, proposal.origin)
        return True

    def _pending(self, number: int) -> list[Mapping[str, Option]]:
        return [
            self.ledger.trials[item].decisions
            if item in self.ledger.trials
            else self.flights[item].trial.decisions
            for item in range(self.ledger.told, number)
        ]

    def _begin(self, candidate: Candidate, given: Mapping[str, object]) -> None:
        number, told = self.ledger.next_number, self.ledger.told
        origin = {**given, "told": told}
        self.journal.begun(number, candidate, origin)
        trial = begun_trial(number, candidate, origin)
        self.ledger.begin(number, trial.key, baseline=origin["by"] == BASELINE)
        self._advance(self._fly(trial, candidate.architecture, told))

    def _fly(self, trial: TrialRecord, architecture: Architecture, told: int) -> Flight:
        flight = Flight(trial, architecture, told, values=dict(trial.values))
        self.flights[trial.number] = flight
        return flight

    # Under way

    def _exchange(self) -> None:
        """Store what is noted, give out what is needed, and say what ended."""
        while learned := self.supply.exchange():
            self._advance_all(learned)
        ended, self._ended = self._ended, []
        for item in ended:
            trial = self.ledger.trials[item.number]
            trial = replace(trial, id=self.journal.id_of(item.number))
            self.ledger.trials[item.number] = trial
            complete = item.counts[TrialState.COMPLETE]
            wanted = self.config.trials
            self.on_progress(Progress(trial, complete, wanted, item.counts, item.running))

    def _wait(self, *, busy: bool) -> None:
        """Take what is done, after waiting for it where there is nothing else to do."""
        asking = self.question is not None
        timeout = 0.0 if busy or asking else _TICK_SECONDS
        self._advance_all(self.supply.collect(timeout))
        if self.question is not None:
            self.question.wait(_ASK_POLL_SECONDS)
        self.pace.see(slots=self.executor.slots, busy=self.supply.in_work, asking=asking)
        complaint = self.pace.complaint()
        if complaint is not None:
            self.complaint = complaint
            self.journal.event("sampler behind", {"message": complaint})
        changed = self.crew.changed()
        if changed is not None:
            self.journal.workers(changed)

    def _advance_all(self, flights: Iterable[Flight]) -> None:
        for flight in sorted(flights, key=lambda item: item.number):
            if flight.number in self.flights:
                self._advance(flight)

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
                    self.supply.obtain(flight, evaluator)
            if flight.failure is not None:
                self.supply.forget(flight)
            if flight.open:
                return
            if flight.failure is not None:
                self._settle(flight, TrialState.FAILED, flight.failure)
                return
            reason = self.judge.verdict(flight, stage)
            if reason is not None:
                self._settle(flight, TrialState.DROPPED, reason, stage=stage.name)
                return
            flight.stage += 1
        self._settle(flight, TrialState.COMPLETE)

    # Ending

    def _repeat(self, flight: Flight, first: int) -> None:
        """Give a trial the figures of the earlier one, once that one ended."""
        earlier = self.ledger.trials.get(first)
        if earlier is None:
            if flight not in self._repeats[first]:
                self._repeats[first].append(flight)
            return
        self.journal.copied(first, flight.number)
        flight.values = dict(earlier.values)
        reason = f"the same architecture as trial {first}"
        self._settle(flight, TrialState.REPEAT, reason)

    def _settle(
        self,
        flight: Flight,
        state: TrialState,
        reason: str | None = None,
        *,
        stage: str | None = None,
    ) -> None:
        """Note how a trial ended."""
        self.journal.finished(flight.number, state, reason, stage)
        del self.flights[flight.number]
        self.ledger.end(flight.ended(state, reason, stage))
        self.supply.clear_up(flight)
        stages = self.setting.stages
        running = {item.number: stages[item.stage].name for item in self.flights.values()}
        self._ended.append(Ended(flight.number, self.ledger.counts.copy(), running))
        self._advance_all(self._repeats.pop(flight.number, ()))

    def _is_over(self) -> bool:
        """Tell whether no trial is to be begun any more; trials in flight change nothing of it."""
        self.over = self.over or self._ending()
        return self.over is not None

    def _ending(self) -> tuple[Ending, str] | None:
        config = self.config
        minutes = (time.monotonic() - self.begun) / 60
        if config.minutes is not None and minutes >= config.minutes:
            return Ending.BUDGET, f"The {config.minutes:g} minutes of this run are over."
        spent = self.supply.spent_seconds / 60
        if config.device_minutes is not None and spent >= config.device_minutes:
            return Ending.BUDGET, f"The {config.device_minutes:g} minutes of evaluation are spent."
        gate = self.judge.full()
        if gate is not None:
            return Ending.BUDGET, (
                f"{gate.config.limit} candidates went on from the stage {gate.config.by}."
            )
        return self.ledger.ending()
