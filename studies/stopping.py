"""What early stopping did in a study: epochs saved, and what it cost, by the control trainings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from studies.config import StudyConfig
from studies.metrics import parse_metric
from studies.pareto import hypervolume, non_dominated
from studies.storage import Repository, StudyRecord, TrialState, Value

Costs = npt.NDArray[np.float64]


class Trained(Protocol):
    """What a report reads of a trial; see :class:`studies.storage.TrialRecord`."""

    @property
    def number(self) -> int:
        """Its number in the study."""
        ...

    @property
    def state(self) -> TrialState:
        """How far it came."""
        ...

    @property
    def values(self) -> Mapping[str, Value]:
        """By metric name."""
        ...


@dataclass(frozen=True, slots=True)
class StoppingReport:
    """Early stopping in figures.

    A control is a candidate that a rung would have stopped and that was trained to the end all the
    same, drawn at random. What is known of the stopped ones is known from these.

    Attributes:
        begun: trainings that got as far as the first rung.
        stopped: how many each rung stopped, by its epoch.
        epochs: of a whole training.
        epochs_trained: by all of them.
        epochs_saved: against training all of them to the end.
        controls: controls that are complete.
        controls_on_front: how many of them are on the front.
        regret: share of the front's hypervolume that only controls dominate: what would have been
            lost had they been stopped too; None without controls.
        bound: share that is lost at most by those that were stopped, if they are as the controls
            are and none dominates what another does; None without controls.
    """

    begun: int
    stopped: dict[int, int]
    epochs: int
    epochs_trained: int
    epochs_saved: int
    controls: int
    controls_on_front: int
    regret: float | None
    bound: float | None

    @property
    def saved(self) -> float:
        """Share of the epochs that was saved."""
        return self.epochs_saved / max(1, self.epochs_trained + self.epochs_saved)


def stopping_report(repository: Repository, study: StudyRecord) -> StoppingReport | None:
    """Return what early stopping did; None where nothing was to be stopped."""
    from studies.presets import BASELINE  # brings torch, which who only reports does without

    config = StudyConfig(**study.config)
    if not config.rungs:
        return None
    kept, stopped = (repository.events(study.id, kind=kind) for kind in ("control", "stopped"))
    if not kept and not stopped:
        return None
    epochs = int((kept or stopped)[0].data["epochs"])
    controls = {item.data["trial"] for item in kept}
    trials = [
        trial
        for trial in repository.trials(study.id)
        if trial.origin.get("by") != BASELINE and trial.state is not TrialState.REPEAT
    ]
    return report(config, trials, controls=controls, epochs=epochs)


def report(
    config: StudyConfig, trials: Sequence[Trained], *, controls: set[int], epochs: int
) -> StoppingReport:
    """Return the report of trials, repeats and baselines left out.

    Args:
        config: the settings.
        trials: of the study.
        controls: numbers of those that a rung would have stopped.
        epochs: of a whole training.
    """
    reached = {trial.number: _reached(trial, config, epochs) for trial in trials}
    begun = [trial for trial in trials if reached[trial.number]]
    stopped = Counter(
        reached[trial.number]
        for trial in begun
        if trial.state is TrialState.DROPPED and reached[trial.number] < epochs
    )
    trained = sum(reached[trial.number] for trial in begun)
    complete = [trial for trial in begun if trial.state is TrialState.COMPLETE]
    kept = _costs([trial for trial in complete if trial.number not in controls], config)
    ours = _costs([trial for trial in complete if trial.number in controls], config)
    regret, gains = _regret(kept, ours)
    on_front = non_dominated([*kept.tolist(), *ours.tolist()], ["min"] * len(config.names))
    count = stopped.total()
    return StoppingReport(
        begun=len(begun),
        stopped=dict(sorted(stopped.items())),
        epochs=epochs,
        epochs_trained=trained,
        epochs_saved=epochs * len(begun) - trained,
        controls=len(ours),
        controls_on_front=sum(position >= len(kept) for position in on_front),
        regret=regret,
        bound=None if gains is None else min(1.0, float(np.mean(gains)) * count),
    )


def _reached(trial: Trained, config: StudyConfig, epochs: int) -> int:
    """Return how many epochs a trial was trained for; 0 where no rung looked at it."""
    if trial.state is TrialState.COMPLETE:
        return epochs
    moments = (parse_metric(name, own=True).qualifiers for name in trial.values)
    known = [int(value) for pairs in moments for name, value in pairs if name == "epoch"]
    return max(known, default=0)


def _costs(trials: Sequence[Trained], config: StudyConfig) -> Costs:
    """Return the objectives, signed so that small is good: (n, objectives)."""
    signs = np.array([1.0 if item.direction == "min" else -1.0 for item in config.targets])
    rows = [[trial.values[name].value for name in config.names] for trial in trials]
    costs: Costs = signs * np.array(rows, dtype=np.float64).reshape(len(rows), len(signs))
    return costs


def _regret(kept: Costs, controls: Costs) -> tuple[float | None, list[float] | None]:
    """Return the shares of the hypervolume that the controls, and each of them, would cost."""
    if not len(controls) or not len(kept):
        return None, None
    everything = np.vstack([kept, controls])
    best, worst = everything.min(axis=0), everything.max(axis=0)
    span = np.where(worst > best, worst - best, 1.0)

    def volume(rows: Costs) -> float:
        count = rows.shape[1]
        return hypervolume(((rows - best) / span).tolist(), [1.1] * count, ["min"] * count)

    whole, without = volume(everything), volume(kept)
    gains = [(volume(np.vstack([kept, row])) - without) / whole for row in controls]
    return (whole - without) / whole, gains


def stopping_text(found: StoppingReport) -> str:
    """Say it in a sentence or two."""
    rungs = ", ".join(f"{count} after epoch {epoch}" for epoch, count in found.stopped.items())
    text = (
        f"Of {found.begun} trainings {sum(found.stopped.values())} were stopped early "
        f"({rungs or 'none'}): {found.epochs_trained} epochs instead of "
        f"{found.epochs_trained + found.epochs_saved}, {100 * found.saved:.0f} % saved."
    )
    if found.regret is None or found.bound is None:
        return f"{text} None that was to be stopped is trained to the end yet, to see what it cost."
    return (
        f"{text} Of {found.controls} trained to the end all the same, {found.controls_on_front} "
        f"reached the front; without them it had lost {100 * found.regret:.2g} % of its "
        f"hypervolume. By that, those stopped cost {100 * found.bound:.2g} % at most."
    )
