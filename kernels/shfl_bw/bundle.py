"""Groups of few rows put together, so that a product's 64 rows are full.

Tensor cores of Hopper multiply 64 rows at a time, and what a group's columns cost to gather does
not depend on its rows. Two groups of 32 rows that keep a quarter of the columns each keep 7/16 of
them together: one group of 64 rows with zeros in between gathers and multiplies an eighth less than
the two, four of 16 rows a third less.
"""

from __future__ import annotations

import torch

HEIGHT = 64
"""Rows of the smallest product."""

_Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def bundled(
    values: torch.Tensor, columns: torch.Tensor, offsets: torch.Tensor, rows: torch.Tensor
) -> _Tensors:
    """Return packed tensors of V < 64 as such of V = 64, others as they are.

    Groups that keep many columns in common are put together. Rows of a group then have zeros in
    columns that only others keep: there NaN and infinity of the input reach them as well, as they
    do where the matrix is multiplied with all its zeros.

    Args:
        values: (vectors, v), v a divisor of 64; see :class:`kernels.shfl_bw.packed.Packed`.
        columns: (vectors,).
        offsets: (groups + 1,).
        rows: (groups * v,).
    """
    v = values.shape[1]
    if v >= HEIGHT:
        return values, columns, offsets, rows
    counts = (offsets[1:] - offsets[:-1]).long()
    group = torch.arange(len(counts), device=values.device)
    group = group.repeat_interleave(counts, output_size=len(columns))
    width = int(columns.max()) + 1 if len(columns) else 1
    kept = torch.zeros(len(counts), width, dtype=torch.bool, device=values.device)
    kept[group, columns.long()] = True
    members = _bundles(kept, HEIGHT // v)
    filled = torch.cat([kept, kept.new_zeros(1, width)])  # an empty group, the last and -1
    union = filled[members].any(1)
    bundle, slot = torch.empty_like(counts), torch.empty_like(counts)
    real = members >= 0
    bundle[members[real]], slot[members[real]] = (part.to(bundle) for part in real.nonzero().T)
    place = union.flatten().cumsum(0).view_as(union) - 1
    wide = values.new_zeros(int(union.sum()), HEIGHT // v, v)
    wide[place[bundle[group], columns.long()], slot[group]] = values
    padded = torch.cat([rows.view(-1, v), rows.new_full((1, v), -1)])
    return (
        wide.flatten(1),
        union.nonzero()[:, 1].to(torch.int32),
        torch.cat([counts.new_zeros(1), union.sum(1).cumsum(0)]).to(torch.int32),
        padded[members].flatten(),
    )


def _bundles(kept: torch.Tensor, size: int) -> torch.Tensor:
    """Return which groups (groups, columns) go together, (bundles, size); -1 for none."""
    members = torch.arange(len(kept), device=kept.device)[:, None]
    while members.shape[1] < size:
        pairs = _pairs(kept)
        again = torch.cat([members, members.new_full((1, members.shape[1]), -1)])
        members = again[pairs].flatten(1)
        kept = torch.cat([kept, kept.new_zeros(1, kept.shape[1])])[pairs].any(1)
    return members


def _pairs(kept: torch.Tensor) -> torch.Tensor:
    """Return pairs of groups with much in common, (pairs, 2); -1 beside one that is left over.

    One after the other takes the free one that it has most in common with.
    """
    common = (kept.float() @ kept.float().T).cpu()
    common.fill_diagonal_(-1)
    pairs: list[tuple[int, int]] = []
    free = torch.ones(len(common), dtype=torch.bool)
    for one in range(len(common)):
        if not free[one]:
            continue
        free[one] = False
        other = int(torch.where(free, common[one], -1.0).argmax()) if bool(free.any()) else -1
        if other >= 0:
            free[other] = False
        pairs.append((one, other))
    return torch.tensor(pairs, dtype=torch.long, device=kept.device).view(-1, 2)
