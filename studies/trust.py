"""How far a study can trust what ranks candidates for nothing: against its own trained trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np

from evaluators.analytic import AnalyticEvaluator
from evaluators.proxies.agreement import kendall, spearman
from evaluators.proxies.fusion import FUSED, FUSED_PROBED, PROBED, SINGLE, fuse, oriented
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from studies.config import StudyConfig
from studies.funnel import TRAINED_ENOUGH
from studies.metrics import METRICS, UNTRAINED, parse_metric, quality_of
from studies.storage import TrialState
from studies.workspace import Workspace

_NEWEST = 2000
"""Trained trials that are looked at."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """How well a proxy ranks the trained trials of a study.

    Attributes:
        proxy: its name.
        tau: Kendall's tau-b with their quality; 0 where the proxy or the quality is constant.
        rho: Spearman's rank correlation, likewise.
        off: whether a gate by it is switched off: it ranks them worse than parameters do.
    """

    proxy: str
    tau: float
    rho: float
    off: bool


@dataclass(frozen=True, slots=True)
class Trust:
    """What a study's own training says of its proxies.

    Attributes:
        study: its name.
        target: the metric that judges them.
        trained: how many trials there are to judge by.
        enough: from how many on a proxy is switched off.
        proxies: the best first.
    """

    study: str
    target: str
    trained: int
    enough: int
    proxies: tuple[Trusted, ...]


def trust(workspace: Workspace | Path | str, study: str) -> Trust:
    """Compare each score found by arithmetic, and their joint ranking, with trained trials.

    These are computed anew from the recorded networks, so that a study of an earlier release can
    be asked too. Scores of fresh networks are compared where the study recorded them.

    Raises:
        NasError: there is no such study, or it has no complete trial with a quality.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        record = repository.study(study)
        config = StudyConfig(**record.config)
        trials = repository.trials(record.id)
    target = quality_of(config.names) or config.names[0]
    done = [item for item in trials if item.state is TrialState.COMPLETE and target in item.values]
    if not done:
        raise NasError(f"The study {study!r} has no complete trial with {target}.")
    newest = done[-_NEWEST:]
    figures = _figures([item.text for item in newest])
    kind = METRICS.get(parse_metric(target, own=True).name)
    way = kind.direction if kind else config.targets[0].direction
    truth = oriented([item.values[target].value for item in newest], way)
    scores = {name: oriented(figures[name], way) for name, way in SINGLE.items()}
    scores[FUSED] = fuse(figures)
    recorded = {  # what only a study that asked for it has
        name: [item.values[name].value for item in newest]
        for name in (FUSED_PROBED, *UNTRAINED)
        if all(name in item.values for item in newest)
    }
    scores |= {name: oriented(column, "max") for name, column in recorded.items()}
    if FUSED_PROBED not in scores and recorded.keys() >= PROBED.keys() - figures.keys():
        scores[FUSED_PROBED] = fuse({**figures, **recorded}, PROBED)
    size = _number(kendall(scores["params"], truth))
    found = [
        Trusted(name, tau, rho, off=len(newest) >= TRAINED_ENOUGH and tau < size)
        for name, values in scores.items()
        for tau, rho in [(_number(kendall(values, truth)), _number(spearman(values, truth)))]
    ]
    found.sort(key=lambda item: -item.tau)
    return Trust(study, target, len(newest), TRAINED_ENOUGH, tuple(found))


def _figures(texts: list[str]) -> Mapping[str, list[float]]:
    """Return the scores of networks by name; of equal ones they are computed once."""
    evaluator = AnalyticEvaluator()
    known = {
        text: {item.metric: item.value for item in evaluator.evaluate(Architecture.parse(text))}
        for text in dict.fromkeys(texts)
    }
    return {name: [known[text][name] for text in texts] for name in evaluator.metrics}


def _number(value: float) -> float:
    return 0.0 if isnan(value) else float(np.clip(value, -1.0, 1.0))
