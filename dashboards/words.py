"""What people call a metric: its label, unit, and what the ends of its spread are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kernels.errors import NasError
from studies.config import StudyConfig
from studies.metrics import Direction, parse_metric

_WORDS = {
    "accuracy": ("Validation accuracy", "%", "95 % interval"),
    "test_accuracy": ("Test accuracy", "%", "95 % interval"),
    "loss": ("Validation loss", "nats", "95 % interval"),
    "test_loss": ("Test loss", "nats", "95 % interval"),
    "bits_per_byte": ("Validation bits a byte", "", "95 % interval"),
    "test_bits_per_byte": ("Test bits a byte", "", "95 % interval"),
    "latency_ms": ("Latency", "ms", "95 % of other runs"),
    "trained_latency_ms": ("Latency with trained weights", "ms", "95 % of other runs"),
    "energy_mj": ("Energy", "mJ", ""),
    "peak_memory_mb": ("Peak memory", "MB", ""),
    "params": ("Parameters", "", ""),
    "macs": ("MACs", "", ""),
    "bytes_moved": ("Bytes moved", "B", ""),
    "peak_activation_bytes": ("Peak activations", "B", ""),
    "kv_cache_bytes": ("Key-value cache", "B", ""),
    "body_params": ("Parameters outside embeddings", "", ""),
    "layers": ("Layers", "", ""),
    "depth": ("Depth", "", ""),
    "rf_gain": ("3DRF gain", "nats", ""),
    "rf_volume": ("3DRF volume", "nats", ""),
    "rf_local": ("3DRF local", "nats", ""),
    "path_local": ("Computation of a path", "nats", ""),
    "path_spatial": ("Spatial part of a path", "nats", ""),
    "shortest_path": ("Shortest path", "layers", ""),
    "path_pools": ("Pooling on a path", "layers", ""),
    "bottlenecks": ("Bottlenecks", "", ""),
    "joint_rank": ("Joint rank by description", "", ""),
    "joint_probe": ("Joint rank with fresh networks", "", ""),
    "narrowest": ("Narrowest features", "nats", ""),
    "jacob_cov": ("Jacobian covariance", "", ""),
    "naswot": ("NASWOT", "", ""),
    "synflow": ("SynFlow", "", ""),
    "zico": ("ZiCo", "", ""),
    "expressivity": ("Expressivity", "nats", ""),
    "progressivity": ("Progressivity", "nats", ""),
    "trainability": ("Trainability", "", ""),
    "vkdnw": ("VKDNW", "", ""),
    "dss": ("DSS", "", ""),
    "attention_confidence": ("Confidence of attention", "", ""),
    "head_importance": ("Importance of heads", "nats", ""),
}


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure about a candidate, and how people read it.

    Attributes:
        name: its name in the metric grammar, such as ``latency_ms``.
        label: in words without the unit, such as ``Latency``.
        direction: whether less or more of it is better.
        unit: such as ``ms``. A value in ``%`` is kept as a fraction and shown times a hundred.
        spread: what the low and high ends of its values are, such as ``95 % interval``.

    Example:
        >>> latency = Metric("latency_ms", "Latency", "min", unit="ms")
        >>> latency.title, latency.wish, latency.number(0.5213)
        ('Latency (ms)', 'lower is better', '0.521')
    """

    name: str
    label: str
    direction: Direction
    unit: str = ""
    spread: str = ""

    @property
    def title(self) -> str:
        """The label with the unit in brackets, unless each number carries it, as with ``%``."""
        return self.label if self.unit in ("", "%") else f"{self.label} ({self.unit})"

    @property
    def wish(self) -> str:
        """The direction in words."""
        return "higher is better" if self.direction == "max" else "lower is better"

    def number(self, value: float) -> str:
        """Return a value as it stands under the title: three figures, all of a large one."""
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        if abs(value) >= 1000 or value == int(value):
            return f"{value:,.0f}"
        return f"{value:#.3g}".rstrip(".")

    def ends(self, low: float | None, high: float | None) -> str:
        """Return a spread as ``low to high`` without the unit; empty where a value is exact."""
        if low is None and high is None:
            return ""
        words = ["?" if end is None else self.number(end) for end in (low, high)]
        return f"{words[0].removesuffix(' %')} to {words[1]}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, title and wish among them."""
        return {**asdict(self), "title": self.title, "wish": self.wish}


def metric_words(name: str, direction: Direction | None = None) -> Metric:
    """Return how a metric is shown.

    Args:
        name: in the metric grammar; a user's own, and one not of the grammar, is shown as it is.
        direction: which way is better, where the study says so.
    """
    try:
        metric = parse_metric(name, own=True)
    except NasError:  # recorded by another release
        return Metric(name=name, label=name, direction=direction or "min")
    label, unit, spread = _WORDS.get(metric.name, (metric.name.replace("_", " "), "", ""))
    conditions = ", ".join(f"{key} {value}" for key, value in metric.qualifiers)
    return Metric(
        name=name,
        label=f"{label}, {conditions}" if conditions else label,
        direction=direction or (metric.kind.direction if metric.kind else "min"),
        unit=unit,
        spread=spread,
    )


def study_metric(name: str, config: StudyConfig) -> Metric:
    """Return how a metric of a study is shown, in the study's direction."""
    directions = {str(item.metric): item.direction for item in config.targets}
    return metric_words(name, directions.get(name))
