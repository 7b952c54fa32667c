"""What becomes of a candidate after a stage: the constraints and gates that it meets there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from studies.enrol import Setting
from studies.flight import Flight
from studies.funnel import Gate, Stage, misleads
from studies.storage import TrialRecord, TrialState, Value

Note = Callable[..., None]


class Judge:
    """Holds what the gates have seen, and drops what they or the constraints do not let through.

    Args:
        setting: of the study.
        ended: trials that ended, by number; grows while the study runs.
        quality: what the study trains for, which proxies are held against; None: nothing.
        note: records an event, ``note(kind, **data)``.
    """

    def __init__(
        self,
        setting: Setting,
        ended: Mapping[int, TrialRecord],
        *,
        quality: str | None,
        note: Note,
    ) -> None:
        self._setting, self._ended, self._quality, self._note = setting, ended, quality, note
        self._off: set[str] = set()

    def arrive(self, number: int, values: Mapping[str, Value]) -> None:
        """Note at the gates that a trial came there."""
        figures = {name: item.value for name, item in values.items()}
        for gate in self._gates():
            if figures.keys() >= set(gate.names):
                gate.arrive(number, figures)

    def take_up(self, trial: TrialRecord) -> None:
        """Count the gates that a recorded trial went through."""
        for stage in self._setting.stages:
            for gate in stage.gates:
                came = trial.state is not TrialState.REPEAT and gate.names[0] in trial.values
                gate.passed += came and trial.stage != stage.name

    def spent(self) -> str | None:
        """Return in a sentence which gate let as many through as it may; None where none did."""
        for gate in self._gates():
            if gate.config.limit is not None and gate.passed >= gate.config.limit:
                return f"{gate.config.limit} candidates went on from the stage {gate.config.by}."
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
            reason = gate.verdict(flight.number, flight.known_before)
            if reason is not None:
                return reason
            gate.passed += 1
        return None

    def _gates(self) -> list[Gate]:
        return [gate for stage in self._setting.stages for gate in stage.gates]

    def _is_off(self, proxy: str, before: int) -> bool:
        """Tell whether a proxy ranks this study's trained trials worse than their size does."""
        quality = self._quality
        if quality is None or proxy.startswith(quality):
            return False
        trained = [
            trial.values
            for number, trial in self._ended.items()
            if number < before and trial.state is TrialState.COMPLETE and proxy in trial.values
        ]
        sign = self._setting.sign
        columns = [
            [factor * values[name].value for values in trained]
            for name, factor in ((proxy, sign(proxy)), ("params", 1.0), (quality, sign(quality)))
        ]
        why = misleads(*columns)
        if why is not None and proxy not in self._off:
            self._off.add(proxy)
            self._note("proxy off", metric=proxy, reason=why)
        return why is not None
