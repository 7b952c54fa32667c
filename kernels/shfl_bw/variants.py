"""The plans of the Hopper kernel that a bench tries, by name; imports no torch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from kernels.shfl_bw.plan import VECTORS, Plan, candidates


@cache
def variants() -> dict[str, Plan]:
    """Return the plans for every V: tiles, and the other ways to gather, to walk and to split."""
    found = list(candidates(16)[:1])
    for v in VECTORS[1:]:
        plans = [plan for plan in candidates(v) if v > 32 or plan.width > 64]
        widest = next(plan for plan in plans if plan.cluster == 2)
        found += plans
        found += [replace(widest, counted=False), replace(widest, tokens_first=False)]
        if v == 64:
            narrow = [plan for plan in plans if plan.width == 128 and plan.cluster == 1]
            found += [replace(plan, splits=splits) for plan in narrow for splits in (2, 4)]
    return {str(plan): plan for plan in found}
