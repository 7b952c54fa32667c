"""Who goes on: bounds and gates of the stages, and the candidates that are trained all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from studies.config import StudyConfig
from studies.enrol import Setting
from studies.flight import Flight
from studies.funnel import Gate, Stage, misleads
from studies.ledger import Ledger
from studies.metrics import quality_of
from studies.rungs import is_control
from studies.storage import TrialRecord, TrialState, Value

_TRAINED = 2000
"""Newest trained trials that a proxy is judged by."""
_LOOKED_AT = 10_000
"""Newest trials among which these are looked for."""

Note = Callable[[str, Mapping[str, object]], None]
"""Records an event: its kind, and more."""


@dataclass(frozen=True, slots=True)
class Judge:
    """What each stage lets through, by the trials of the ledger.

    Attributes:
        config: the settings.
        setting: their meaning here; its gates count what went through them.
        ledger: the trials.
        note: where events go.
        off: proxies that mislead.
    """

    config: StudyConfig
    setting: Setting
    ledger: Ledger
    note: Note
    off: set[str]

    def arrived(self, number: int, values: Mapping[str, Value]) -> None:
        """Note at the gates that a trial came there."""
        figures = {name: item.value for name, item in values.items()}
        for gate in self._gates():
            if figures.keys() >= set(gate.names):
                gate.arrive(number, figures)

    def recorded(self, trial: TrialRecord) -> None:
        """Count the gates that a recorded trial went through."""
        for stage in self.setting.stages:
            for gate in stage.gates:
                came = trial.state is not TrialState.REPEAT and gate.names[0] in trial.values
                gate.passed += came and trial.stage != stage.name

    def full(self) -> Gate | None:
        """Return a gate that lets nobody through any more."""
        for gate in self._gates():
            if gate.config.limit is not None and gate.passed >= gate.config.limit:
                return gate
        return None

    def verdict(self, flight: Flight, stage: Stage) -> str | None:
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
            if gate.rung is not None and flight.control:
                continue
            reason = gate.verdict(flight.number, flight.known_before)
            if reason is not None and not self._goes_on(flight, gate, reason):
                return reason
            gate.passed += 1
        return None

    def _goes_on(self, flight: Flight, gate: Gate, reason: str) -> bool:
        """Tell whether a trial that a gate stops is trained on, to see what stopping costs."""
        if gate.rung is None:
            return False
        flight.control = is_control(self.config.seed, flight.number, self.config.control)
        self.note(
            "control" if flight.control else "stopped",
            {
                "trial": flight.number,
                "metric": gate.rung.metric,
                "epoch": gate.rung.epoch,
                "epochs": gate.rung.epochs,
                "reason": reason,
            },
        )
        return flight.control

    def _gates(self) -> Iterator[Gate]:
        for stage in self.setting.stages:
            yield from stage.gates

    def _is_off(self, proxy: str, before: int) -> bool:
        """Tell whether a proxy ranks this study's own trained trials worse than their size does."""
        quality = quality_of(self.config.names)
        if quality is None or proxy.startswith(quality):
            return False
        trained = self._trained(proxy, before)
        sign = self.setting.sign
        columns = [
            [factor * values[name].value for values in trained]
            for name, factor in ((proxy, sign(proxy)), ("params", 1.0), (quality, sign(quality)))
        ]
        why = misleads(*columns)
        if why is not None and proxy not in self.off:
            self.off.add(proxy)
            self.note("proxy off", {"metric": proxy, "reason": why})
        return why is not None

    def _trained(self, proxy: str, before: int) -> list[Mapping[str, Value]]:
        """Return the figures of the newest complete trials below a number."""
        found: list[Mapping[str, Value]] = []
        for number in range(before - 1, max(-1, before - 1 - _LOOKED_AT), -1):
            trial = self.ledger.trials.get(number)
            if trial is not None and trial.state is TrialState.COMPLETE and proxy in trial.values:
                found.append(trial.values)
                if len(found) == _TRAINED:
                    break
        return found
