"""Which variants a study is not offered: those that were measured to be slower on its device.

A workspace holds one table for each device and way of running, and every table that a study began
with stays: a study goes on with its own, whatever is measured later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from evaluators.latency.latency import LatencyEvaluator
from evaluators.latency.setting import conditions_of
from evaluators.latency.variants import VariantTable, measure_offers
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.export.write import checksum
from search_spaces.space import Space
from studies.config import StudyConfig
from studies.executors.files import leave
from studies.variant_tables import layer_evaluator, table_of
from studies.workspace import Workspace

CONDITION = "variants"
"""Among the conditions of a study, the hash of the table it began with."""
_FOLDER = "variants"


def record_offers(
    workspace: Workspace,
    architectures: Iterable[Architecture],
    evaluator: LatencyEvaluator,
    kinds: Sequence[str] = (),
) -> VariantTable:
    """Time what is offered for the layers of some networks, and keep it for the studies to come.

    Args:
        workspace: whose table is added to; what it holds is not measured again.
        architectures: the networks.
        evaluator: on which device and how to time.
        kinds: of variants; empty for all.

    Raises:
        NasError: the device cannot be had, or the table cannot be read or written.
    """
    known = newest_offers(workspace, evaluator)
    table = measure_offers(
        architectures, evaluator, kinds=kinds, known=None if known is None else known[1]
    )
    content = (json.dumps({"table": table.to_json()}, indent=1) + "\n").encode()
    digest = checksum(content)
    try:
        leave(workspace.root / "artifacts" / f"{digest}.json", content)
        leave(_pointer(workspace, conditions_of(evaluator)), digest.encode())
    except OSError as problem:
        raise NasError(f"Cannot keep the table of variants: {problem}.") from None
    return table


def newest_offers(
    workspace: Workspace, evaluator: LatencyEvaluator
) -> tuple[str, VariantTable] | None:
    """Return the hash and the table of an evaluator's conditions; None where there is none.

    Raises:
        NasError: it cannot be read any more.
    """
    try:
        digest = _pointer(workspace, conditions_of(evaluator)).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    return digest, table_of(workspace, digest)


def offers_of(workspace: Workspace, config: StudyConfig) -> tuple[str, VariantTable] | None:
    """Return what a study keeps to: the table it began with, of a new one the newest.

    None where there was none, or where the study asks for no latency.

    Raises:
        NasError: it cannot be read any more.
    """
    evaluator = layer_evaluator(config)
    if evaluator is None:
        return None
    try:
        with workspace.open(create=False) as repository:
            found = repository.find_study(config.name)
    except NasError:  # there is no record yet, or none that can be read: who opens it says so
        found = None
    if found is None:
        return newest_offers(workspace, evaluator)
    digest = found.conditions.get(CONDITION)
    return None if digest is None else (digest, table_of(workspace, digest))


def tables(workspace: Workspace) -> list[VariantTable]:
    """Return the newest table of each device and way of running.

    Raises:
        NasError: one cannot be read any more.
    """
    found = sorted((workspace.root / _FOLDER).glob("*.newest"))
    return [table_of(workspace, path.read_text(encoding="ascii").strip()) for path in found]


def without_slower(
    space: Space, config: StudyConfig, workspace: Workspace
) -> tuple[Space, dict[str, str]]:
    """Return a study's space without what was measured not to pay, and the condition to record.

    Raises:
        NasError: the table cannot be read any more.
    """
    found = offers_of(workspace, config)
    if found is None:
        return space, {}
    digest, table = found
    return replace(space, left_out=table.left_out()), {CONDITION: digest}


def _pointer(workspace: Workspace, conditions: dict[str, Any]) -> Path:
    text = json.dumps(conditions, sort_keys=True)
    name = blake2b(text.encode(), digest_size=8).hexdigest()
    return workspace.root / _FOLDER / f"{name}.newest"
