"""A recorded study, its dashboard, and a page in the distribution's Chromium."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.dashboards.recording import record_study, serving

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
READY = "main:not([aria-busy]) :is(h1, h2)"


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session", name="browser")
def start_browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium; 'apt-get install chromium' brings it")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session", name="recorded")
def record_once(tmp_path_factory):
    place = tmp_path_factory.mktemp("recorded")
    record_study(place)
    record_study(place, "other", trials=8, seed=5)
    return place


@pytest.fixture(name="place")
def copy_of_the_record(recorded, tmp_path):
    """A workspace of the test's own."""
    shutil.copy(recorded / "record.db", tmp_path / "record.db")
    return tmp_path


@pytest.fixture(name="port")
def serve_it(place):
    with serving(place) as port:
        yield port


@pytest.fixture(scope="session", name="shots")
def folder_of_screenshots():
    """Kept after the tests, to be looked at."""
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def start_page(browser, port):
    """Open a page whose console errors and requests elsewhere fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)  # the machine may be busy
    page = context.new_page()
    seen = SimpleNamespace(errors=[], requests=[])
    page.on("console", lambda m: seen.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda problem: seen.errors.append(str(problem)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.base, page.seen = f"http://127.0.0.1:{port}/", seen
    yield page
    context.close()
    own = (page.base, "blob:", "data:", "file:")
    assert [url for url in seen.requests if not url.startswith(own)] == []
    assert seen.errors == []


@pytest.fixture(name="page")
def open_page(browser, port):
    with start_page(browser, port) as page:
        yield page


@pytest.fixture(name="visit")
def visitor(page):
    def visit(place: str):
        page.goto("about:blank")
        page.goto(f"{page.base}#/{place}")
        page.wait_for_selector(READY)
        return page

    return visit
