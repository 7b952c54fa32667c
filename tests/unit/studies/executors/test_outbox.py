from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.protocol import Measured
from studies.executors import Outbox, Outcome

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def outcome(*measured: Measured, **changes: Any) -> Outcome:
    fields: dict[str, Any] = {"reason": None, "worker": "host:7", "attempts": 2}
    fields |= {"started": NOW, "ended": NOW + timedelta(seconds=1.5), **changes}
    return Outcome(job=3, measured=measured or (Measured("m", 0.1),), **fields)


finite = st.floats(allow_nan=False)
details = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
figures = st.builds(
    Measured,
    st.text(),
    finite,
    st.none() | finite,
    st.none() | finite,
    st.dictionaries(st.text(), details, max_size=3),
)


@settings(deadline=None, max_examples=60)
@given(key=st.text(min_size=1), measured=st.lists(figures, max_size=3))
def test_a_result_comes_back_as_it_was(key: str, measured: list[Measured]) -> None:
    with TemporaryDirectory() as folder:
        box = Outbox(Path(folder) / "made" / "when needed")
        put = outcome(*measured)
        box.put(key, put)
        assert Outbox(box.folder).get(key) == put
        assert box.keys() == [key]
        assert [path.suffix for path in box.folder.iterdir()] == [".json"]
        box.remove(key)
        assert (box.get(key), box.keys(), list(box.folder.iterdir())) == (None, [], [])


def test_an_empty_outbox_has_nothing_and_is_not_made(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "none")
    box.remove("a")
    assert (box.get("a"), box.keys()) == (None, [])
    box.put("", outcome())
    box.put("a", outcome(reason="It failed."))
    assert not box.folder.exists()


def test_the_newest_result_of_a_key_counts_and_others_stay(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.put("a", outcome(Measured("m", 1.0)))
    box.put("b", outcome(Measured("m", 2.0)))
    box.put("a", outcome(Measured("m", 3.0)))
    found = box.get("a")
    assert found is not None
    assert found.measured[0].value == 3.0
    box.remove("a")
    assert box.keys() == ["b"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "\x00" * len(text),
        lambda text: "[1, 2]",
        lambda text: json.dumps({"key": "a"}),
        lambda text: text.replace('"started"', '"begun"'),
        lambda text: text.replace("2026-", "soon-"),
        lambda text: text.replace('"metric"', '"meter"'),
        lambda text: text.replace('"key": "a"', '"key": "b"'),
    ],
)
def test_a_damaged_file_is_no_result_and_is_removed(tmp_path: Path, damage: Any) -> None:
    box = Outbox(tmp_path)
    box.put("a", outcome())
    (path,) = tmp_path.glob("*.json")
    path.write_text(damage(path.read_text()))
    assert box.get("a") is None
    assert not path.exists()


def test_bytes_that_are_no_text_are_damage_too(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.put("a", outcome())
    (path,) = tmp_path.glob("*.json")
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert box.keys() == []
    assert box.get("a") is None


def test_what_a_killed_writer_left_is_no_result_and_goes_with_the_key(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.put("a", outcome())
    (path,) = tmp_path.glob("*.json")
    path.rename(path.with_name(f"{path.stem}half.part"))
    assert (box.keys(), box.get("a")) == ([], None)
    box.remove("a")
    assert list(tmp_path.iterdir()) == []
