"""Checks of an export that need no process: its files, its network, its model card."""

from __future__ import annotations

import json
from pathlib import Path

from evaluators.audit.truth import Truth
from evaluators.audit.values import Check
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.export.write import checksum, read_manifest


def check_files(directory: Path, truth: Truth) -> list[Check]:
    """Look at what the folder holds: all files, whole, of this network, with a card that agrees."""
    return [
        Check("files", not (wrong := _wrong_files(directory, truth)), note=wrong),
        Check("network", not (wrong := _wrong_network(directory, truth)), note=wrong),
        Check("model card", not (wrong := _wrong_card(directory, truth)), note=wrong),
    ]


def _wrong_files(directory: Path, truth: Truth) -> str:
    try:
        manifest = read_manifest(directory)
    except NasError as problem:
        return str(problem)
    order = truth.order
    for name, stated, meant in (
        ("form", manifest.get("form"), order.form),
        ("formats", manifest.get("to"), list(order.to)),
        ("key", manifest.get("key"), truth.architecture.key),
    ):
        if stated != meant:
            return f"export.json states the {name} {stated!r}; it was exported as {meant!r}"
    for name, entry in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size < entry["bytes"]:
            return f"{name} is truncated: {size} of {entry['bytes']} bytes"
        if checksum(path.read_bytes()) != entry["sha256"]:
            return f"{name} was changed after the export"
    return ""


def _wrong_network(directory: Path, truth: Truth) -> str:
    try:
        document = (directory / "architecture.json").read_text(encoding="utf-8")
        found = Architecture.from_json(document)
    except (OSError, NasError) as problem:
        return f"architecture.json cannot be read: {problem}"
    if found != truth.architecture:
        return f"architecture.json describes {found.key[:8]}, not {truth.architecture.key[:8]}"
    return ""


def _wrong_card(directory: Path, truth: Truth) -> str:
    meant = truth.order.card(truth.architecture).splitlines()
    try:
        found = (directory / "model_card.md").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as problem:
        return f"model_card.md cannot be read: {problem}"
    for number, (line, right) in enumerate(zip(found, meant, strict=False), start=1):
        if line != right:
            return f"line {number} says {line.strip()!r}, the record {right.strip()!r}"
    if len(found) != len(meant):
        return f"it has {len(found)} lines, and should have {len(meant)}"
    return ""


def wrong_preprocessing(directory: Path, truth: Truth) -> str:
    """Say how the stated preprocessing differs from the data's; empty if it does not."""
    meant = truth.order.preprocessing
    if meant is None:
        return ""
    try:
        found = json.loads((directory / "preprocessing.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        return f"preprocessing.json cannot be read: {problem}"
    for name, value in meant.to_json().items():
        if found.get(name) != value:
            return f"{name} is {found.get(name)!r}, that of the data {value!r}"
    return ""
