"""The report: one file, whole or not there, that fetches nothing and reads without a script."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dashboards.report import report_html, write_report
from kernels.errors import NasError
from studies.front import front
from tests.unit.dashboards.large import record_large

HOSTILE = '<img src=x onerror="window.harmed=1"></script><script>window.harmed=2</script>'


class Reader(HTMLParser):
    """What a browser without JavaScript shows of a table, and what a page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data


@pytest.fixture(name="text")
def of_the_record(place):
    return report_html(place, "digits")


def without_scripts(text):
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_the_front_is_a_table_without_a_script(place, text):
    rows = Reader(without_scripts(text)).rows
    points = sorted(front(place, "digits"), key=lambda p: (-p.values["accuracy"].value, p.trial))
    assert [row[0] for row in rows[1:]] == [str(point.trial) for point in points]
    for row, point in zip(rows[1:], points, strict=True):
        assert row[1] == point.key[:8]
        assert row[-1] == point.text
        accuracy = point.values["accuracy"]
        assert row[2].startswith(f"{100 * accuracy.value:.1f} %")
        assert f"{100 * accuracy.low:.1f} to {100 * accuracy.high:.1f} %" in row[2]
        assert row[rows[0].index("Parameters")] == f"{point.values['params'].value:,.0f}"


def test_nothing_is_fetched(text):
    assert sorted(Reader(text).links) == ["#main", "data:,"]
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_plotly_is_inside(text):
    from dashboards.pages import plotly_js

    assert plotly_js()[:2000].replace("</script", "<\\/script") in text


def test_no_path_of_this_machine_is_in_it(place, text):
    assert str(place) not in text
    assert str(Path.home()) not in text


def test_hostile_text_stays_text(place):
    with sqlite3.connect(place / "record.db") as connection:
        connection.execute("UPDATE study SET name = ? WHERE name = 'digits'", (HOSTILE,))
        connection.execute(
            "UPDATE study SET conditions = ? WHERE name = ?",
            (json.dumps({"device": HOSTILE}), HOSTILE),
        )
        connection.execute("UPDATE architecture SET text = ?", (HOSTILE,))
    connection.close()
    text = report_html(place, HOSTILE)
    shell = Reader(without_scripts(text))
    assert "img" not in shell.tags
    assert shell.rows[1][-1] == HOSTILE
    assert text.count("</script>") == text.count("<script")


def test_the_file_replaces_the_old_one_and_leaves_nothing_beside(place, tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old")
    assert write_report(place, "digits", target) == target
    assert target.read_text().startswith("<!doctype html>")
    assert [item.name for item in tmp_path.glob("*report*")] == ["report.html"]


def test_a_failed_write_keeps_the_old_file(place, tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_report(place, "digits", target)
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert [item.name for item in tmp_path.glob("*report*")] == ["report.html"]


def test_an_unknown_study_is_named(place, tmp_path):
    with pytest.raises(NasError, match="Unknown study"):
        write_report(place, "nothing", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("size", "objectives"), [(0, ("accuracy",)), (1, ("accuracy", "params"))])
def test_few_candidates_and_one_objective_have_a_report(tmp_path, size, objectives):
    record_large(tmp_path, size, objectives=objectives, failing=0.0)
    rows = Reader(without_scripts(report_html(tmp_path, "large"))).rows
    assert len(rows) == 1 + size


def test_importing_what_writes_it_loads_neither_torch_nor_plotly():
    code = "import sys, dashboards.report; print('torch' in sys.modules, 'plotly' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
