"""Under which conditions a table of latencies holds, so that no two kinds of figures mix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from evaluators.latency.latency import LatencyEvaluator
from evaluators.protocol import EvaluationError
from kernels.errors import NasError


def conditions_of(evaluator: LatencyEvaluator) -> dict[str, Any]:
    """Return what the figures of an evaluator's layers depend on, as JSON values.

    Raises:
        EvaluationError: the evaluator compiles whole networks or times a phase, of which layers
            say nothing.
    """
    if evaluator.mode == "compile":
        raise EvaluationError(
            "Layers cannot be timed in mode=compile: a compiler joins them. Leave the mode out."
        )
    if evaluator.phase or evaluator.tokens:
        raise EvaluationError("Layers are timed in whole passes: leave phase and tokens out.")
    return {
        "device": str(evaluator.device),
        "driver": evaluator.device.driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "batch": evaluator.batch,
        "dtype": evaluator.dtype,
        "mode": evaluator.mode,
        "cache": evaluator.policy.cache,
    }


def check_conditions(given: Mapping[str, Any], evaluator: LatencyEvaluator) -> None:
    """Refuse a table that was measured under other conditions than an evaluator's.

    Raises:
        NasError: names what differs.
    """
    here = conditions_of(evaluator)
    differs = [
        f"{name} {given.get(name)!r} instead of {value!r}"
        for name, value in here.items()
        if given.get(name) != value
    ]
    if differs:
        raise NasError(
            f"This table holds for other conditions: {', '.join(differs)}. Measure a new one."
        )
