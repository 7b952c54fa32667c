"""Latency of a network from those of its layers: a screen, which always says how wrong it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluators.latency.latency import LatencyEvaluator
from evaluators.latency.layers import LayerTable, plan_of
from evaluators.latency.setting import check_conditions
from kernels.errors import NasError
from search_spaces.architecture import Architecture

_MIN_FIT = 8


@dataclass(frozen=True, slots=True)
class ComposedError:
    """Relative errors on networks that the fit has not seen.

    Attributes:
        median: of the absolute relative errors.
        p95: their 95th percentile.
        count: networks.
    """

    median: float
    p95: float
    count: int

    def __str__(self) -> str:
        return (
            f"median error {100 * self.median:.1f} %, 95th percentile {100 * self.p95:.1f} % "
            f"on {self.count} held-out networks"
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated latency; never a measurement.

    Attributes:
        value_ms: milliseconds a batch.
        error: of the model that made it.
    """

    value_ms: float
    error: ComposedError

    def __str__(self) -> str:
        return f"about {self.value_ms:.4g} ms ({self.error})"


@dataclass(frozen=True, slots=True)
class ComposedModel:
    """Whole = sum of layer medians + a part per layer + a constant.

    Attributes:
        table: medians of the layers.
        evaluator: how whole networks are measured.
        per_layer_us: may be negative: a layer by itself starts on an idle device.
        constant_us: of the network.
        error: on networks that the fit has not seen.
    """

    table: LayerTable
    evaluator: LatencyEvaluator
    per_layer_us: float
    constant_us: float
    error: ComposedError

    @classmethod
    def fit(
        cls,
        table: LayerTable,
        evaluator: LatencyEvaluator,
        *,
        fitted: Sequence[tuple[Architecture, float]],
        held_out: Sequence[tuple[Architecture, float]],
    ) -> ComposedModel:
        """Fit to measured networks and judge on others.

        Args:
            table: holds every layer of all of them.
            evaluator: what measured them.
            fitted: networks and their measured medians in milliseconds; at least 8.
            held_out: others.

        Raises:
            NasError: there are too few, one is in both, a layer is not in the table, or the table
                is of other conditions.
        """
        check_conditions(table.conditions, evaluator)
        if len(fitted) < _MIN_FIT or not held_out:
            raise NasError(
                f"A composed estimate needs {_MIN_FIT} measured networks and some held out, got "
                f"{len(fitted)} and {len(held_out)}."
            )
        shared = {item.key for item, _ in fitted} & {item.key for item, _ in held_out}
        if shared:
            raise NasError(f"{len(shared)} networks are both fitted and held out.")
        rows = np.array([_features(item, table, evaluator) for item, _ in fitted])
        measured = np.array([1e3 * median_ms for _, median_ms in fitted])
        overhead = fit_overhead(rows, measured)
        others = np.array([_features(item, table, evaluator) for item, _ in held_out])
        truth = np.array([1e3 * median_ms for _, median_ms in held_out])
        error = errors_of(others, truth, overhead)
        return cls(table, evaluator, float(overhead[0]), float(overhead[1]), error)

    def predict(self, architecture: Architecture) -> Estimate:
        """Return an estimate with the model's error.

        Raises:
            NasError: a layer is not in the table.
        """
        row: npt.NDArray[np.float64] = np.array(_features(architecture, self.table, self.evaluator))
        weights = np.array([1.0, self.per_layer_us, self.constant_us])
        return Estimate(float(row @ weights) / 1e3, self.error)


Array = npt.NDArray[np.float64]


def fit_overhead(features: Array, measured: Array) -> Array:
    """Return what a layer and a network take beside the sum of the layers, least squares.

    Args:
        features: (networks, 3): sum of the layers, their number, 1.
        measured: (networks,) in the unit of the sums; relative errors count.
    """
    weights = 1.0 / measured
    overhead, *_ = np.linalg.lstsq(
        features[:, 1:] * weights[:, None], (measured - features[:, 0]) * weights, rcond=None
    )
    return overhead.astype(np.float64)


def errors_of(features: Array, measured: Array, overhead: Array) -> ComposedError:
    """Return how wrong a fit is on networks that it has not seen; arguments as there."""
    estimated = features @ np.array([1.0, *overhead])
    wrong = np.abs(estimated - measured) / measured
    return ComposedError(float(np.median(wrong)), float(np.quantile(wrong, 0.95)), len(measured))


def _features(
    architecture: Architecture, table: LayerTable, evaluator: LatencyEvaluator
) -> tuple[float, float, float]:
    steps = plan_of(architecture, evaluator)
    missing = [str(step.workload) for step in steps if str(step.workload) not in table.times]
    if missing:
        why = table.failed.get(missing[0], "it was not measured")
        raise NasError(f"No latency of the layer {missing[0]}: {why}.")
    total = sum(table.times[str(step.workload)].median_us for step in steps)
    return total, float(len(steps)), 1.0
