from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dashboards import FrontDataError, Metric, write_front_page
from dashboards.front_page import front_html

EVIL = "</script><script>alert(1)</script><img src=http://e.vil/x onerror=alert(2)>\"'&"


class Page(HTMLParser):
    """Collects elements, and text by element, of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def payload(self) -> dict:
        return json.loads(self.scripts[0])


def test_nothing_is_fetched(study):
    page = Page(front_html(study()))
    assert not page.all("link")
    assert not page.all("iframe")
    assert not any("src" in attrs or "href" in attrs for _, attrs in page.elements)
    (policy,) = [m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy["content"].startswith("default-src 'none'")
    assert "http" not in policy["content"]
    assert "unsafe-eval" not in policy["content"]
    ours = front_html(study()).replace(page.scripts[1], "")  # all but plotly.js
    assert "http://" not in ours
    assert "https://" not in ours


def test_plotly_is_inside_and_cannot_upload(study):
    page = Page(front_html(study()))
    assert len(page.scripts) == 3
    assert "plotly.js v" in page.scripts[1][:200]
    config = page.payload["config"]
    assert "sendChartToCloud" in config["modeBarButtonsToRemove"]
    assert config["showSendToCloud"] is False
    assert config["plotlyServerURL"] == ""


@pytest.mark.parametrize(("count", "figures"), [(0, 1), (1, 1), (5, 2), (36, 2)])
def test_a_row_per_front_point_best_first(study, count, figures):
    data = study(count=count)
    page = Page(front_html(data))
    rows = [attrs["data-key"] for attrs in page.all("tr") if "data-key" in attrs]
    assert rows == [p.key for p in data.front]
    assert len(page.payload["figures"]) == figures
    assert [a["data-figure"] for a in page.all("div") if "data-figure" in a] == list(
        page.payload["figures"]
    )
    if not count:
        assert "No candidate is trained yet." in "".join(page.words)


def test_cells_show_values_spreads_and_sort_by_the_exact_number(study):
    data = study()
    best = data.front[0]
    html = front_html(data)
    assert f'data-sort="{best.values["latency_ms"]!r}"' in html
    assert f"<small>{data.objectives[1].ends(best)}</small>" in html
    assert f"<code>{best.text}</code>" in html
    heads = Page(html).all("th")
    assert len(heads) == 8  # key, trial, accuracy, test, latency, params, macs, text
    assert all(attrs["scope"] == "col" for attrs in heads)


def test_metrics_and_test_accuracy_that_no_point_has_take_no_column(study):
    bare = tuple(replace(p, test_accuracy=None) for p in study().points)
    data = study(points=bare, others=(Metric("energy_mj", "Energy", "min", "mJ"),))
    words = "".join(Page(front_html(data)).words)
    assert "Test accuracy" not in words
    assert "Energy" not in words


def test_hostile_text_stays_text(study):
    points = tuple(replace(p, text=EVIL, key=f"{p.key}{EVIL}") for p in study().points)
    names = (
        Metric("accuracy", EVIL, "max", EVIL, EVIL),
        Metric("latency_ms", EVIL, "min", EVIL, EVIL),
        Metric("params", EVIL, "min"),
    )
    data = study(names, points=points, study=EVIL, device=EVIL, counts={EVIL: 3})
    page = Page(front_html(data))
    assert len(page.scripts) == 3
    assert not page.all("img")
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    keys = [attrs["data-key"] for attrs in page.all("tr") if "data-key" in attrs]
    assert keys == [p.key for p in data.front]
    for text in page.payload["figures"].values():
        assert "<img" not in text.replace(json.dumps(EVIL)[1:-1], "")  # keys are data, never markup
        assert "<img" not in json.dumps(json.loads(text)["layout"])


def test_a_page_has_language_title_and_a_note_without_script(study):
    html = front_html(study(study="A & B"))
    assert html.startswith('<!doctype html>\n<html lang="en">')
    assert "<title>A &amp; B: Pareto front</title>" in html
    assert re.search(r"<noscript><p[^>]*>[^<]*JavaScript", html)
    assert "<b>36</b> trained, <b>2</b> failed" in html


def test_the_page_replaces_the_old_one_and_leaves_nothing_beside(study, tmp_path: Path):
    target = tmp_path / "front.html"
    target.write_text("old")
    assert write_front_page(study(), target) == target
    assert target.read_text(encoding="utf-8") == front_html(study())
    assert [p.name for p in tmp_path.iterdir()] == ["front.html"]


def test_a_failed_write_keeps_the_old_page(study, tmp_path: Path, monkeypatch):
    target = tmp_path / "front.html"
    target.write_text("old")

    def half(self, text, **_):
        self.write_bytes(text.encode()[:100])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="disk full"):
        write_front_page(study(), str(target))
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["front.html"]


def test_the_same_data_gives_the_same_page(study):
    assert front_html(study()) == front_html(study())


def test_bad_data_never_reaches_a_page(study):
    with pytest.raises(FrontDataError):
        study(device="")
