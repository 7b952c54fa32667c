"""What people call a metric: its label, unit and what the ends of its spread are."""

from __future__ import annotations

from dashboards.front_data import Metric
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
    "energy_mj": ("Energy", "mJ", ""),
    "peak_memory_mb": ("Peak memory", "MB", ""),
    "params": ("Parameters", "", ""),
    "macs": ("Multiply-accumulates", "", ""),
    "bytes_moved": ("Bytes moved", "B", ""),
    "peak_activation_bytes": ("Peak activations", "B", ""),
    "kv_cache_bytes": ("Key-value cache", "B", ""),
    "body_params": ("Parameters outside embeddings", "", ""),
    "layers": ("Layers", "", ""),
    "depth": ("Depth", "", ""),
    "rf_gain": ("3DRF gain", "nats", ""),
    "rf_volume": ("3DRF volume", "nats", ""),
    "rf_local": ("3DRF local", "nats", ""),
}


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
