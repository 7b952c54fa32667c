"""Columns that follow a record equal columns read at once, and what the engine says of it."""

from __future__ import annotations

import sqlite3
from random import Random

import numpy as np

from dashboards import record
from dashboards.columns import StudyColumns
from dashboards.source import Source, record_of
from studies.front import front
from studies.storage import Repository, TrialState
from tests.unit.dashboards.recording import OBJECTIVES, add_trial


def read(place, columns=None):
    with record_of(place).open() as connection:
        if columns is None:
            columns = StudyColumns(record.study(connection, "digits"))
        columns.refresh(connection)
        columns.load(connection, [*OBJECTIVES, "rf_gain"])
    return columns


def content(columns):
    figures = {
        (name, part): columns.values(name, part).tolist()
        for name in (*OBJECTIVES, "rf_gain")
        for part in ("value", "low", "high")
    }
    return repr(
        (
            columns.ids.tolist(),
            columns.number.tolist(),
            columns.baseline.tolist(),
            columns.states(),
            columns.front(),
            figures,
        )
    )


def test_columns_that_follow_equal_columns_read_at_once(place):
    rng = Random(2)
    followed = read(place)
    for step in range(12):
        with sqlite3.connect(place / "record.db") as connection:
            numbers = [row[0] for row in connection.execute("SELECT id FROM trial")]
            running = rng.sample(numbers, 2)
            connection.executemany(
                "UPDATE trial SET state = 'running' WHERE id = ?", [(item,) for item in running]
            )
        connection.close()
        followed = read(place)  # as a dashboard that is opened while these run
        for _ in range(rng.randint(0, 2)):
            add_trial(
                place, "digits", width=4 + step, accuracy=rng.random(), latency_ms=rng.random()
            )
        with sqlite3.connect(place / "record.db") as connection:
            states = [rng.choice(["complete", "failed", "dropped"]) for _ in running]
            connection.executemany(
                "UPDATE trial SET state = ? WHERE id = ?", list(zip(states, running, strict=True))
            )
        connection.close()
        followed = read(place, followed)
        assert content(followed) == content(read(place))


def test_the_front_is_the_engines(place):
    columns = read(place)
    assert [columns.number[row] for row in columns.front()] == [
        point.trial for point in sorted(front(place, "digits"), key=lambda point: point.trial)
    ]


def test_a_test_of_the_front_that_comes_late_is_taken_in(place):
    columns = read(place)
    row = columns.front()[0]
    with record_of(place).open() as connection:
        columns.load(connection, ["test_accuracy"])
    assert np.isnan(columns.values("test_accuracy")).all()
    with sqlite3.connect(place / "record.db") as connection:
        connection.execute(
            "INSERT INTO value VALUES (?, 'test_accuracy', 0.5, 0.4, 0.6, NULL)",
            (int(columns.ids[row]),),
        )
    connection.close()
    read(place, columns)
    assert columns.values("test_accuracy")[row] == 0.5
    with record_of(place).open() as connection:
        assert "test_accuracy" in columns.metrics(connection)


def test_a_study_made_anew_under_the_same_name_is_read_anew(place):
    source = Source(place)
    before = source.front("digits")["count"]
    with Repository.open(place / "record.db") as repository:
        config = repository.study("digits").config
        repository.delete_study(repository.study("digits").id)
        repository.add_study("digits", config, conditions={}, versions={})
    assert before > 0
    assert source.front("digits")["count"] == 0


def test_infinite_figures_never_reach_a_front(place):
    add_trial(place, "digits", width=5, accuracy=0.9999, latency_ms=float("inf"))
    columns = read(place)
    with Repository.open(place / "record.db") as repository:
        complete = [
            trial
            for trial in repository.trials(repository.study("digits").id)
            if trial.state is TrialState.COMPLETE
        ]
    assert len(complete) == int(columns.complete().sum()) + 1
    assert max(columns.number[columns.front()]) < complete[-1].number
