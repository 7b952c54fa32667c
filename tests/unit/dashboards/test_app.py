"""Who is answered what: names, origins, the token, files, and nothing outside the workspace."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import re
import sqlite3
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.unit.dashboards.recording import serving

WISH = json.dumps({"kind": "export", "study": "digits", "trial": 3})


@pytest.fixture(name="ask")
def server(place):
    with serving(place) as port:

        def ask(path, method="GET", body=None, **headers):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            sent = {"Host": f"127.0.0.1:{port}"}
            sent |= {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer, content

        ask.port = port
        yield ask


def token_of(ask):
    _, page = ask("/")
    return re.search(rb'name="token" content="([^"]+)"', page).group(1).decode()


def test_the_page_and_its_files_are_served_and_bound_to_this_machine(ask):
    answer, page = ask("/")
    assert answer.status == 200
    names = re.findall(rb'src="/static/([^"]+)"', page)
    assert names == [b"app.js", b"plotly.js"]
    assert not re.search(rb'(?:src|href)="(?!/static/|data:|#)', page)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    for name in ("app.js", "app.css", "plotly.js"):
        answer, content = ask(f"/static/{name}")
        assert answer.status == 200
        packed, small = ask(f"/static/{name}", Accept_Encoding="gzip")
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(small) == content


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2f..%2fapp.py",
        "/static/%2e%2e/%2e%2e/pyproject.toml",
        "/static//etc/passwd",
        "/etc/passwd",
        "/record.db",
        "/../record.db",
        "/api/architecture?key=../../record.db",
        "/api/front?study=../../record.db",
        "/api/trial?study=..%2f..&number=0",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_path_leads_to_a_file(ask, path):
    answer, content = ask(path)
    assert answer.status == 404
    assert len(content) < 400
    assert b"SQLite" not in content


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8765"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
def test_other_origins_and_names_are_refused(ask, headers):
    for path in ("/api/studies", "/api/front?study=digits", "/static/app.js"):
        answer, content = ask(path, **headers)
        assert answer.status == 403
        assert b"digits" not in content
    answer, _ = ask("/api/requests", "POST", WISH, X_Paretonas_Token=token_of(ask), **headers)
    assert answer.status == 403


def test_our_own_page_is_answered(ask):
    own = f"http://127.0.0.1:{ask.port}"
    answer, content = ask("/api/studies", Origin=own, Sec_Fetch_Site="same-origin")
    assert answer.status == 200
    assert {study["name"] for study in json.loads(content)["studies"]} == {"digits", "other"}


def test_work_is_asked_for_with_the_token_alone(ask):
    assert ask("/api/requests", "POST", WISH)[0].status == 403
    assert ask("/api/requests", "POST", WISH, X_Paretonas_Token="guess")[0].status == 403
    for method in ("PUT", "DELETE", "PATCH"):
        assert ask("/api/requests", method, X_Paretonas_Token=token_of(ask))[0].status == 403
    assert ask("/api/studies", "POST", "{}", X_Paretonas_Token=token_of(ask))[0].status == 403
    _, content = ask("/api/requests?study=digits&number=3")
    assert json.loads(content) == {"requests": []}


@pytest.mark.parametrize(
    ("wish", "status"),
    [
        ({"kind": "delete", "study": "digits", "trial": 3}, 400),
        ({"kind": "export", "study": "digits", "trial": -1}, 400),
        ({"kind": "export", "study": "digits", "trial": 3, "to": ["sh"]}, 400),
        ({"kind": "export", "study": "nothing", "trial": 3}, 404),
        ({"kind": "export", "study": "digits", "trial": 9999}, 404),
        ({"kind": "export", "study": "x" * 9000, "trial": 3}, 400),
        ({"kind": "export", "study": "x" * 20000, "trial": 3}, 403),
        ([], 400),
    ],
    ids=str,
)
def test_a_wish_that_makes_no_sense_is_one_line(ask, wish, status):
    headers = {"X_Paretonas_Token": token_of(ask), "Content_Type": "application/json"}
    answer, content = ask("/api/requests", "POST", json.dumps(wish), **headers)
    assert answer.status == status
    text = json.loads(content)["error"]
    assert text
    assert "\n" not in text


def keep_audit(place, directory):
    """Record an audit of trial 3 that says its export is in some directory."""
    digest = "ab" * 32
    audit = {"form": "plain", "formats": ["python"], "passed": True, "checks": []}
    (place / "artifacts").mkdir(exist_ok=True)
    document = {"audit": audit, "directory": str(directory)}
    (place / "artifacts" / f"{digest}.json").write_text(json.dumps(document))
    with sqlite3.connect(place / "record.db") as connection:
        connection.execute(
            "INSERT INTO artifact (trial_id, name, kind, content_hash, size) "
            "SELECT id, 'a', 'audit', ?, 1 FROM trial WHERE study_id = 1 AND number = 3",
            (digest,),
        )
    connection.close()


def export_in(folder: Path, names=("model.py",)):
    folder.mkdir(parents=True)
    (folder / "model.py").write_text("print(1)\n")
    (folder / "secret.txt").write_text("not of the export\n")
    (folder / "export.json").write_text(json.dumps({"files": {name: {} for name in names}}))
    return folder


DOWNLOAD = "/api/export?study=digits&number=3&audit=0"


def test_an_export_is_one_file_of_what_its_manifest_lists(ask, place):
    keep_audit(place, export_in(place / "exports" / "net"))
    answer, content = ask(DOWNLOAD)
    assert answer.status == 200
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert sorted(name.partition("/")[2] for name in names) == ["export.json", "model.py"]
    assert ask(DOWNLOAD.replace("audit=0", "audit=1"))[0].status == 404


@pytest.mark.parametrize("names", [("../../record.db",), ("model.py", "gone.py"), ("/etc/passwd",)])
def test_a_manifest_leads_nowhere_else(ask, place, names):
    keep_audit(place, export_in(place / "exports" / "net", names))
    answer, content = ask(DOWNLOAD)
    assert answer.status == 404
    assert b"SQLite" not in content


def test_an_export_outside_the_workspace_is_not_given(ask, place, tmp_path):
    keep_audit(place, export_in(tmp_path / "elsewhere"))
    answer, content = ask(DOWNLOAD)
    assert answer.status == 404
    assert b"outside the workspace" in content


def test_links_that_lead_outside_are_not_followed(ask, place, tmp_path):
    folder = export_in(place / "exports" / "net")
    (folder / "model.py").unlink()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "model.py").symlink_to(tmp_path / "secret.txt")
    keep_audit(place, folder)
    assert ask(DOWNLOAD)[0].status == 404
    outside = export_in(tmp_path / "elsewhere")
    (place / "link").symlink_to(outside)
    keep_audit_again = json.loads((place / "artifacts" / f"{'ab' * 32}.json").read_text())
    keep_audit_again["directory"] = str(place / "link")
    (place / "artifacts" / f"{'ab' * 32}.json").write_text(json.dumps(keep_audit_again))
    assert ask(DOWNLOAD)[0].status == 404


def test_a_record_that_breaks_while_it_is_shown_is_told_in_one_line(ask, place):
    assert ask("/api/front?study=digits")[0].status == 200
    whole = (place / "record.db").read_bytes()
    (place / "record.db").write_bytes(whole[:5000] + b"\xff" * (len(whole) - 5000))
    answer, content = ask("/api/front?study=digits")
    assert answer.status == 404
    assert "damaged" in json.loads(content)["error"]
    (place / "record.db").unlink()
    assert "There is no record" in json.loads(ask("/api/studies")[1])["error"]
    (place / "record.db").write_bytes(whole)
    assert ask("/api/front?study=digits")[0].status == 200


def test_a_deleted_study_is_told_with_those_there_are(ask, place):
    assert ask("/api/front?study=other")[0].status == 200
    from studies.storage import Repository

    with Repository.open(place / "record.db") as repository:
        repository.delete_study(repository.study("other").id)
    answer, content = ask("/api/front?study=other")
    assert answer.status == 404
    assert "Unknown study 'other'" in json.loads(content)["error"]


def test_names_with_all_kinds_of_letters_are_found(ask, place):
    name = '../<b>"&?#%2F\\ö'
    with sqlite3.connect(place / "record.db") as connection:
        connection.execute("UPDATE study SET name = ? WHERE name = 'other'", (name,))
    connection.close()
    answer, content = ask(f"/api/front?study={quote(name, safe='')}")
    assert answer.status == 200
    assert json.loads(content)["study"] == name
