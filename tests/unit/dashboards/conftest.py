"""A recorded study, made once; each test has a copy of its own."""

from __future__ import annotations

import shutil

import pytest

from tests.unit.dashboards.recording import record_study


@pytest.fixture(scope="session", name="recorded")
def record_once(tmp_path_factory):
    place = tmp_path_factory.mktemp("recorded")
    record_study(place)
    record_study(place, "other", trials=8, seed=5)
    return place


@pytest.fixture(name="place")
def copy_of_the_record(recorded, tmp_path):
    """A workspace of the test's own."""
    place = tmp_path / "workspace"
    place.mkdir()
    shutil.copy(recorded / "record.db", place / "record.db")
    return place
