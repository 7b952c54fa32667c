"""The evaluator of what needs no module: costs and training-free scores of the description."""

from __future__ import annotations

from evaluators.cost import Cost, analytic_cost
from evaluators.protocol import Measured, Slot
from evaluators.proxies.paths import path_scores
from evaluators.proxies.receptive_field import receptive_field
from search_spaces.architecture import Architecture


class AnalyticEvaluator:
    """Costs, and scores of reach and of paths, by arithmetic on the description."""

    metrics: tuple[str, ...] = (
        *Cost._fields,
        "rf_gain",
        "rf_volume",
        "rf_local",
        "path_local",
        "path_spatial",
        "shortest_path",
        "path_pools",
        "bottlenecks",
    )
    slot: Slot = "inline"

    def cache_key(self, architecture: Architecture) -> str:
        """Return nothing: computing again is cheaper than looking up."""
        return ""

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Return all figures; scores are infinitely bad where nothing reaches the output."""
        return [Measured(name, value) for name, value in described(architecture).items()]


def described(architecture: Architecture) -> dict[str, float]:
    """Return the figures of :class:`AnalyticEvaluator` by name."""
    field, paths = receptive_field(architecture), path_scores(architecture)
    values = {
        **analytic_cost(architecture)._asdict(),
        "rf_gain": field.gain,
        "rf_volume": field.volume,
        "rf_local": field.local,
        "path_local": paths.local,
        "path_spatial": paths.spatial,
        "shortest_path": paths.shortest,
        "path_pools": paths.pools,
        "bottlenecks": paths.bottlenecks,
    }
    return {name: float(value) for name, value in values.items()}
