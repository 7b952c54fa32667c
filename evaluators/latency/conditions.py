"""Names of what is measured, in the metric grammar."""

from __future__ import annotations

_DEFAULTS: dict[str, int | str] = {
    "batch": 1,
    "cache": "warm",
    "dtype": "float32",
    "mode": "",
    "phase": "",
    "tokens": 0,
}


def metric_name(metric: str, **conditions: int | str) -> str:
    """Return a metric's name with the conditions that differ from the defaults, sorted.

    Example:
        >>> metric_name("latency_ms", dtype="float16", batch=8, mode="")
        'latency_ms[batch=8,dtype=float16]'
    """
    given = sorted((name, item) for name, item in conditions.items() if item != _DEFAULTS[name])
    inner = ",".join(f"{name}={item}" for name, item in given)
    return f"{metric}[{inner}]" if inner else metric
