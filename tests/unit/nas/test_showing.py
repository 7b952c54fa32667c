"""What ``nas show`` says of a figure."""

from nas.jobs.common import front_table
from nas.jobs.showing_text import _figures

REASON = "others used the core more than 10 % of the time"


def test_a_latency_that_was_disturbed_is_shown_as_such():
    detail = {"device": "cpu (x)", "batch": 1, "mode": "eager"}
    figure = {"value": 1.5, "low": 1.0, "high": 2.0, "detail": {**detail, "disturbed": [REASON]}}
    text = " ".join(_figures({"latency_ms": figure}).split())
    assert "1.5 (1 to 2)" in text
    assert f"DISTURBED: {REASON}" in text
    assert "DISTURBED" not in _figures({"latency_ms": {**figure, "detail": detail}})


def test_a_front_says_which_variants_its_networks_have() -> None:
    def point(trial: int, regions: str) -> dict[str, object]:
        text = f"input 8; linear 8; linear 8; linear 8{regions}"
        return {"key": "a" * 32, "trial": trial, "text": text, "values": {}}

    mixed = point(
        3, " | w8a8 on 1 | shfl_bw(V=32,density=0.5) on 2 | shfl_bw(V=64,density=0.5) on 3"
    )
    lines = front_table([mixed, point(4, "")], ["params"]).splitlines()
    assert lines[1].split() == ["key", "trial", "variants"]
    assert lines[2].endswith("  shfl_bw 2, w8a8 1")
    assert lines[3].split() == ["aaaaaaaa", "4"]
    dense = front_table([point(4, "")], ["params"], [point(0, "") | {"name": "mine"}])
    assert "variants" not in dense
    assert dense.splitlines()[-1].endswith("mine")
