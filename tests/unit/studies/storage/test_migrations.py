import json
import sqlite3
from contextlib import closing
from datetime import timedelta

import optuna
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, create_engine, inspect

from kernels.errors import NasError
from studies.storage import Repository, TrialState, Value, schema
from studies.storage.models import REVISIONS, VERSION_TABLE, Base
from tests.unit.studies.storage.records import NET, START

# As the first release wrote it.
VERSION_1 = """
CREATE TABLE meta (
    name VARCHAR(64) NOT NULL, value VARCHAR(255) NOT NULL, PRIMARY KEY (name)
);
CREATE TABLE study (
    id INTEGER NOT NULL, name VARCHAR(255) NOT NULL, config JSON NOT NULL,
    conditions JSON NOT NULL, versions JSON NOT NULL, created DATETIME NOT NULL,
    PRIMARY KEY (id), UNIQUE (name)
);
CREATE TABLE architecture (
    "key" VARCHAR(32) NOT NULL, topology_key VARCHAR(32) NOT NULL, text TEXT NOT NULL,
    document JSON NOT NULL, PRIMARY KEY ("key")
);
CREATE INDEX ix_architecture_topology_key ON architecture (topology_key);
CREATE TABLE trial (
    id INTEGER NOT NULL, study_id INTEGER NOT NULL, number INTEGER NOT NULL,
    architecture_key VARCHAR(32) NOT NULL, decisions JSON NOT NULL, rejections JSON NOT NULL,
    state VARCHAR(16) NOT NULL, reason TEXT, started DATETIME NOT NULL, ended DATETIME,
    PRIMARY KEY (id), UNIQUE (study_id, number),
    FOREIGN KEY(study_id) REFERENCES study (id),
    FOREIGN KEY(architecture_key) REFERENCES architecture ("key")
);
CREATE INDEX ix_trial_architecture_key ON trial (architecture_key);
CREATE TABLE event (
    id INTEGER NOT NULL, study_id INTEGER NOT NULL, time DATETIME NOT NULL,
    kind VARCHAR(64) NOT NULL, data JSON NOT NULL,
    PRIMARY KEY (id), FOREIGN KEY(study_id) REFERENCES study (id)
);
CREATE INDEX ix_event_study_id ON event (study_id);
CREATE TABLE value (
    trial_id INTEGER NOT NULL, metric VARCHAR(255) NOT NULL, value FLOAT NOT NULL,
    low FLOAT, high FLOAT, cache_key VARCHAR(255),
    PRIMARY KEY (trial_id, metric), FOREIGN KEY(trial_id) REFERENCES trial (id)
);
CREATE INDEX ix_value_cache_key ON value (cache_key);
CREATE TABLE detail (
    trial_id INTEGER NOT NULL, metric VARCHAR(255) NOT NULL, document JSON NOT NULL,
    PRIMARY KEY (trial_id, metric), FOREIGN KEY(trial_id) REFERENCES trial (id)
);
INSERT INTO meta VALUES ('schema_version', '1');
"""

MOMENT = "2026-01-02 03:04:05.678901"
LATER = "2026-01-02 03:05:05.000000"
# trial, metric, value, low, high, cache key, detail
FIGURES = [
    (1, "params", 94.0, None, None, None, None),
    (1, "macs", 0.1, None, None, None, None),
    (1, "latency_ms", 1.5, 1.0, 2.0, "lat", {"samples": [1.0, 2.0]}),
    (1, "accuracy", 0.75, 0.7, 0.8, "acc", {"dense_key": "d", "correct": 3}),
    (1, "test_accuracy", 0.5, 0.4, 0.6, None, {"correct": 2}),
    (2, "params", 94.0, None, None, None, None),  # a repeat: figures without details
    (4, "latency_ms", 1.5, 1.0, 2.0, "lat", {"samples": [1.0, 2.0]}),  # found by its key
    (4, "accuracy", 0.25, 0.2, 0.3, "acc", {"dense_key": "d", "correct": 1}),  # paid twice
]
TRIALS = [
    (1, 1, 0, "complete", None, LATER),
    (2, 1, 1, "repeat", "the same architecture as trial 0", LATER),
    (3, 1, 2, "running", None, None),
    (4, 2, 0, "failed", "because", LATER),
]
SPAN = ("2026-01-02T03:04:06+00:00", "2026-01-02T03:04:16.500000+00:00")


def version_1(path):
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(VERSION_1)
        for number, name in ((1, "first"), (2, "second")):
            documents = [json.dumps(item) for item in ({"seed": number}, {"data": "x"}, {"t": "2"})]
            db.execute("INSERT INTO study VALUES (?,?,?,?,?,?)", (number, name, *documents, MOMENT))
        network = (NET.key, NET.topology_key, NET.text, json.dumps(NET.to_json()))
        db.execute("INSERT INTO architecture VALUES (?,?,?,?)", network)
        for row, study, number, state, reason, ended in TRIALS:
            choices = json.dumps({"width": 4, "act": None}), json.dumps({"a rule": 2})
            db.execute(
                "INSERT INTO trial VALUES (?,?,?,?,?,?,?,?,?,?)",
                (row, study, number, NET.key, *choices, state, reason, MOMENT, ended),
            )
        for trial, metric, value, low, high, key, detail in FIGURES:
            figure = (trial, metric, value, low, high, key)
            db.execute("INSERT INTO value VALUES (?,?,?,?,?,?)", figure)
            if detail is not None:
                document = json.dumps(detail)
                db.execute("INSERT INTO detail VALUES (?,?,?)", (trial, metric, document))
        started, ended = SPAN
        data = {"trial": 0, "metrics": ["accuracy"], "started": started, "ended": ended}
        for kind, event in (("evaluated", data), ("ended", {"message": "done"})):
            row = (1, MOMENT, kind, json.dumps(event))
            db.execute("INSERT INTO event (study_id, time, kind, data) VALUES (?,?,?,?)", row)
    return path


@pytest.fixture
def old(tmp_path):
    return version_1(tmp_path / "record.db")


def structure(path):
    """All that tells schemas apart: tables, columns, keys, indexes, and what a row is found by."""
    engine = create_engine(f"sqlite:///{path}")
    look = inspect(engine)
    found = {}
    for table in look.get_table_names():
        columns = [
            (item["name"], str(item["type"]), item["nullable"], item["default"])
            for item in look.get_columns(table)
        ]
        found[table] = (
            columns,
            look.get_pk_constraint(table)["constrained_columns"],
            sorted(str(item) for item in look.get_foreign_keys(table)),
            sorted(str(item["column_names"]) for item in look.get_unique_constraints(table)),
            sorted(str(item) for item in look.get_indexes(table)),
            look.get_table_options(table),
        )
    engine.dispose()
    return found


def test_an_upgrade_keeps_studies_trials_and_events(old):
    with Repository.open(old) as repository:
        first, second = repository.studies()
        assert (first.name, first.config, first.conditions) == ("first", {"seed": 1}, {"data": "x"})
        assert (first.created, first.archived, second.name) == (START, False, "second")
        trials = repository.trials(first.id) + repository.trials(second.id)
        for trial, (row, _, number, state, reason, ended) in zip(trials, TRIALS, strict=True):
            assert (trial.id, trial.number, trial.state) == (row, number, TrialState(state))
            assert (trial.reason, trial.started, trial.ended is None) == (
                reason,
                START,
                ended is None,
            )
            assert (trial.key, trial.text, trial.stage) == (NET.key, NET.text, None)
            assert (trial.decisions, trial.origin) == ({"width": 4, "act": None}, {})
            assert trial.rejections == {"a rule": 2}
        assert repository.architecture(NET.key) == NET
        assert [event.kind for event in repository.events(first.id)] == ["evaluated", "ended"]
        assert repository.events(first.id)[0].time == START


def test_an_upgrade_keeps_every_figure_with_its_detail(old):
    with Repository.open(old) as repository:
        trials = {
            trial.id: trial
            for study in repository.studies()
            for trial in repository.trials(study.id)
        }
        assert sum(len(trial.values) for trial in trials.values()) == len(FIGURES)
        for trial, metric, value, low, high, _, detail in FIGURES:
            assert trials[trial].values[metric] == Value(value, low, high)
            assert repository.detail(trial, metric) == (detail or {})


def test_an_upgrade_makes_evaluations_of_cache_keys(old):
    with Repository.open(old) as repository:
        (found,) = repository.reuse(3, "acc", ["accuracy"])
        assert (found.value, found.low, found.detail["correct"]) == (0.75, 0.7, 3)
        assert repository.reuse(3, "lat", ["latency_ms"])[0].detail == {"samples": [1.0, 2.0]}
        by_name = {item.evaluator: item for item in repository.evaluations(1)}
        assert by_name.keys() == {"accuracy", "latency_ms", "test_accuracy"}
        trained = by_name["accuracy"]
        assert [trained.started.isoformat(), trained.ended.isoformat()] == list(SPAN)
        assert by_name["latency_ms"].ended - by_name["latency_ms"].started == timedelta(0)
        assert repository.seconds_spent(1) == {
            "accuracy": 10.5,
            "latency_ms": 0,
            "test_accuracy": 0,
        }
        # The second trial found the latency by its key; its training was paid again.
        assert [item.key for item in repository.evaluations(4)] == ["lat", None]


def test_what_is_upgraded_equals_what_is_made(old, tmp_path):
    Repository.open(old).close()
    Repository.open(tmp_path / "new.db").close()
    assert structure(old) == structure(tmp_path / "new.db")
    assert structure(old)["value"][-1] == {"sqlite_with_rowid": False}


@pytest.mark.parametrize("upgraded", [True, False])
def test_the_migrated_schema_is_that_of_the_models(old, tmp_path, upgraded):
    path = old if upgraded else tmp_path / "new.db"
    Repository.open(path).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
        assert compare_metadata(context, MetaData()) != []  # it does find differences
    engine.dispose()


def test_the_first_migration_makes_what_the_first_release_made(old, tmp_path):
    path = tmp_path / "migrated.db"
    config = Config()
    config.set_main_option("script_location", str(schema._MIGRATIONS))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "v1")
    engine.dispose()
    made = structure(path)
    assert made.pop(VERSION_TABLE)
    assert made == structure(old)


def test_the_revisions_are_those_of_the_scripts():
    config = Config()
    config.set_main_option("script_location", str(schema._MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert [item.revision for item in scripts.walk_revisions()][::-1] == list(REVISIONS)


@pytest.mark.parametrize("newest", [True, False])
def test_optuna_studies_in_the_same_file_survive(old, tmp_path, newest):
    path = tmp_path / "shared.db"
    if newest:
        Repository.open(path).close()
    else:
        version_1(path)
    url = f"sqlite:///{path}"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    theirs = optuna.create_study(storage=url, study_name="theirs")
    theirs.optimize(lambda trial: trial.suggest_int("x", 0, 3), n_trials=3)
    before = {name: table for name, table in structure(path).items() if name.startswith("trial_")}
    assert before
    Repository.open(path).close()
    Repository.open(path).close()
    after = structure(path)
    assert {name: after[name] for name in before} == before
    assert {"alembic_version", VERSION_TABLE} <= after.keys()
    again = optuna.load_study(storage=url, study_name="theirs")
    assert [trial.params for trial in again.trials] == [trial.params for trial in theirs.trials]
    again.optimize(lambda trial: trial.suggest_int("x", 0, 3), n_trials=1)
    assert len(again.trials) == 4


def test_autogenerate_leaves_optuna_tables_alone(tmp_path):
    path = tmp_path / "shared.db"
    Repository.open(path).close()
    optuna.create_study(storage=f"sqlite:///{path}")
    engine = create_engine(f"sqlite:///{path}")
    captured = {}

    def compare(revision, context):
        captured["found"] = compare_metadata(context, Base.metadata)
        return []

    config = Config()
    config.set_main_option("script_location", str(schema._MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection, EnvironmentContext(config, scripts, fn=compare):
        config.attributes["connection"] = connection
        scripts.run_env()
    engine.dispose()
    assert captured["found"] == []


def test_a_copy_is_kept_only_when_the_upgrade_fails(old, monkeypatch):
    before = closed(old)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "upgrade", fails)
        with pytest.raises(NasError, match=r"Cannot upgrade .* from schema v1 .*Reason: no luck"):
            Repository.open(old)
    copy = old.with_name("record.db.v1-copy")
    assert closed(copy) == before
    assert closed(old) == before
    Repository.open(old).close()
    assert not copy.exists()
    assert [path.name for path in old.parent.iterdir()] == ["record.db"]


def test_a_migration_that_stops_half_way_changes_nothing(old, monkeypatch):
    before = closed(old)
    monkeypatch.setattr("alembic.op.rename_table", stops)  # figures are carried, tables dropped
    with pytest.raises(NasError, match=r"it is as it was.*Reason: stopped"):
        Repository.open(old)
    monkeypatch.undo()
    assert closed(old) == before
    with Repository.open(old) as repository:
        assert len(repository.trials(1)) == 3


def fails(connection, found):
    connection.exec_driver_sql("DROP TABLE detail")
    raise RuntimeError("no luck\nsecond line")


def stops(*_):
    raise RuntimeError("stopped")


def closed(path):
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())
