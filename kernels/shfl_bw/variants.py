"""The plans of the Hopper kernel that a bench tries, by name; imports no torch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from kernels.shfl_bw.plan import VECTORS, Plan, candidates, with_room_used


@cache
def variants() -> dict[str, Plan]:
    """Return the plans to choose from for every V, and their other ways to write and to walk."""
    found = list(candidates(16)[:1])
    for v in VECTORS[1:]:
        plans = [plan for plan in candidates(v) if v == 64 or plan.width == 256]
        if v == 128:
            plans.append(replace(plans[0], cluster=2))
        for plan in plans:
            found += [with_room_used(replace(plan, staged=staged)) for staged in (False, True)]
        if v == 64:
            found.append(replace(plans[0], tokens_first=False))
    return {str(plan): plan for plan in found}
