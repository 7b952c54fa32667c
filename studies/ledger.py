"""What a driver knows of its study's trials: which ended, which the sampler has been told of.

A sampler is told of trials in the order of their numbers, and no earlier than the rule in
:meth:`Ledger.ready` says. So what it proposes is a function of the record, whatever was done first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from studies.config import StudyConfig
from studies.presets import BASELINE
from studies.samplers import Lesson
from studies.storage import TrialRecord, TrialState


class Ending(StrEnum):
    """Why a study ended."""

    DONE = "done"
    EXHAUSTED = "exhausted"
    FAILING = "failing"
    DROPPING = "dropping"
    BUDGET = "budget"


@dataclass(slots=True)
class Streak:
    """How many of the newest trials in a row ended in one way."""

    length: int = 0
    reason: str = ""

    def see(self, holds: bool, reason: str | None) -> None:
        """Count a trial, or begin anew."""
        self.length = self.length + 1 if holds else 0
        self.reason = (reason or "") if holds else ""


class Ledger:
    """The trials of a study by number.

    Args:
        config: the settings.
        lookahead: how many trials may be in flight.
        teach: what the sampler is told with.
    """

    def __init__(
        self, config: StudyConfig, lookahead: int, teach: Callable[[Lesson], None]
    ) -> None:
        self._config, self._lookahead, self._teach = config, lookahead, teach
        self.trials: dict[int, TrialRecord] = {}
        self.by_key: dict[str, int] = {}
        self.next_number = 0
        self.told = 0
        self.counts: Counter[TrialState] = Counter()
        self._baselines: set[int] = set()
        self._complete_told = 0
        self._repeats, self._failures, self._drops = Streak(), Streak(), Streak()

    def begin(self, number: int, key: str, *, baseline: bool) -> None:
        """Note a trial that begins; the first of an architecture is what later ones repeat."""
        self.next_number = max(self.next_number, number + 1)
        self.by_key.setdefault(key, number)
        if baseline:
            self._baselines.add(number)

    def end(self, trial: TrialRecord) -> None:
        """Note a trial that ended."""
        self.trials[trial.number] = trial
        if trial.origin.get("by") != BASELINE:
            self.counts[trial.state] += 1

    def original(self, number: int, key: str) -> int | None:
        """Return the earlier trial of the same architecture, if there is one."""
        first = self.by_key.get(key, number)
        return first if first < number else None

    def tell_until(self, count: int) -> bool:
        """Tell the sampler of the first ``count`` trials; False where one of them goes on."""
        while self.told < count:
            trial = self.trials.get(self.told)
            if trial is None:
                return False
            self._tell(trial)
            self.told += 1
        return True

    def ready(self, ended: Callable[[], bool]) -> bool:
        """Tell what must be told before the next trial is asked for, and whether it can be.

        Trial n is asked for when trials 0 to n - lookahead are told, and more of them where those
        in flight could be all that is wanted.

        Args:
            ended: whether the study is over, by what is told so far.
        """
        needed = self.next_number - self._lookahead + 1
        while self.tell_until(needed):
            if ended():
                return False
            in_flight = self.next_number - self.told
            in_flight -= sum(self.told <= number for number in self._baselines)
            if self._complete_told + in_flight < self._config.trials:
                return True
            needed = self.told + 1
        return False

    def ending(self) -> tuple[Ending, str] | None:
        """Tell whether the study is over by what is told, and why."""
        config = self._config
        if self._complete_told >= config.trials:
            return Ending.DONE, f"{self._complete_told} candidates were evaluated."
        if self._repeats.length >= config.max_repeats:
            return Ending.EXHAUSTED, (
                f"The last {self._repeats.length} candidates were all met before: the space looks "
                f"exhausted for the sampler {config.sampler!r}. Raise max_repeats to go on."
            )
        if self._failures.length >= config.max_failures:
            return Ending.FAILING, (
                f"The last {self._failures.length} candidates failed, most recently because: "
                f"{self._failures.reason} Raise max_failures to go on."
            )
        if self._drops.length >= config.max_drops:
            return Ending.DROPPING, (
                f"The last {self._drops.length} candidates were dropped, most recently because: "
                f"{self._drops.reason} Loosen the constraint, or raise max_drops to go on."
            )
        begun = self.next_number - len(self._baselines)
        if config.candidates is not None and begun >= config.candidates:
            return Ending.BUDGET, f"{begun} candidates were begun."
        return None

    def _tell(self, trial: TrialRecord) -> None:
        if trial.origin.get("by") == BASELINE:
            return
        state, reason = trial.state, trial.reason
        self._complete_told += state is TrialState.COMPLETE
        self._repeats.see(state is TrialState.REPEAT, reason)
        if state is not TrialState.REPEAT:
            self._failures.see(state is TrialState.FAILED, reason)
            self._drops.see(state is TrialState.DROPPED, reason)
        self._teach(self._lesson(trial))

    def _lesson(self, trial: TrialRecord) -> Lesson:
        original = trial
        if trial.state is TrialState.REPEAT:
            original = self.trials[self.by_key[trial.key]]
        values = None
        if original.state is TrialState.COMPLETE:
            values = tuple(original.values[name].value for name in self._config.names)
        violations = {
            str(bound): bound.violation(trial.values[str(bound.metric)].value)
            for bound in self._config.bounds
            if str(bound.metric) in trial.values
        }
        return Lesson(
            number=trial.number,
            key=trial.key,
            decisions=trial.decisions,
            values=values,
            violations=violations,
        )
