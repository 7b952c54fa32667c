"""Studies of any size, written straight into the tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from math import exp
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import create_engine, insert

from search_spaces.space import DataSpec
from search_spaces.zoo import load_space
from studies.config import StudyConfig
from studies.storage import Repository
from studies.storage.models import ArchitectureRow, EvaluationRow, Trial, ValueRow

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OBJECTIVES = ("accuracy", "latency_ms", "params")
SIX = (*OBJECTIVES, "macs", "peak_memory_mb", "energy_mj")
_ALSO = ("macs", "rf_gain", "depth")
_AT_ONCE = 20_000


def record_large(
    place: Path,
    size: int,
    *,
    name: str = "large",
    objectives: tuple[str, ...] = OBJECTIVES,
    failing: float = 0.02,
    seed: int = 0,
    **settings: Any,
) -> None:
    """Record a study of so many trials that each have their own network, figures and spreads."""
    config = StudyConfig(
        name=name,
        space="mobile-cnn-small",
        data="digits",
        objectives=list(objectives),
        trials=max(1, size),
        **settings,
    )
    with Repository.open(place / "record.db") as repository:
        conditions = {"device": "cuda (NVIDIA H200)", "space": "mobile-cnn-small version 1"}
        study = repository.add_study(name, config.to_json(), conditions=conditions, versions={})
        first = 1 + sum(len(repository.trials(s.id)) for s in repository.studies())
    rng = Random(seed)
    space, data = load_space("mobile-cnn-small"), DataSpec((1, 8, 8), 10)
    drawn = [space.sample(rng, data) for _ in range(min(size, 300))]
    engine = create_engine(f"sqlite:///{place / 'record.db'}")
    rows = (_rows(rng, study.id, first, n, drawn, objectives, failing) for n in range(size))
    while batch := list(islice(rows, _AT_ONCE)):
        with engine.begin() as connection:
            for place_in, table in enumerate((ArchitectureRow, Trial, EvaluationRow, ValueRow)):
                flat = [row for parts in batch for row in parts[place_in]]
                if flat:
                    connection.execute(insert(table), flat)
    engine.dispose()


def _rows(
    rng: Random,
    study: int,
    first: int,
    number: int,
    drawn: list[Any],
    objectives: tuple[str, ...],
    failing: float,
) -> tuple[list[dict[str, Any]], ...]:
    trial_id, key = first + number, f"{study:02x}{number:030x}"
    candidate = drawn[number % len(drawn)]
    began = START + timedelta(seconds=30 * number)
    failed = rng.random() < failing
    network = {
        "key": key,
        "topology_key": key,
        "text": candidate.architecture.text,
        "document": candidate.architecture.to_json(),
    }
    trial = {
        "id": trial_id,
        "study_id": study,
        "number": number,
        "architecture_key": key,
        "decisions": candidate.decisions,
        "rejections": {},
        "state": "failed" if failed else "complete",
        "reason": "loss is not finite" if failed else None,
        "started": began,
        "ended": began + timedelta(seconds=25),
        "origin": {"by": "sampler", "kind": "mutation", "parent": number // 2},
    }
    figures = {} if failed else _figures(rng, (*objectives, *_ALSO))
    evaluation = {
        "id": trial_id,
        "key": f"all-{key}",
        "evaluator": "AccuracyEvaluator",
        "trial_id": trial_id,
        "started": began,
        "ended": began + timedelta(seconds=20),
        "seconds": 20.0 + rng.random(),
        "worker": f"node:{number % 4}",
        "document": {
            metric: {"value": v, "low": low, "high": high, "detail": {}}
            for metric, (v, low, high) in figures.items()
        },
    }
    values = [
        {
            "trial_id": trial_id,
            "metric": metric,
            "value": v,
            "low": low,
            "high": high,
            "evaluation_id": trial_id,
        }
        for metric, (v, low, high) in figures.items()
    ]
    return [network], [trial], [evaluation], values


def _figures(
    rng: Random, metrics: tuple[str, ...]
) -> dict[str, tuple[float, float | None, float | None]]:
    """Draw figures that pull against each other as those of networks do."""
    size = rng.random()
    params = float(round(3000 * exp(4 * size)))
    latency = 0.2 + 1.5 * (0.5 * size + 0.5 * rng.random())
    skill = 0.90 + 0.06 * size + 0.03 * (latency - 0.2) / 1.5 + rng.gauss(0, 0.008)
    accuracy = min(0.998, skill)
    found: dict[str, tuple[float, float | None, float | None]] = {
        "accuracy": (accuracy, accuracy - 0.012, min(1.0, accuracy + 0.006)),
        "latency_ms": (latency, latency * 0.97, latency * 1.03),
        "params": (params, None, None),
        "macs": (params * rng.randint(9, 30), None, None),
        "peak_memory_mb": (1 + params / 9e4 + rng.random(), None, None),
        "energy_mj": (latency * (20 + 5 * rng.random()), latency * 19, latency * 27),
        "rf_gain": (20 + 12 * size + rng.gauss(0, 2), None, None),
        "depth": (float(rng.randint(8, 30)), None, None),
    }
    return {metric: found[metric] for metric in dict.fromkeys(metrics)}
