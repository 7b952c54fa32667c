"""What the tests of the record share: networks, candidates, and a study of any size."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import create_engine, insert

from evaluators.protocol import Measured
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.storage import Evaluation, Repository, StudyRecord
from studies.storage.models import ArchitectureRow, EvaluationRow, Trial, ValueRow
from tests.unit.studies.fakes import cheap_config

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NET = Architecture.parse("input 1x8x8; conv 4 k3 bn relu; gap; flatten; linear 10")
CANDIDATE = Candidate(NET, {"width": 4, "bias": True, "act": None, "co": 0.5}, {"a rule": 2})
SAMPLER = {"by": "sampler"}
OBJECTIVES = ("macs", "params", "rf_gain")
_OTHERS = ("bytes_moved", "depth", "layers", "peak_activation_bytes", "rf_local", "rf_volume")


def new_study(repository: Repository, name: str = "s", **settings: Any) -> StudyRecord:
    config = cheap_config(name=name, **settings).to_json()
    return repository.add_study(name, config, conditions={"data": "x"}, versions={"t": "2"})


def found(*figures: Measured, key: str | None = None, seconds: float = 2.0) -> Evaluation:
    name = figures[0].metric if figures else "nothing"
    return Evaluation(name, key, figures, START, START + timedelta(seconds=seconds), "w1")


def bulk_study(path: Path, size: int, *, seed: int = 0) -> None:
    """Record a study of complete trials that each have nine figures and their own network."""
    with Repository.open(path) as repository:
        study = new_study(repository, "big", objectives=list(OBJECTIVES), trials=size)
    rng = Random(seed)
    decisions = {f"stage{place}/width": 16 * place for place in range(30)}
    document = NET.to_json()
    trials, networks, evaluations, values = [], [], [], []
    for number in range(size):
        key = f"{number:032x}"
        figures = {name: rng.random() for name in (*OBJECTIVES, *_OTHERS)}
        networks.append({"key": key, "topology_key": key, "text": NET.text, "document": document})
        trials.append(
            {
                "id": number + 1,
                "study_id": study.id,
                "number": number,
                "architecture_key": key,
                "decisions": decisions,
                "rejections": {},
                "state": "complete",
                "started": START,
                "ended": START,
                "origin": SAMPLER,
            }
        )
        evaluations.append(
            {
                "id": number + 1,
                "key": f"analytic-{key}",
                "evaluator": "analytic",
                "trial_id": number + 1,
                "started": START,
                "ended": START,
                "seconds": 0.25,
                "worker": "",
                "document": {
                    name: {"value": value, "low": None, "high": None, "detail": {}}
                    for name, value in figures.items()
                },
            }
        )
        values += [
            {"trial_id": number + 1, "metric": name, "value": value, "evaluation_id": number + 1}
            for name, value in figures.items()
        ]
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for table, rows in (
            (ArchitectureRow, networks),
            (Trial, trials),
            (EvaluationRow, evaluations),
            (ValueRow, values),
        ):
            connection.execute(insert(table), rows)
    engine.dispose()
