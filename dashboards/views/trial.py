"""One trial with all that is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from dashboards.layout import draw
from dashboards.record import Reading, Record, StudyRow, loads, moment
from dashboards.words import study_metric
from evaluators.proxies.receptive_field import receptive_field
from kernels.errors import NasError
from search_spaces.architecture import Architecture

CHILD_WINDOW = 5000
"""Trials after a candidate among which its children are looked for."""

_TRIAL = (
    "SELECT t.id, t.number, t.state, t.reason, t.stage, t.baseline, t.origin, t.decisions, "
    "t.started, t.ended, t.architecture_key AS key, a.text, a.document "
    "FROM trial t JOIN architecture a ON a.key = t.architecture_key "
    "WHERE t.study_id = ? AND t.number = ?"
)


def trial_view(record: Record, connection: Reading, study: StudyRow, number: int) -> dict[str, Any]:
    """Return a trial: its network layer by layer, figures, how they came about, lineage.

    Raises:
        NasError: the study has no such trial.
    """
    row = connection.execute(_TRIAL, (study.id, number)).fetchone()
    if row is None:
        raise NasError(f"Study {study.name!r} has no trial {number}.")
    network = Architecture.from_json(loads(row["document"]))
    figures = _figures(connection, study, row["id"])
    origin = loads(row["origin"]) or {}
    return {
        "study": study.name,
        "number": row["number"],
        "state": row["state"],
        "reason": row["reason"],
        "stage": row["stage"],
        "baseline": bool(row["baseline"]),
        "key": row["key"],
        "text": row["text"],
        "started": moment(row["started"]),
        "ended": moment(row["ended"]),
        "origin": origin,
        "changes": _changes(connection, study, origin, loads(row["decisions"]) or {}),
        "children": _children(connection, study, number),
        "conditions": study.conditions,
        "figures": figures,
        "trained": any("dense_key" in figure["detail"] for figure in figures),
        "audits": _kept(record, connection, row["id"], "audit"),
        "variants": _kept(record, connection, row["id"], "variants"),
        **network_view(network),
    }


def architecture_json(connection: Reading, key: str) -> dict[str, Any]:
    """Return the JSON form of a recorded network.

    Raises:
        NasError: the record has none of that key.
    """
    row = connection.execute("SELECT document FROM architecture WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise NasError(f"The record has no architecture {key!r}.")
    document: dict[str, Any] = loads(row[0])
    return document


def network_view(network: Architecture) -> dict[str, Any]:
    """Return a network's layers with what each costs and adds, and where each is drawn."""
    variants = {n: str(region.variant) for region in network.regions for n in region.nodes}
    layers = []
    for number, node in enumerate(network.nodes):
        layers.append(
            {
                "number": number,
                "kind": node.op.kind,
                "op": node.op.text,
                "scope": node.scope,
                "inputs": list(node.inputs),
                "shape": list(node.shape),
                "params": 0 if node.tie is not None else node.facts.params,
                "macs": node.facts.macs,
                "gain": _gain(network, number),
                "variant": variants.get(number, ""),
                "tie": node.tie,
            }
        )
    drawing = draw([node.inputs for node in network.nodes])
    return {
        "layers": layers,
        "params": network.params,
        "macs": network.macs,
        "drawing": {
            "nodes": drawing.nodes,
            "edges": [corners for _, _, corners in drawing.edges],
            "width": drawing.width,
            "height": drawing.height,
        },
    }


def _gain(network: Architecture, number: int) -> float | None:
    """Return what a layer adds to the 3DRF gain; None of a layer without weights."""
    chosen = network.nodes[number]
    if not chosen.facts.reach.weighted:
        return None
    try:
        gain = receptive_field(network, where=lambda node: node is chosen).gain
    except NasError:  # inputs of different strides are joined: the score is not defined
        return None
    return gain if isfinite(gain) else None


def _figures(connection: Reading, study: StudyRow, trial_id: int) -> list[dict[str, Any]]:
    query = (
        "SELECT v.metric, v.value, v.low, v.high, e.evaluator, e.started, e.seconds, e.worker, "
        "e.document, e.trial_id FROM value v LEFT JOIN evaluation e ON e.id = v.evaluation_id "
        "WHERE v.trial_id = ?"
    )
    found = []
    for row in connection.execute(query, (trial_id,)):
        document = loads(row["document"]) or {}
        found.append(
            {
                "metric": study_metric(row["metric"], study.config).to_json(),
                "value": row["value"],
                "low": row["low"],
                "high": row["high"],
                "evaluator": row["evaluator"],
                "measured": moment(row["started"]),
                "seconds": row["seconds"],
                "worker": row["worker"],
                "reused": row["trial_id"] is not None and row["trial_id"] != trial_id,
                "detail": document.get(row["metric"], {}).get("detail", {}),
            }
        )
    first = {name: place for place, name in enumerate(study.config.names)}
    return sorted(
        found, key=lambda item: (first.get(item["metric"]["name"], 99), item["metric"]["name"])
    )


def _changes(
    connection: Reading,
    study: StudyRow,
    origin: Mapping[str, Any],
    decisions: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return what was decided otherwise than for the parent."""
    parent = origin.get("parent")
    if not isinstance(parent, int):
        return []
    query = "SELECT decisions FROM trial WHERE study_id = ? AND number = ?"
    row = connection.execute(query, (study.id, parent)).fetchone()
    before = loads(row[0]) if row else {}
    names = [name for name in {**before, **decisions} if before.get(name) != decisions.get(name)]
    return [
        {"decision": name, "before": before.get(name), "after": decisions.get(name)}
        for name in names
    ]


def _children(connection: Reading, study: StudyRow, number: int) -> list[int]:
    query = (
        "SELECT number, origin FROM trial WHERE study_id = ? AND number > ? AND number <= ? "
        "AND CAST(origin AS TEXT) LIKE ? ORDER BY number"
    )
    likely = f'%"parent": {number}%'
    rows = connection.execute(query, (study.id, number, number + CHILD_WINDOW, likely))
    return [row[0] for row in rows if loads(row[1]).get("parent") == number]


def _kept(record: Record, connection: Reading, trial_id: int, kind: str) -> list[dict[str, Any]]:
    """Return the documents of a kind that were kept of a trial, the newest first."""
    query = "SELECT content_hash FROM artifact WHERE trial_id = ? AND kind = ? ORDER BY id DESC"
    found = (record.document(row[0]) for row in connection.execute(query, (trial_id, kind)))
    return [document for document in found if document is not None]
