"""The evaluator of what needs no module: costs and training-free scores of the description."""

from __future__ import annotations

from evaluators.cost import Cost, analytic_cost
from evaluators.protocol import Measured, Slot
from evaluators.proxies.receptive_field import receptive_field
from search_spaces.architecture import Architecture


class AnalyticEvaluator:
    """Costs and 3DRF scores by arithmetic on the description."""

    metrics: tuple[str, ...] = (*Cost._fields, "rf_gain", "rf_volume", "rf_local")
    slot: Slot = "inline"

    def cache_key(self, architecture: Architecture) -> str:
        """Return nothing: computing again is cheaper than looking up."""
        return ""

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Return all figures; the scores are -inf where nothing reaches the output."""
        field = receptive_field(architecture)
        values = {
            **analytic_cost(architecture)._asdict(),
            "rf_gain": field.gain,
            "rf_volume": field.volume,
            "rf_local": field.local,
        }
        return [Measured(name, float(value)) for name, value in values.items()]
