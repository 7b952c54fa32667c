"""``layers_ms``: the sum of the latencies of a network's layers, a stage of a funnel.

Each distinct layer is timed once on a device, whatever study asks; a network of known layers costs
nothing. Only screening is done by it: objectives and constraints are measured on whole networks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np

from evaluators.keys import measure_key
from evaluators.latency.composed import ComposedError, errors_of, fit_overhead
from evaluators.latency.conditions import metric_name
from evaluators.latency.latency import LatencyEvaluator, default_policy
from evaluators.latency.layers import LayerTable, measure_layers, plan_of
from evaluators.latency.provenance import HARNESS_VERSION, key_versions, our_version, provenance
from evaluators.latency.setting import conditions_of
from evaluators.latency.subject import layout_of
from evaluators.protocol import EvaluationError, Measured, Slot
from kernels.device import Device
from kernels.environment import cache_dir
from kernels.errors import NasError
from kernels.timing import TimingPolicy
from search_spaces.architecture import Architecture

LEAST_JUDGED = 16
"""Networks measured whole from which the error of their sums is told."""


def layer_policy(device: Device) -> TimingPolicy:
    """Return how layers are timed: shorter than networks, as there are hundreds in a space."""
    return replace(
        default_policy(device),
        rounds=3,
        samples_per_round=10,
        spare_rounds=2,
        min_sample_us=300.0,
        warmup_min_seconds=0.005,
        warmup_max_seconds=0.04,
        max_seconds=0.1,
    )


class LayersEvaluator:
    """Adds up the medians of a network's layers; see the module.

    Args:
        device: where to measure.
        batch: images or sequences a forward pass.
        dtype: element type.
    """

    slot: Slot = "measurement"

    def __init__(self, device: Device, *, batch: int = 1, dtype: str = "float32") -> None:
        self._timer = LatencyEvaluator(
            device, batch=batch, dtype=dtype, policy=layer_policy(device)
        )
        self.metrics: tuple[str, ...] = (metric_name("layers_ms", batch=batch, dtype=dtype),)

    def cache_key(self, architecture: Architecture) -> str:
        """See :class:`evaluators.protocol.Evaluator`."""
        timer = self._timer
        return measure_key(
            architecture,
            timer.device,
            batch=timer.batch,
            dtype=timer.dtype,
            layout=layout_of(timer.device, timer.dtype),
            mode="layers",
            versions=key_versions(architecture),
        )

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Time what layers are new, and add up.

        Raises:
            EvaluationError: a layer cannot be measured.
        """
        table = self._table()
        names = [str(step.workload) for step in plan_of(architecture, self._timer)]
        missing = {name for name in names if not table.settled(name)}
        if missing:
            measure_layers([architecture], self._timer, table=table)
            self._keep(table)
        for name in names:
            if name not in table.times:
                raise EvaluationError(f"The layer {name}: {table.failed.get(name, 'not timed')}.")
        times = [table.times[name] for name in names]
        disturbed = sorted({reason for item in times for reason in item.disturbed})
        low, value, high = (
            sum(getattr(item, end) for item in times) / 1e3
            for end in ("p10_us", "median_us", "p90_us")
        )
        detail = {
            "layers": len(names),
            "distinct": len(set(names)),
            "timed_now": len(missing),
            "disturbed": disturbed,
            **provenance(self._timer.device),
        }
        return [Measured(self.metrics[0], value, low, high, detail)]

    def _table(self) -> LayerTable:
        try:
            return LayerTable.from_json(json.loads(self._path().read_text(encoding="utf-8")))
        except (OSError, ValueError, NasError):  # a cache: what cannot be read is timed again
            return LayerTable(conditions_of(self._timer))

    def _keep(self, table: LayerTable) -> None:
        path = self._path()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
                json.dump(table.to_json(), file)
            Path(file.name).replace(path)
        except OSError:
            return  # a cache that cannot be written is no reason to fail

    def _path(self) -> Path:
        held = [conditions_of(self._timer), HARNESS_VERSION, our_version()]
        name = blake2b(json.dumps(held, sort_keys=True).encode(), digest_size=8).hexdigest()
        return cache_dir() / "layers" / f"{name}.json"


def screen_error(rows: Sequence[tuple[float, int, float]]) -> ComposedError | None:
    """Return how wrong sums of layers were on whole networks, an overhead fitted on every other.

    Args:
        rows: of each network the sum of its layers, their number, and its measured latency, both
            in one unit.

    Returns:
        the errors on those that were not fitted; None for fewer than 16 networks.
    """
    if len(rows) < LEAST_JUDGED:
        return None
    features = np.array([[total, count, 1.0] for total, count, _ in rows])
    measured = np.array([row[2] for row in rows])
    overhead = fit_overhead(features[::2], measured[::2])
    return errors_of(features[1::2], measured[1::2], overhead)
