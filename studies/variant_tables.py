"""What pays at each layer of a recorded network: measured on its study's device, and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluators.latency.latency import LatencyEvaluator
from evaluators.latency.layers import plan_of
from evaluators.latency.variants import VariantTable, measure_variants
from kernels.device import detect
from kernels.errors import NasError
from search_spaces.export.write import checksum
from studies.config import StudyConfig
from studies.evaluation import wanted_metrics
from studies.metrics import parse_metric
from studies.storage import Artifact, Repository
from studies.workspace import Workspace

KIND = "variants"
"""Kind of the artifact that holds a table."""


def measure_trial_variants(
    workspace: Workspace | Path | str, study: str, trial: int
) -> VariantTable:
    """Time every way of computing each layer of a trial's network, and keep what was found.

    The document that is kept has the ``table``, and under ``layers`` the workload that each node is
    part of, by its number.

    Args:
        workspace: where the study is kept.
        study: its name.
        trial: number of the trial.

    Raises:
        NasError: there is no such study or trial, or the device cannot be had.
    """
    place = Workspace.of(workspace)
    with place.open(create=False) as repository:
        record = repository.study(study)
        found = repository.trials(record.id, number=trial)
        if not found:
            raise NasError(f"The study {study!r} has no trial {trial}.")
        network = repository.architecture(found[0].key)
        config = StudyConfig(**record.config)
        evaluator = layer_evaluator(config) or LatencyEvaluator(detect(config.device))
        table = measure_variants([network], evaluator)
        steps = plan_of(network.dense(), evaluator)
        layers = {node: str(step.workload) for step in steps for node in step.nodes}
        document = {"table": table.to_json(), "layers": layers}
        content = (json.dumps(document, indent=1) + "\n").encode()
        digest = checksum(content)
        path = place.root / "artifacts" / f"{digest}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        earlier = sum(item.kind == KIND for item in repository.artifacts(found[0].id))
        name = f"{KIND}-{earlier:03d}.json"
        repository.add_artifact(found[0].id, Artifact(name, KIND, digest, len(content)))
    return table


def recorded_table(place: Workspace, repository: Repository, trial_id: int) -> VariantTable | None:
    """Return the newest table that is kept of a trial's network; None where none was measured.

    Raises:
        NasError: it cannot be read any more.
    """
    kept = [item for item in repository.artifacts(trial_id) if item.kind == KIND]
    if not kept:
        return None
    return table_of(place, kept[-1].content_hash)


def table_of(place: Workspace, digest: str) -> VariantTable:
    """Return a table that is kept, by the hash of its file.

    Raises:
        NasError: it cannot be read any more.
    """
    path = place.root / "artifacts" / f"{digest}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return VariantTable.from_json(document["table"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise NasError(f"Cannot read the table of variants {path}: {problem}.") from None


def layer_evaluator(config: StudyConfig) -> LatencyEvaluator | None:
    """Return what times layers as a study's first latency is timed; None where it has none.

    Layers are never compiled, and a decoder's in whole passes.
    """
    names = [parse_metric(name, own=True) for name in wanted_metrics(config)]
    asked = next((dict(item.qualifiers) for item in names if item.name == "latency_ms"), None)
    if asked is None:
        return None
    settings: dict[str, Any] = {k: v for k, v in asked.items() if k not in ("phase", "tokens")}
    if settings.get("mode") == "compile":
        del settings["mode"]
    return LatencyEvaluator(detect(config.device), **settings)
