"""The plans of the Hopper kernel that a bench tries, by name; imports no torch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from kernels.shfl_bw.plan import VECTORS, Plan, candidates


@cache
def variants() -> dict[str, Plan]:
    """Return the plans for every V that were worth timing in earlier runs, and some to compare."""
    found = list(candidates(16)[:1])
    for v in VECTORS[1:]:
        plans = candidates(v)
        wide = [plan for plan in plans if plan.width == 256]
        found += [plan for plan in wide if plan.cluster <= 2]
        if v == 64:
            found += [plan for plan in wide if plan.cluster == 4 and not plan.staged]
            found += [plan for plan in plans if plan.width < 256 and plan.blocks == 2]
            found += [plan for plan in plans if plan.width < 256 and plan.side == 2 > plan.cluster]
            found.append(replace(wide[0], tokens_first=False))
    return {str(plan): plan for plan in found}
