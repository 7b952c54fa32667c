from __future__ import annotations

import json
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from dashboards.figure_parts import DENSE, RING, hover_text, plain, tick_label
from dashboards.front_data import Metric, Point
from dashboards.front_figure import FRONT, front_figure
from dashboards.parallel_figure import parallel_figure
from dashboards.theme import DARK, LIGHT

TWO = (
    Metric("accuracy", "Validation accuracy", "max", "%", "95 % interval"),
    Metric("latency_ms", "Latency", "min", "ms", "p10 to p90"),
)


def traces(figure: go.Figure, name: str) -> list[dict]:
    found = [t for t in figure.to_plotly_json()["data"] if t.get("name") == name]
    return [trace for trace in found if "customdata" in trace]


@pytest.mark.parametrize("count", [0, 1, 5, 36])
@pytest.mark.parametrize("objectives", [2, 3])
def test_json_is_finite_and_holds_every_point_once_per_panel(study, count, objectives):
    three = study(count=count).objectives
    data = study(three[:objectives], count=count)
    for figure in (front_figure(data), parallel_figure(data)):
        text = json.dumps(figure.to_plotly_json(), allow_nan=False)
        assert "NaN" not in text
        go.Figure(json.loads(text))  # every attribute is one that Plotly knows
    figure = front_figure(data)
    panels = 1 if objectives == 2 or not count else 3
    for name, points in ((FRONT, data.front), ("Dominated", data.dominated)):
        drawn = traces(figure, name)
        assert len(drawn) == panels
        for trace in drawn:
            assert list(trace["customdata"]) == [p.key for p in points]


def test_bars_reach_from_low_to_high(study):
    data = study()
    axes = (("x", "latency_ms"), ("y", "accuracy"))
    for name, points in ((FRONT, data.front), ("Dominated", data.dominated)):
        trace = traces(front_figure(data), name)[0]
        for side, metric in axes:
            bars = trace[f"error_{side}"]
            for index, p in enumerate(points):
                value = trace[side][index]
                assert value == p.values[metric]
                assert value - bars["arrayminus"][index] == pytest.approx(p.low[metric], abs=1e-12)
                assert value + bars["array"][index] == pytest.approx(p.high[metric], abs=1e-12)


def test_very_many_dominated_points_have_no_bars_and_the_figure_says_so(study):
    data = study(count=DENSE + 40)
    assert len(data.dominated) >= DENSE
    figure = front_figure(data)
    assert traces(figure, "Dominated")[0]["error_y"] == {"visible": False}
    assert "array" in traces(figure, FRONT)[0]["error_y"]
    assert "bars, of the front only: " in figure.layout.title.subtitle.text


def test_exact_metrics_have_no_bars(study):
    params_against_accuracy = traces(front_figure(study()), FRONT)[1]
    assert params_against_accuracy["error_x"] == {"visible": False}


def test_the_front_stands_out(study):
    figure = front_figure(study(TWO))
    (front,), (dim,) = traces(figure, FRONT), traces(figure, "Dominated")
    assert front["marker"]["size"] > dim["marker"]["size"]
    assert (front["marker"]["color"], dim["marker"]["color"]) == (LIGHT.accent, LIGHT.dim)
    names = [t.name for t in figure.data]
    assert names.index("Dominated") < names.index(FRONT)  # later is drawn above


def test_the_staircase_of_two_objectives_visits_the_whole_front(study):
    data = study(TWO)
    line = next(t for t in front_figure(data).data if t.mode == "lines")
    assert line.line.shape == "hv"
    assert sorted(line.x) == list(line.x) == sorted(p.values["latency_ms"] for p in data.front)


def test_a_third_objective_is_coloured_in_its_own_scale(study):
    data = study()
    figure = front_figure(data)
    place = [round(10**c) for c in traces(figure, FRONT)[0]["marker"]["color"]]
    assert place == [p.values["params"] for p in data.front]
    axis = figure.layout.coloraxis
    assert axis.colorbar.title.text == "Parameters, lower is better"
    assert "20k" in axis.colorbar.ticktext
    assert (figure.layout.xaxis.type, figure.layout.xaxis2.type) == ("linear", "log")


def test_axes_say_what_in_which_unit_and_which_way(study):
    layout = front_figure(study()).layout
    assert layout.xaxis.title.text == "Latency (ms)<br><i>lower is better</i>"
    assert layout.yaxis.title.text == "Validation accuracy<br><i>higher is better</i>"
    assert layout.title.text == "<b>Validation accuracy against latency</b>"
    assert "cpu: AMD EPYC 9654" in layout.title.subtitle.text


def test_no_point_says_so(study):
    (note,) = front_figure(study(count=0)).layout.annotations
    assert note.text == "No candidate has been trained yet."


def test_parallel_lines_put_better_up(study):
    data = study()
    figure = parallel_figure(data)
    (front,) = traces(figure, FRONT)
    width = len(data.objectives) + 1
    starts = range(0, len(front["x"]), width)
    assert [front["customdata"][s] for s in starts] == [p.key for p in data.front]
    assert all(front["x"][s + width - 1] is None for s in starts)
    by_latency = sorted(starts, key=lambda s: front["y"][s + 1], reverse=True)
    times = {p.key: p.values["latency_ms"] for p in data.front}
    fastest_first = [times[front["customdata"][s]] for s in by_latency]
    assert fastest_first == sorted(fastest_first)


def test_each_panel_has_one_empty_ring(study):
    for figure, panels in ((front_figure(study()), 3), (parallel_figure(study()), 1)):
        rings = [t for t in figure.data if t.meta == RING]
        assert [list(ring.x) for ring in rings] == [[]] * panels


def test_hover_tells_all_and_is_escaped(study):
    data = study()
    words = hover_text(data.front[0], data)
    assert data.front[0].key[:8] in words
    for label in ("Validation accuracy", "Latency", "Parameters", "MACs", "Test accuracy"):
        assert label in words
    assert " ms</b>" in words
    assert "p10 to p90" in words
    evil = replace(data.front[0], text="<a href='http://e.vil'>x</a> " * 80, key="<b>key")
    words = hover_text(evil, data)
    assert "<a " not in words
    assert "&lt;a " in words
    assert words.count("<br>") <= 6 + 6


def test_quotes_are_shown_as_they_are_and_long_names_cut():
    assert plain("a \"b\" 'c' <d> & e") == "a \"b\" 'c' &lt;d&gt; &amp; e"
    assert plain("x" * 49) == "x" * 47 + "\u2026"
    assert plain("x" * 48) == "x" * 48


def test_names_are_escaped_in_titles(study):
    evil = Metric("latency_ms", "<a href='http://e.vil'>L</a>", "min")
    text = json.dumps(front_figure(study((TWO[0], evil), study="<img src=x>")).to_plotly_json())
    assert "<a " not in text
    assert "<img" not in text


def test_equal_values_do_not_collapse_an_axis(study):
    exact = {"accuracy": 0.9, "latency_ms": 1.0}
    points = tuple(Point(str(n), n, "t", exact, on_front=True) for n in (1, 2))
    data = study(TWO, points=points)
    for axis in (front_figure(data).layout.xaxis, front_figure(data).layout.yaxis):
        assert axis.range[0] < axis.range[1]
    heights = [y for y in traces(parallel_figure(data), FRONT)[0]["y"] if y is not None]
    assert heights == pytest.approx([0.5] * 4)


@pytest.mark.parametrize(
    ("value", "label"), [(0.975, "97.5%"), (1.0, "100%"), (0.3, "30%"), (0.57, "57%")]
)
def test_percent_ticks(value, label):
    assert tick_label(TWO[0], value) == label


@pytest.mark.parametrize(
    ("value", "label"), [(0.2, "0.2"), (5000, "5k"), (2e5, "200k"), (1.5e6, "1.5M"), (0, "0")]
)
def test_plain_ticks(value, label):
    assert tick_label(TWO[1], value) == label


def test_colours_swap_one_to_one():
    swaps = LIGHT.swaps(DARK)
    assert len(swaps) == 12 + len(LIGHT.scale)
    assert swaps[LIGHT.ink] == DARK.ink
    assert swaps[LIGHT.scale[0]] == DARK.scale[0]
