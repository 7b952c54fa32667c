"""A recorded study becomes the picture's data: fronts, spreads, states, conditions."""

from __future__ import annotations

from pathlib import Path

from dashboards.from_study import read_front
from studies.config import StudyConfig
from studies.search import run_study
from tests.unit.studies.fakes import FakeEvaluator, size_score, with_costs


def test_a_study_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    config = StudyConfig(
        name="s",
        space="mobile-cnn-small",
        data="digits",
        objectives=("accuracy", "params"),
        trials=6,
        device="cpu",
    )
    evaluators = with_costs(FakeEvaluator(size_score))
    summary = run_study(config, tmp_path, evaluators=evaluators)
    data = read_front(tmp_path, "s")
    assert data.study == "s"
    assert [metric.name for metric in data.objectives] == ["accuracy", "params"]
    assert [metric.direction for metric in data.objectives] == ["max", "min"]
    assert len(data.points) == data.counts["complete"] == 6
    assert {point.key for point in data.front} == {point.key for point in summary.front}
    by_key = {point.key: point for point in data.points}
    for point in summary.front:
        assert by_key[point.key].values["params"] == point.values["params"].value
        assert by_key[point.key].text == point.text
