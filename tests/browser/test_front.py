"""The front page in a browser, against what Python says of the same record."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ElementTree
from urllib.parse import parse_qs, urlsplit

import pytest

from studies.front import front
from studies.metrics import parse_constraint
from studies.pareto import non_dominated
from studies.storage import Repository, TrialState
from tests.unit.dashboards.recording import OBJECTIVES, add_trial

DRAWN = "[data-drawn]"
PIXEL = """(node, number) => {
  const trace = node.data.findIndex((t) => (t.customdata || []).some((c) => c[1] === number));
  const at = node.data[trace].customdata.findIndex((c) => c[1] === number);
  const { xaxis, yaxis } = node._fullLayout;
  const box = node.getBoundingClientRect();
  return [box.x + xaxis._offset + xaxis.d2p(node.data[trace].x[at]),
          box.y + yaxis._offset + yaxis.d2p(node.data[trace].y[at])];
}"""


def complete(place, name="digits"):
    with Repository.open(place / "record.db") as repository:
        trials = repository.trials(repository.study(name).id)
    return [trial for trial in trials if trial.state is TrialState.COMPLETE]


def counts(page):
    page.wait_for_timeout(120)  # two frames: the page redraws in the next
    return tuple(
        int(page.locator(f"[data-count={kind}]").first.inner_text()) for kind in ("kept", "front")
    )


def expected(trials, bounds=(), until=None):
    kept = [
        trial
        for trial in trials
        if (until is None or trial.number <= until)
        and all(b.violation(trial.values[str(b.metric)].value) <= 0 for b in bounds)
    ]
    rows = [[trial.values[name].value for name in OBJECTIVES] for trial in kept]
    return len(kept), len(non_dominated(rows, ["max", "min", "min"]))


def bounds_of(page):
    query = parse_qs(urlsplit(page.url).fragment.partition("?")[2])
    return [parse_constraint(word) for word in query.get("b", []) if word != "-"]


def test_the_page_shows_the_front_that_the_study_has(place, visit):
    page = visit("front?study=digits")
    page.wait_for_selector(DRAWN)
    points = front(place, "digits")
    assert counts(page) == (len(complete(place)), len(points))
    links = page.locator("table a").all_inner_texts()
    assert [int(text) for text in links] == [
        point.trial
        for point in sorted(points, key=lambda p: (-p.values["accuracy"].value, p.trial))
    ]


def test_a_click_on_a_front_point_opens_its_architecture(place, visit):
    page = visit("front?study=digits")
    page.wait_for_selector(DRAWN)
    point = front(place, "digits")[0]
    page.mouse.click(*page.locator(".figure").evaluate(PIXEL, point.trial))
    page.wait_for_url(re.compile(rf"#/trial\?study=digits&n={point.trial}$"))
    page.wait_for_selector(".graph")
    assert page.locator("h1").inner_text().startswith(f"Trial {point.trial}")
    assert page.locator("code.block").inner_text() == point.text
    assert page.locator(".js-plotly-plot").count() == 2  # training curve, samples


@pytest.mark.parametrize("metric", OBJECTIVES)
def test_a_slider_counts_as_python_does(place, visit, metric):
    page = visit("front?study=digits")
    slider = page.locator(f"input[data-metric='{metric}']")
    slider.focus()
    for _ in range(6):
        slider.press("ArrowRight" if metric == "accuracy" else "ArrowLeft")
    found = counts(page)
    (bound,) = bounds_of(page)
    assert str(bound.metric) == metric
    assert found == expected(complete(place), [bound])
    assert found[0] < len(complete(place))


def test_a_brush_in_parallel_coordinates_counts_as_python_does(place, visit):
    page = visit("front?study=digits&view=parallel")
    box = page.locator("[data-axis=latency_ms]").bounding_box()
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(x, box["y"] + 0.6 * box["height"], steps=4)
    page.mouse.up()
    found = counts(page)
    bounds = bounds_of(page)
    assert [bound.relation for bound in bounds] == [">=", "<="]
    assert found == expected(complete(place), bounds)
    assert 0 < found[0] < len(complete(place))


def test_the_replay_shows_the_study_as_it_was(place, visit):
    page = visit("front?study=digits")
    slider = page.locator("#time")
    slider.focus()
    slider.press("Home")
    for _ in range(9):
        slider.press("ArrowRight")
    assert counts(page) == expected(complete(place), until=9)
    assert "until=9" in page.url


def test_a_link_keeps_the_view(place, visit):
    words = "x=params&y=latency_ms&c=rf_gain&b=latency_ms%3C%3D1.2&until=20"
    page = visit(f"front?study=digits&{words}")
    page.wait_for_selector(DRAWN)
    bound = parse_constraint("latency_ms<=1.2")
    assert counts(page) == expected(complete(place), [bound], until=20)
    layout = page.locator(".figure").evaluate("node => [node.layout.xaxis, node.layout.yaxis]")
    assert layout[0]["title"]["text"].startswith("Parameters")
    assert layout[1]["title"]["text"].startswith("Latency (ms)")
    before = page.url
    page.reload()
    page.wait_for_selector(DRAWN)
    assert page.url == before
    assert counts(page) == expected(complete(place), [bound], until=20)


def test_a_new_trial_is_seen_within_two_seconds(place, visit):
    page = visit("front?study=digits&y=accuracy")
    before = counts(page)
    page.wait_for_selector(".live.on")
    page.wait_for_timeout(1000)  # the page has asked at least once
    slider = page.locator("input[data-metric=latency_ms]")
    slider.focus()
    started = time.monotonic()
    number = add_trial(place, "digits", width=5, accuracy=0.9999, latency_ms=0.001)
    page.wait_for_selector(f"table a >> text='{number}'", timeout=10_000)
    assert time.monotonic() - started <= 2
    assert counts(page)[0] == before[0] + 1
    assert page.evaluate("document.activeElement.dataset.metric") == "latency_ms"


def test_the_table_says_which_variants_networks_have(place, visit):
    page = visit("front?study=digits")
    heads = "table thead th >> text=Variants"
    assert page.locator(heads).count() == 0
    figures = {"accuracy": 0.9999, "latency_ms": 0.001}
    add_trial(place, "digits", width=6, regions=" | w8a8 on 1 | w8a8 on 4", **figures)
    page.reload()
    page.wait_for_selector(DRAWN)
    assert page.locator(heads).count() == 1
    assert page.locator("table td.wraps").all_inner_texts()[0] == "w8a8 2"


def test_studies_lie_over_each_other(place, visit):
    page = visit("front?study=digits&with=other")
    page.wait_for_selector(DRAWN)
    kept = [int(text) for text in page.locator("[data-count=kept]").all_inner_texts()]
    assert kept == [len(complete(place)), len(complete(place, "other"))]
    names = page.locator(".figure").evaluate("node => node.data.map((trace) => trace.name)")
    assert "digits: on the front" in names
    assert "other: on the front" in names


def test_three_axes_are_drawn(visit):
    page = visit("front?study=digits&view=3d")
    page.wait_for_selector(DRAWN)
    types = page.locator(".figure").evaluate("node => node.data.map((trace) => trace.type)")
    assert set(types) == {"scatter3d"}


def test_the_fronts_of_several_studies_are_brushed_together(place, visit):
    page = visit("front?study=digits&with=other&view=parallel")
    lines = page.locator(".parallel .line.front")
    assert lines.count() == 2
    strokes = lines.evaluate_all("all => all.map((line) => line.getAttribute('stroke'))")
    assert strokes[0] != strokes[1]
    number = min(point.trial for point in front(place, "other"))
    start = lines.nth(1).get_attribute("d")[1:].split("L")
    (x0, y0), (x1, y1) = (map(float, point.split()) for point in start[:2])
    box = page.locator(".parallel").bounding_box()
    share = 0.3
    at = box["x"] + x0 + share * (x1 - x0), box["y"] + y0 + share * (y1 - y0)
    page.mouse.move(*at)
    assert page.locator(".parallel .tip").text_content().endswith(f"trial {number}")
    page.mouse.click(*at)
    page.wait_for_url(re.compile(rf"#/trial\?study=other&n={number}$"))


def test_a_link_keeps_how_far_in_the_figure_is(visit):
    page = visit("front?study=digits&zoom=0.5,1.5,0.9,1")
    page.wait_for_selector(DRAWN)
    ranges = "node => [...node._fullLayout.xaxis.range, ...node._fullLayout.yaxis.range]"
    assert page.locator(".figure").evaluate(ranges) == [0.5, 1.5, 0.9, 1]
    page.locator(".figure").evaluate("node => Plotly.relayout(node, {'xaxis.range': [0.6, 1.2]})")
    page.wait_for_url(re.compile(r"zoom=0\.6"))
    page.reload()
    page.wait_for_selector(DRAWN)
    assert page.locator(".figure").evaluate(ranges) == pytest.approx([0.6, 1.2, 0.9, 1])


def test_a_slider_that_is_held_stays_in_the_hand_while_trials_arrive(place, visit):
    page = visit("front?study=digits")
    page.wait_for_selector(".live.on")
    page.wait_for_timeout(1000)
    box = page.locator("input[data-metric=latency_ms]").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 8, y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], y, steps=3)
    before = counts(page)
    number = add_trial(place, "digits", width=5, accuracy=0.9999, latency_ms=0.001)
    page.wait_for_selector(f"table a >> text='{number}'", timeout=10_000)
    assert counts(page)[0] == before[0] + 1
    page.mouse.move(box["x"] + 0.4 * box["width"], y, steps=3)
    page.mouse.up()
    (bound,) = bounds_of(page)
    assert counts(page) == expected(complete(place), [bound])
    assert counts(page)[0] < before[0]


def test_any_figure_can_be_on_any_axis_and_be_bounded(place, visit):
    page = visit("front?study=digits&x=rf_gain&y=depth&c=%23trial&m=rf_gain&b=rf_gain%3E%3D20")
    page.wait_for_selector(DRAWN)
    titles = page.locator(".figure").evaluate(
        "node => [node.layout.xaxis.title.text, node.layout.yaxis.title.text]"
    )
    assert titles[0].startswith("3DRF gain (nats)")
    assert titles[1].startswith("Depth")
    kept = [trial for trial in complete(place) if trial.values["rf_gain"].value >= 20]
    assert counts(page)[0] == len(kept)
    page.get_by_role("button", name="Leave out 3DRF gain").click()
    page.wait_for_selector("input[data-metric=rf_gain]", state="detached")
    assert counts(page)[0] == len(complete(place))


@pytest.mark.parametrize("view", ["2d", "3d", "parallel"])
@pytest.mark.parametrize("kind", ["PNG", "SVG"])
def test_the_figure_is_saved(visit, view, kind):
    page = visit(f"front?study=digits&view={view}")
    page.wait_for_selector(DRAWN)
    with page.expect_download() as download:
        page.locator(".figure-box").get_by_role("button", name=kind).click()
    content = download.value.path().read_bytes()
    assert download.value.suggested_filename.endswith(f".{kind.lower()}")
    if kind == "PNG":
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
    else:
        assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
        assert view == "3d" or b"Latency (ms)" in content


def test_plotly_cannot_upload(visit):
    page = visit("front?study=digits")
    page.wait_for_selector(DRAWN)
    titles = page.locator(".modebar-btn").evaluate_all("all => all.map((b) => b.dataset.title)")
    assert titles
    assert not any(re.search("cloud|share|edit", title, re.IGNORECASE) for title in titles)
