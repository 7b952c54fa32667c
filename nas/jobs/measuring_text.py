"""How measurements are written for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from nas.figures import duration, figure, number
from nas.jobs.common import Json, screen_width
from nas.tables import pairs, table
from studies.measurements import VERSIONS

_MARK = "*"


def measured_text(result: Json) -> str:
    """Write what was asked for: a row a network, and below them what is wrong with some."""
    rows = result["measurements"]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    by_place = {(row["network"], row["metric"]): row for row in rows}
    counts = Counter(row["how"] for row in rows)
    came = ", ".join(f"{counts[how]} {how}" for how in _HOW if counts[how])
    plural = "network" if len(networks) == 1 else "networks"
    head = (
        f"{len(networks)} {plural} on {result['device']}: {came} in "
        f"{duration(result['seconds'])}; recorded in {result['run']}"
    )
    if len(networks) < result["wanted"]:
        head += f"\nNo more than {len(networks)} different networks were found."

    def cells(bare: bool) -> str:
        lines = [
            [key[:8], *(_cell(by_place.get((key, metric)), bare) for metric in metrics)]
            for key in networks
        ]
        return table(["network", *metrics], lines)

    wide = cells(bare=False)
    fits = max(map(len, wide.splitlines())) <= screen_width()
    parts = [head, wide if fits else cells(bare=True)]
    return "\n\n".join([*parts, *filter(None, [_disturbed(rows), _failed(rows)])])


_HOW = ("measured", "stored", "failed")


def _cell(row: Json | None, bare: bool) -> str:
    if row is None:
        return ""
    if row["value"] is None:
        return "failed"
    text = number(row["metric"], row["value"]) if bare else figure(row["metric"], row)
    return text + (_MARK if row["detail"].get("disturbed") else "")


def _disturbed(rows: Sequence[Json]) -> str:
    count = sum(bool(row["detail"].get("disturbed")) for row in rows)
    if not count:
        return ""
    return f"{_MARK} {count} disturbed: recorded, but never reused; the same command tries again."


def _failed(rows: Sequence[Json]) -> str:
    found = Counter((row["metric"], row["reason"]) for row in rows if row["value"] is None)
    return "\n".join(
        f"{count} x {metric} failed: {reason}" for (metric, reason), count in found.items()
    )


def recorded_text(result: Json, *, versions: bool = False) -> str:
    """Write what a run's record holds; what is the same in all rows stands above them."""
    rows = result["measurements"]
    plural = "measurement" if len(rows) == 1 else "measurements"
    head = f"{len(rows)} {plural} in {result['run']}"
    if not rows:
        return f"{head}; make some with: nas measure SPACE --out {result['run']}"
    columns = {
        "network": [row["network"][:8] or "?" for row in rows],
        "metric": [row["metric"] for row in rows],
        "value": [figure(row["metric"], row) or "failed" for row in rows],
        "device": [_text(row["detail"], "device") for row in rows],
        "conditions": [_conditions(row["detail"]) for row in rows],
        "measured (UTC)": [row["ended"][:16].replace("T", " ") for row in rows],
        "study": [row["study"] for row in rows],
    }
    if versions:
        columns |= {name: [_text(row["detail"], name) for row in rows] for name in VERSIONS}
    columns[""] = ["disturbed" if row["detail"].get("disturbed") else "" for row in rows]
    above = []
    for name in ("device", "conditions", *VERSIONS):
        said = set(columns.get(name, ())) - ({""} if name == "conditions" else set())
        if len(said) == 1:
            above.append((name, said.pop()))
            del columns[name]
    shown = [name for name, cells in columns.items() if any(cells)]
    lines = list(zip(*(columns[name] for name in shown), strict=True))
    left = [place for place, name in enumerate(shown) if name != "value"]
    parts = [
        "\n".join(filter(None, [head, pairs([item for item in above if item[1]])])),
        table(shown, lines, left=left),
        _failed(rows),
    ]
    return "\n\n".join(filter(None, parts))


def _text(detail: Mapping[str, object], name: str) -> str:
    return "" if detail.get(name) is None else str(detail[name])


def _conditions(detail: Mapping[str, object]) -> str:
    """Say how it was run; batch, type and phase are in the metric's name."""
    found = [str(detail[name]) for name in ("mode", "cache", "layout") if detail.get(name)]
    threads = detail.get("threads")
    if threads is not None:
        found.append(f"{threads} thread{'' if threads == 1 else 's'}")
    repeats = detail.get("repeats")
    if isinstance(repeats, list):
        found.append(f"mean of {len(repeats)}")
    return ", ".join(found)


def exported_text(result: Json) -> str:
    """Say what was written."""
    return f"{result['file']}: {result['measurements']} measurements of {result['run']}."
