"""Who has no mouse; and how the pages look at every amount of data."""

from __future__ import annotations

import pytest

from tests.browser.conftest import READY, start_page
from tests.unit.dashboards.large import SIX, record_large
from tests.unit.dashboards.recording import serving


def test_the_front_is_worked_by_the_keyboard_alone(visit):
    page = visit("front?study=digits")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent")
        )
    for name in ("2-D", "Across", "Replay", "Latency at most", "Compare trial"):
        assert any(text.startswith(name) for text in reached), (name, reached)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    link = page.locator("table a").first
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".graph")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize(
    ("size", "objectives"), [(0, SIX), (1, ("accuracy",)), (5, ("accuracy",)), (5, SIX)]
)
def test_pages_make_sense_at_every_amount(browser, tmp_path, shots, size, objectives):
    record_large(tmp_path, size, objectives=objectives, failing=0.0)
    with serving(tmp_path) as port, start_page(browser, port) as page:
        for name in ("front", "front&view=parallel", "progress", "proxies", "space"):
            view, _, more = name.partition("&")
            page.goto("about:blank")
            page.goto(f"{page.base}#/{view}?study=large&{more}")
            page.wait_for_selector(READY)
            page.wait_for_timeout(200)
            assert page.locator(".error").count() == 0, name
            assert page.locator("text=NaN").count() == 0, name
            assert page.locator("text=undefined").count() == 0, name
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, name
            kind = f"{view}{'-parallel' if more else ''}-{size}-of-{len(objectives)}"
            page.screenshot(path=shots / f"amount-{kind}.png", full_page=True)
            if view == "front":
                kept = page.locator("[data-count=kept]").inner_text()
                assert kept == str(size)
        if size:
            page.goto(f"{page.base}#/trial?study=large&n=0")
            page.wait_for_selector(".graph")


def test_an_empty_workspace_waits_for_its_first_study(browser, tmp_path):
    from studies.storage import Repository

    Repository.open(tmp_path / "record.db").close()
    with serving(tmp_path) as port, start_page(browser, port) as page:
        page.goto(page.base)
        page.wait_for_selector("text=No study yet")
        page.wait_for_selector(".live.on")
        page.wait_for_timeout(1000)
        record_large(tmp_path, 3)
        page.wait_for_selector("table a >> text=large", timeout=10_000)
