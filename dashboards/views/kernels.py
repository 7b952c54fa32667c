"""The recorded results of the kernel benches that ship with the package."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

_FIELDS = (
    "system",
    "case",
    "ours_us",
    "p10_us",
    "p90_us",
    "baseline",
    "baseline_us",
    "ratio",
    "roofline_us",
    "error",
    "device",
    "versions",
    "commit",
    "date",
)


def kernels_view() -> dict[str, Any]:
    """Return the records of ``kernels/results`` by file; files of another form are named so.

    A record has the case, our time, the fastest baseline's and their ratio; see ``nas bench``.
    """
    folder = files("kernels") / "results"
    found, other = [], []
    if folder.is_dir():
        for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if item.name.endswith(".json"):
                records = _records(item.read_text(encoding="utf-8"))
                if records:
                    found.append({"name": item.name.removesuffix(".json"), "records": records})
                else:
                    other.append(item.name)
    return {"files": found, "other": other}


def _records(text: str) -> list[dict[str, Any]]:
    """Return the records of a file, bare in a list or under ``results`` or ``records``."""
    try:
        document = json.loads(text)
    except ValueError:
        return []
    if isinstance(document, dict):
        document = document.get("records", document.get("results", []))
    if not isinstance(document, list):
        return []
    return [
        {field: item.get(field) for field in _FIELDS}
        for item in document
        if isinstance(item, dict) and item.get("case") and item.get("ours_us")
    ]
