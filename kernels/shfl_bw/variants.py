"""The plans of the Hopper kernel that a bench tries, by name; imports no torch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from kernels.shfl_bw.plan import HEIGHTS, Plan, candidates


@cache
def variants() -> dict[str, Plan]:
    """Return the plans for every V: tiles, and the other ways to deal and to split."""
    found: list[Plan] = []
    for v in HEIGHTS:
        plans = candidates(v)
        found += plans
        found += [replace(plan, dealt=False) for plan in plans if plan.tokens * v == 64 * 512]
        narrow = [plan for plan in plans if plan.width == 128 and plan.cluster == 1]
        found += [replace(plan, splits=2) for plan in narrow[:1]]
    return {str(plan): plan for plan in found}
