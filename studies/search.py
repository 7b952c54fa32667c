"""Running a study: from its settings to its front."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluators.protocol import Evaluator
from search_spaces.space import Space
from studies.config import StudyConfig
from studies.driver import Driver
from studies.enrol import enrol, prepare
from studies.executors import Executor
from studies.flight import Progress
from studies.free import make_free
from studies.front import FrontPoint, front_of
from studies.ledger import Ending
from studies.placement import find_device, make_executor
from studies.samplers import make_sampler
from studies.stopping import stopping_report, stopping_text
from studies.storage import TrialState
from studies.workspace import Workspace

__all__ = ["Ending", "Progress", "StudySummary", "make_executor", "run_study"]


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study that ended.

    Attributes:
        study: its name.
        ending: why it ended.
        message: the same in a sentence.
        complete: trials evaluated in full.
        failed: trials with a reason instead.
        dropped: candidates that a constraint or a stage of the funnel dropped, by stage.
        repeats: candidates met before, which cost nothing.
        front: best in the first objective first.
        seconds: of this call.
        notes: what else is to be said: what early stopping did, or that the sampler was too slow.
    """

    study: str
    ending: Ending
    message: str
    complete: int
    failed: int
    repeats: int
    dropped: Mapping[str, int]
    front: tuple[FrontPoint, ...]
    seconds: float
    notes: tuple[str, ...] = ()


def run_study(
    config: StudyConfig,
    workspace: Workspace | Path | str,
    *,
    space: Space | None = None,
    evaluators: Sequence[Evaluator] | None = None,
    executor: Executor | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> StudySummary:
    """Run a study to its end, or go on with it where it stopped.

    Args:
        config: the settings; those of a study that is in the workspace must be the same, but for
            limits, workers and device, which may change.
        workspace: where it is recorded; made where it does not exist.
        space: stands for the one that the settings name, where no name finds it.
        evaluators: run in this order on every candidate; by default those the objectives need.
        executor: where they run; by default the processes that the settings ask for.
        on_progress: called after every trial.

    Raises:
        NasError: a setting cannot be met or does not fit what is recorded, or another process
            drives the study.
        KeyboardInterrupt: after Ctrl-C, with the record in order.
    """
    start = time.perf_counter()
    place = Workspace.of(workspace)
    device = find_device(config)
    setting = prepare(config, place, evaluators, device=device, space=space)
    sampler = make_sampler(
        config.sampler,
        setting.space,
        setting.data,
        directions=[target.direction for target in config.targets],
        constraints=[str(bound) for bound in config.bounds],
        seed=config.seed,
        free=make_free(config, setting.stages),
    )
    # What cannot run leaves nothing behind: the record is made last.
    with executor or make_executor(config, place) as running, place.open() as repository:
        setting = setting.for_workers(running.slots)
        study = enrol(config, setting, repository)
        setting = setting.recorded(study)
        driver = Driver(
            config,
            setting,
            repository=repository,
            study=study,
            sampler=sampler,
            executor=running,
            root=place.root,
            on_progress=on_progress or (lambda _: None),
        )
        outcome = driver.run()
        stopping = stopping_report(repository, study)
    said = [driver.complaint, None if stopping is None else stopping_text(stopping)]
    summary = _summary(driver, *outcome, seconds=time.perf_counter() - start)
    return replace(summary, notes=tuple(item for item in said if item))


def _summary(driver: Driver, ending: Ending, message: str, *, seconds: float) -> StudySummary:
    trials = [driver.ledger.trials[number] for number in sorted(driver.ledger.trials)]
    counts = driver.ledger.counts
    dropped = Counter(item.stage or "" for item in trials if item.state is TrialState.DROPPED)
    return StudySummary(
        study=driver.study.name,
        ending=ending,
        message=message,
        complete=counts[TrialState.COMPLETE],
        failed=counts[TrialState.FAILED],
        repeats=counts[TrialState.REPEAT],
        dropped=dropped,
        front=tuple(front_of(trials, driver.config)),
        seconds=seconds,
    )
