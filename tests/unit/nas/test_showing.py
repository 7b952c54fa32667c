"""What ``nas show`` says of a figure."""

from nas.jobs.showing_text import _figures

REASON = "others used the core more than 10 % of the time"


def test_a_latency_that_was_disturbed_is_shown_as_such():
    detail = {"device": "cpu (x)", "batch": 1, "mode": "eager"}
    figure = {"value": 1.5, "low": 1.0, "high": 2.0, "detail": {**detail, "disturbed": [REASON]}}
    text = " ".join(_figures({"latency_ms": figure}).split())
    assert "1.5 (1 to 2)" in text
    assert f"DISTURBED: {REASON}" in text
    assert "DISTURBED" not in _figures({"latency_ms": {**figure, "detail": detail}})
