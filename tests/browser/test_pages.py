"""The other pages, names that would do harm, the report, and how it all looks."""

from __future__ import annotations

import csv
import json
import random
import sqlite3

import pytest

from dashboards.report import write_report
from search_spaces.architecture import Architecture
from studies.front import front
from studies.storage import Repository
from tests.browser.conftest import READY

PAGES = (
    "studies",
    "front?study=digits",
    "front?study=digits&view=parallel",
    "trial?study=digits&n=12",
    "compare?study=digits&t=1,2,3",
    "progress?study=digits",
    "proxies?study=digits",
    "space?study=digits",
    "kernels",
)
"""Every page, of the study that the tests recorded."""

axe = pytest.importorskip("axe_playwright_python.sync_playwright")

HOSTILE = '<img src=x onerror="window.harmed=1"></script><script>window.harmed=2</script>'


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_every_page_fits_its_window_and_is_open_to_all(visit, shots, look):
    """Nothing is wider than its window; axe finds no fault of contrast, names, roles or order."""
    faults = []
    for number, place in enumerate(PAGES):
        page = visit(place)
        page.emulate_media(color_scheme="dark" if look == "dark" else "light")
        page.set_viewport_size({"width": 390 if look == "phone" else 1280, "height": 844})
        page.wait_for_timeout(250)
        page.screenshot(path=shots / f"{number}-{look}.png", full_page=True)
        assert page.locator(".error").count() == 0, place
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{place} is {wide} px wider than its window"
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 19, 24)"
        assert dark == (look == "dark")
        faults += [f"{place}: {fault}" for fault in faults_of(page)]
    assert faults == []


def faults_of(page):
    """Return what axe finds; plotly's own drawing is left out, a table gives the same."""
    result = axe.Axe().run(page, context={"exclude": [[".js-plotly-plot"]]})
    return [
        f"{item['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
        for item in result.response["violations"]
        for node in item["nodes"]
    ]


def test_marked_candidates_are_compared_layer_by_layer(place, visit):
    page = visit("front?study=digits")
    boxes = page.locator("table input[type=checkbox]")
    boxes.nth(0).check()
    boxes.nth(1).check()
    first, second = (int(text) for text in page.locator("table a").all_inner_texts()[:2])
    page.get_by_role("button", name="Compare 2 candidates").click()
    table = page.get_by_role("table", name="Layers aligned")
    table.wait_for()
    assert table.locator("th button").all_inner_texts() == [f"Trial {first}", f"Trial {second}"]
    with Repository.open(place / "record.db") as repository:
        trials = repository.trials(repository.study("digits").id)
        nets = [repository.architecture(trials[n].key) for n in (first, second)]
    rows = table.locator("tbody tr")
    for column, net in enumerate(nets):
        texts = rows.locator(f"td:nth-child({column + 2}) code").all_inner_texts()
        assert texts == [node.op.text for node in net.nodes]
    for row in rows.all():
        codes = row.locator("code").all_inner_texts()
        if len(codes) < 2 or codes[0] != codes[1]:
            assert row.get_attribute("class") == "differs"
            marked = " ".join(row.locator("mark").all_inner_texts()).split()
            if len(codes) == 2:
                different = set(codes[0].split()) ^ set(codes[1].split())
                assert set(marked) == different


def match(a, b):
    """Return what a pair counts, as the page says: equal 3, of one kind 1, else it is no pair."""
    return 3 if a == b else int(a.split()[0] == b.split()[0])


def best(one, other):
    """Return the largest sum of matches of any alignment."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1][j + 1] = max(table[i][j + 1], table[i + 1][j], table[i][j] + match(a, b))
    return table[-1][-1]


def test_layers_are_aligned_like_with_like(visit):
    rng = random.Random(1)
    kinds = ["conv 8", "conv 16", "add", "sliding 8", "gap"]
    page = visit("studies")
    for _ in range(60):
        networks = [rng.choices(kinds, k=rng.randint(0, 7)) for _ in range(rng.randint(2, 4))]
        rows = page.evaluate("networks => nas.align(networks)", networks)
        for number, network in enumerate(networks):  # each layer is there once, in order
            assert [row[number] for row in rows if row[number] is not None] == list(
                range(len(network))
            )
        one, other = networks[:2]
        pairs = [row[:2] for row in rows if row[0] is not None and row[1] is not None]
        assert sum(match(one[i], other[j]) for i, j in pairs) == best(one, other)
        assert all(match(one[i], other[j]) for i, j in pairs)


def test_an_architecture_is_saved_as_a_file_that_loads(place, visit):
    point = front(place, "digits")[0]
    page = visit(f"trial?study=digits&n={point.trial}")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    network = Architecture.from_json(json.loads(download.value.path().read_text()))
    assert network.key == point.key


def test_a_table_is_saved_as_csv(place, visit):
    page = visit("front?study=digits")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the table Candidates on the front as CSV").click()
    rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
    points = {point.trial: point for point in front(place, "digits")}
    assert {int(row["Trial"]) for row in rows} == set(points)
    for row in rows:
        assert float(row["Latency (ms)"]) == points[int(row["Trial"])].values["latency_ms"].value


def test_hostile_names_are_shown_and_never_run(place, visit):
    with sqlite3.connect(place / "record.db") as connection:
        (config,) = connection.execute("SELECT config FROM study WHERE name = 'digits'").fetchone()
        config = json.dumps({**json.loads(config), "space": HOSTILE})
        device = json.dumps({"device": HOSTILE})
        connection.execute(
            "UPDATE study SET name = ?, config = ?, conditions = ? WHERE name = 'digits'",
            (HOSTILE, config, device),
        )
        connection.execute(
            "UPDATE trial SET state = 'failed', reason = ? WHERE number = 3", (HOSTILE,)
        )
        decisions = json.dumps({HOSTILE: HOSTILE})
        connection.execute("UPDATE trial SET decisions = ?", (decisions,))
        connection.execute("UPDATE trial SET origin = ?", (json.dumps({"by": HOSTILE}),))
        layer = "UPDATE architecture SET document = replace(document, '\"stem\"', ?)"
        connection.execute(layer, (json.dumps(HOSTILE),))
    name = "study=" + HOSTILE.replace("=", "%3D").replace("&", "%26").replace(" ", "+")
    places = ["studies"] + [
        f"{page}?{name}{more}"
        for page, more in (
            ("front", ""),
            ("front", "&with=other"),
            ("trial", "&n=3"),
            ("trial", "&n=4"),
            ("compare", "&t=3,4"),
            ("progress", ""),
            ("proxies", ""),
            ("space", ""),
        )
    ]
    for where in places:
        page = visit(where)
        page.wait_for_timeout(150)
        assert page.evaluate("window.harmed") is None, where
        assert page.locator("main img").count() == 0, where
        assert page.locator(".error").count() == 0, page.locator("main").inner_text()
        assert "<img" in page.locator("body").inner_text(), where


def test_a_study_that_is_deleted_while_open_says_so(place, visit):
    page = visit("front?study=other")
    page.wait_for_selector(".live.on")
    page.wait_for_timeout(1000)
    with Repository.open(place / "record.db") as repository:
        repository.delete_study(repository.study("other").id)
    page.wait_for_selector("text=Unknown study 'other'")
    page.seen.errors.clear()  # the browser reports the refused request; that is meant


def test_the_report_is_one_file_that_asks_for_nothing(browser, place, tmp_path, shots):
    file = write_report(place, "digits", tmp_path / "report.html")
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    problems, requests = [], []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda problem: problems.append(str(problem)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("[data-drawn]")
    page.screenshot(path=shots / "report.png", full_page=True)
    points = front(place, "digits")
    assert page.locator("[data-count=front]").inner_text() == str(len(points))
    page.locator("table a").first.click()
    page.wait_for_selector(".graph")
    for name in ("Progress", "Proxies", "Space", "Kernels", "Studies"):
        page.get_by_role("link", name=name).click()
        page.wait_for_selector(f"{READY.replace(':is(h1, h2)', 'h1')} >> text={name}")
        assert page.locator(".error").count() == 0
    numbers = ",".join(str(point.trial) for point in points[:2])
    page.evaluate(f"nas.go('compare', {{ study: 'digits', t: '{numbers}' }})")
    page.get_by_role("table", name="Layers aligned").wait_for()
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()
