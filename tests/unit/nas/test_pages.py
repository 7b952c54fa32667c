"""``nas dashboard`` and ``nas report``: where they find a run, how they end, what they refuse."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kernels.errors import NasError
from nas.jobs.pages import newest_run
from tests.unit.nas.conftest import ROOT


@contextmanager
def dashboard(*arguments: object, cwd: Path = ROOT):
    """Run ``nas dashboard`` until it says where it is; end it by Ctrl-C."""
    command = [sys.executable, "-m", "nas", "dashboard", "--no-browser", "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment,
    )
    text = ""
    while not text.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, process.stderr.read()
        text += line
    yield json.loads(text)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def asked(address, path):
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200
    return answer.read()


def test_dashboard_serves_a_run_until_it_is_interrupted(run: Path) -> None:
    with dashboard(run, "--port", 0) as said:
        assert said["run"] == str(run)
        (study,) = json.loads(asked(said["address"], "/api/studies"))["studies"]
        assert study["states"] == {"complete": 3}
        assert b"paretonas" in asked(said["address"], "/")


def test_dashboard_without_a_run_takes_the_one_written_to_last(run: Path, tmp_path: Path) -> None:
    for name, age in (("old", 1000), ("new", 10)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        copy = tmp_path / "runs" / name / "record.db"
        copy.write_bytes((run / "record.db").read_bytes())
        os.utime(copy, (time.time() - age, time.time() - age))
    with dashboard("--port", 0, cwd=tmp_path) as said:
        assert said["run"] == "runs/new"


def test_the_usual_port_gives_way_to_a_free_one_but_a_named_one_does_not(run: Path, nas) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = nas("dashboard", run, "--port", port, "--no-browser", code=2)
        assert f"Cannot listen at 127.0.0.1:{port}" in done.stderr
    with dashboard(run) as first, dashboard(run) as second:
        assert first["address"] != second["address"]


def test_the_newest_run_counts_what_is_still_in_the_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NasError, match="nas dashboard RUN"):
        newest_run()
    for number, name in enumerate(("a", "b")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        file = tmp_path / "runs" / name / "record.db"
        file.touch()
        os.utime(file, (1000 + number, 1000 + number))
    assert newest_run() == Path("runs/b")
    (tmp_path / "runs/a/record.db-wal").touch()
    assert newest_run() == Path("runs/a")
    (tmp_path / "record.db").touch()
    assert newest_run() == Path()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "There is no record"),
        (lambda path: path.write_bytes(b"no database" * 100), "is not a database"),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "damaged"),
        (lambda path: _newer(path), "Use the release that wrote it"),
    ],
    ids=["absent", "other", "cut off", "newer"],
)
def test_a_record_that_cannot_be_read_is_one_line(run: Path, nas, tmp_path, damage, words) -> None:
    path = tmp_path / "record.db"
    path.write_bytes((run / "record.db").read_bytes())
    damage(path)
    done = nas("dashboard", tmp_path, "--no-browser", "--port", 0, code=2)
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    report = nas("report", tmp_path, code=2)
    assert report.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def _newer(path):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE nas_alembic_version SET version_num = 'v999'")
    connection.close()


def test_report_writes_one_file(run: Path, nas, tmp_path: Path) -> None:
    target = tmp_path / "mail.html"
    result = json.loads(nas("report", run, "-o", target, "--json").stdout)
    assert result["path"] == str(target)
    assert result["bytes"] == target.stat().st_size
    assert target.read_text().startswith("<!doctype html>")
    small = json.loads(nas("report", run, "--trials", 0, "--json").stdout)
    assert small["path"] == str(run / "report.html")
    assert small["bytes"] < result["bytes"]


def test_report_refuses_what_it_cannot_write(run: Path, nas, tmp_path: Path) -> None:
    assert "is a directory" in nas("report", run, "-o", tmp_path, code=2).stderr
    missing = tmp_path / "no" / "report.html"
    assert "Cannot write" in nas("report", run, "-o", missing, code=2).stderr
    assert "Unknown study" in nas("report", run, "--study", "nothing", code=2).stderr
