"""How a study and a trial are written for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from evaluators.audit.values import HEADER, Audit
from nas.figures import duration, figure, number
from nas.jobs.common import MOST_WIDTH, Json, front_table, screen_width
from nas.tables import pairs, table
from studies.config import StudyConfig
from studies.metrics import SCREEN

_REASONS = 5
_DETAILS = ("seed", "recipe", "device", "threads", "batch", "dtype", "mode", "samples", "seconds")
"""What is said of how a figure came about, where it is known; ``--json`` has everything."""
_ALSO = ("params", "macs")
_ABOVE = ("objectives", "trials", "recipe", "sampler", "seed", "data")
"""Settings that have lines of their own."""
_SAID = ("space", "data", "recipe", "lookahead")
"""Conditions that the settings say better."""


def run_text(run: Json) -> str:
    """Write a study at a glance."""
    config = run["config"]
    plain = {
        name: field.default
        for name, field in StudyConfig.model_fields.items()
        if not field.is_required()
    }
    others = {
        name: value
        for name, value in config.items()
        if name in plain and name not in _ABOVE and _plain(plain[name]) != value
    }
    running = f"running on {run['driver']}" if run["driver"] else "not running"
    settings = ", ".join(f"{name} {_plain_text(value)}" for name, value in others.items())
    facts = [
        ("space", run["conditions"].get("space", config["space"])),
        ("data", config["data"]),
        *([("recipe", run["recipe"])] if run["recipe"] else []),
        ("objectives", ", ".join(config["objectives"])),
        ("sampler", f"{config['sampler']}, seed {config['seed']}"),
        ("settings", settings or "all others by default"),
        *((name, text) for name, text in run["conditions"].items() if name not in _SAID),
        ("versions", ", ".join(f"{name} {text}" for name, text in run["versions"].items())),
        ("trials", _counts(run)),
        ("spent", _spent(run["seconds"])),
        ("begun", _when(run["created"])),
        ("last active", f"{_when(run['last_activity'])}, {running}"),
    ]
    if run["stopping"]:
        facts.append(("early stopping", run["stopping"]))
    if run["screening"]:
        facts.append((SCREEN, run["screening"]))
    if run["driver"] and run["workers"]:
        at = (f"{count} {words}" for words, count in run["workers"].items())
        facts.append(("workers", ", ".join(at)))
    parts = [f"{run['study']}\n{_wrapped(facts)}"]
    if run["reasons"]:
        rows = [(f"{count} x", reason) for reason, count in list(run["reasons"].items())[:_REASONS]]
        parts.append(f"Failed and dropped\n{_wrapped(rows)}")
    metrics = [*run["objectives"], *(name for name in _ALSO if name not in run["objectives"])]
    parts.append(front_table(run["front"], metrics, [_named(item) for item in run["baselines"]]))
    if run["variants"]:
        parts.append(f"Variants that were offered, and why others were not\n{run['variants']}")
    if run["exports"]:
        rows = [(f"trial {item['trial']}", _exported(item)) for item in run["exports"]]
        parts.append(f"Exports\n{_wrapped(rows)}")
    return "\n\n".join(parts)


def _named(baseline: Json) -> Json:
    """Return a baseline whose name says what became of it, if it was not evaluated in full."""
    if baseline["state"] == "complete":
        return baseline
    return {**baseline, "name": f"{baseline['name']} ({baseline['state']})"}


def trial_text(trial: Json) -> str:
    """Write all that people want to know of a trial."""
    head = f"Trial {trial['trial']} of {trial['study']}: {trial['state']}"
    if trial["stage"]:
        head += f" at {trial['stage']}"
    facts = [("key", trial["key"]), ("origin", _origin(trial["origin"]))]
    if trial["reason"]:
        facts.append(("reason", trial["reason"]))
    facts.append(("begun", _when(trial["started"])))
    facts.append(("network", trial["text"]))
    parts = [f"{head}\n{_wrapped(facts)}"]
    if trial["decisions"]:
        parts.append(f"Decisions\n{_wrapped(_grouped(trial['decisions']))}")
    parts.append(f"Layers\n{_layers(trial)}")
    parts.append(f"Figures\n{_figures(trial['figures'])}")
    if trial["variants"]:
        parts.append(f"What pays at each layer\n{trial['variants']}")
    parts += [_export(item) for item in trial["exports"]]
    if trial["lineage"]:
        rows = [
            (f"trial {item['trial']}", f"{item['key'][:8]}  {', '.join(item['changed'])}")
            for item in trial["lineage"]
        ]
        parts.append(f"Descends from\n{_wrapped(rows)}")
    if trial["events"]:
        rows = [(_when(item["time"]), _event(item)) for item in trial["events"]]
        parts.append(f"Events\n{_wrapped(rows)}")
    return "\n\n".join(parts)


def _exported(item: Json) -> str:
    """Write an export on a line."""
    verdict = "audit passed" if item["passed"] else f"AUDIT FAILED: {', '.join(item['failed'])}"
    return f"{item['form']}, {' '.join(item['to'])}; {verdict}; {item['directory']}"


def _export(item: Json) -> str:
    """Write an export with the gap table of its last audit."""
    if "problem" in item:
        return f"Exported: {item['problem']}"
    audit = Audit.from_json(item["audit"])
    verdict = "audit passed" if audit.passed else "AUDIT FAILED"
    lines = [
        f"Exported to {item['directory']}: {audit.form}, {verdict} {_when(item['time'])}",
        table(HEADER, audit.rows()),
        *audit.remarks(),
    ]
    return "\n".join(lines)


def _wrapped(rows: Sequence[tuple[str, str]]) -> str:
    """Write names and texts; long texts go on below themselves."""
    width = min(screen_width(), MOST_WIDTH)
    indent = 2 + max((len(name) for name, _ in rows), default=0)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(20, width - indent), break_on_hyphens=False) or [""]
        lines.append((name, wrapped[0]))
        lines += [("", part) for part in wrapped[1:]]
    return pairs(lines)


def _layers(trial: Json) -> str:
    rows = [
        [
            str(item["node"]),
            item["name"],
            item["op"],
            "x".join(map(str, item["shape"])),
            f"{item['params']:,}" if item["params"] else "",
            f"{item['macs']:,}" if item["macs"] else "",
        ]
        for item in trial["layers"]
    ]
    rows.append(["", "", "", "sum", f"{trial['params']:,}", f"{trial['macs']:,}"])
    return table(["node", "name", "operator", "output", "params", "macs"], rows, left=(1, 2))


def _figures(figures: Mapping[str, Json]) -> str:
    rows = []
    for name, item in figures.items():
        detail = item["detail"]
        how = [f"{key} {_short(detail[key])}" for key in _DETAILS if _short(detail.get(key))]
        how += [f"DISTURBED: {reason}" for reason in detail.get("disturbed") or ()]
        rows.append((name, f"{figure(name, item):<28}{', '.join(how)}".rstrip()))
    return _wrapped(rows)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return number("", value)
    if isinstance(value, str | int):
        return str(value)
    return str(len(value)) if isinstance(value, list) else ""


def _origin(origin: Mapping[str, Any]) -> str:
    words = [str(origin.get("by", "?"))]
    words += [
        f"{name} {_plain_text(value)}"
        for name, value in origin.items()
        if name not in ("by", "told")
    ]
    return ", ".join(words)


def _grouped(decisions: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Bring the answers of one scope into one line."""
    groups: dict[str, list[str]] = {}
    for name, value in decisions.items():
        scope, _, question = name.rpartition("/")
        groups.setdefault(scope, []).append(f"{question} {value}")
    return [(scope or "network", ", ".join(texts)) for scope, texts in groups.items()]


def _event(item: Json) -> str:
    rest = {key: value for key, value in item.items() if key not in ("time", "kind", "trial")}
    if "started" in rest and "ended" in rest:
        begun, ended = (datetime.fromisoformat(rest.pop(key)) for key in ("started", "ended"))
        rest["took"] = duration((ended - begun).total_seconds())
    said = [f"{key} {_plain_text(value)}" for key, value in rest.items() if value != []]
    return f"{item['kind']}: {', '.join(said)}"


def _counts(run: Json) -> str:
    counts = [f"{count} {state}" for state, count in run["counts"].items() if count]
    return f"{', '.join(counts) or 'none yet'}, of {run['config']['trials']} wanted"


def _spent(seconds: Mapping[str, float]) -> str:
    parts = [
        f"{name.removesuffix('Evaluator').lower()} {duration(spent)}"
        for name, spent in seconds.items()
        if spent >= 1
    ]
    return ", ".join(parts) or "nothing yet"


def _when(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _plain_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_plain_text, value))
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return str(value)
