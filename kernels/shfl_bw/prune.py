"""Pruning one weight to the Shfl-BW pattern: group rows, score vectors, keep the best.

Source of the published steps: see ``kmeans.py``. Two things differ on purpose: the budget is met
exactly (the best vectors by rank, ties by position, where a strict percentile keeps fewer), and
rows that V does not divide are filled up with zero rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from kernels.errors import NasError, UnknownNameError
from kernels.shfl_bw.exchange import search
from kernels.shfl_bw.kmeans import constrained_kmeans
from kernels.shfl_bw.pattern import (
    Pattern,
    as_matrix,
    group_count,
    pattern_of,
    refuses_mask,
)

Floats = npt.NDArray[np.float32]
Order = npt.NDArray[np.int64]
Grouping = Callable[[Floats, int, int, float, int], Order]

_LOOSENESS = 2.0  # the published beta: the loose mask keeps twice the density
_WORK = 1.2e8  # elements looked at by the rounds of a search
_ROUNDS = (20, 300)  # fewest and most rounds
_KMEANS_ROWS = (
    128  # up to so many rows the published grouping is a start too: it takes milliseconds
)


def prune(
    weight: torch.Tensor,
    v: int,
    density: float,
    *,
    grouping: str = "exchange",
    looseness: float = _LOOSENESS,
    importance: torch.Tensor | None = None,
    seed: int = 0,
) -> Pattern:
    """Choose the vectors of a weight that are kept; the weight stays as it is.

    Args:
        weight: (out, in), or filters (out, in, h, w), taken as (out, h * w * in).
        v: rows of a vector.
        density: share of the vectors to keep, over the whole matrix: of
            ``ceil(out / v) * in`` vectors the nearest whole number, whatever their values.
        grouping: ``"exchange"`` (keeps most), ``"kmeans"`` (as published), ``"none"`` (neighbours:
            plain vector-wise pruning).
        looseness: how much more than the density the loose mask keeps that groups start from.
        importance: of each weight, not negative, shaped like it; None takes absolute values.
        seed: of the search.

    Returns:
        The pattern over the matrix form; an order and a mask on the weight's device.

    Raises:
        NasError: weights that are not finite, a density outside [0, 1], or a shape or V that have
            no pattern.

    Example:
        >>> pattern = prune(torch.randn(32, 64), v=8, density=0.25)
        >>> pattern.density, pattern.groups
        (0.25, 4)
    """
    matrix = as_matrix(weight.detach().abs() if importance is None else importance.detach())
    if matrix.shape != as_matrix(weight).shape:
        raise NasError(
            f"Expected importance of shape {tuple(weight.shape)}, got {tuple(matrix.shape)}."
        )
    values = matrix.to("cpu", torch.float32)
    if not bool(values.isfinite().all()):
        raise NasError("Weights to prune must be finite, some are NaN or infinite.")
    if not 0.0 <= density <= 1.0:
        raise NasError(f"The density is the share of weights kept, 0 to 1, got {density}.")
    if grouping not in GROUPINGS:
        raise UnknownNameError("grouping of rows", grouping, GROUPINGS)
    rows, columns = values.shape
    groups = group_count(rows, v)
    vectors = vectors_kept(rows, columns, v, density)
    padded = np.zeros((groups * v, columns), np.float32)
    padded[:rows] = values.numpy()
    found = GROUPINGS[grouping](padded, v, vectors, min(1.0, looseness * density), seed)
    order = np.sort(found.reshape(groups, v), 1)
    mask = np.zeros((groups * v, columns), np.bool_)
    mask[order.ravel()] = _best_vectors(padded, order, vectors).repeat(v, 0)
    return Pattern(
        torch.from_numpy(mask[:rows]).to(weight.device),
        torch.from_numpy(order.ravel()).to(weight.device),
        v,
    )


def pattern_for(weight: torch.Tensor, v: int, density: float) -> Pattern:
    """Return the pattern that a weight has at a density already, else what :func:`prune` chooses.

    A weight that was trained on a mask keeps it; vectors of which every weight became 0 are filled
    up with others.
    """
    support = as_matrix(weight.detach()) != 0
    rows, columns = support.shape
    if refuses_mask(support, v) is not None:
        return prune(weight, v, density)
    found = pattern_of(support, v)
    kept = found.kept()
    missing = vectors_kept(rows, columns, v, density) - int(kept.sum())
    if missing < 0:
        return prune(weight, v, density)
    free = (~kept).flatten().nonzero()[:missing, 0]
    kept.view(-1)[free] = True
    order = found.order.to(weight.device)
    mask = support.new_zeros(len(order), columns)
    mask[order] = kept.repeat_interleave(v, 0)
    return Pattern(mask[:rows], order, v)


def vectors_kept(rows: int, columns: int, v: int, density: float) -> int:
    """Return how many vectors a density keeps of a matrix (rows, columns)."""
    return round(density * group_count(rows, v) * columns)


def _best_vectors(padded: Floats, order: Order, vectors: int) -> npt.NDArray[np.bool_]:
    """Return which columns each group keeps; equal scores by group, then column."""
    scores = np.stack([padded[members].sum(0) for members in order])
    ranked = np.argsort(-scores.ravel(), kind="stable")[:vectors]
    kept = np.zeros(scores.size, np.bool_)
    kept[ranked] = True
    return kept.reshape(scores.shape)


def _as_they_are(padded: Floats, v: int, vectors: int, loose: float, seed: int) -> Order:
    return np.arange(len(padded))


def _by_kmeans(padded: Floats, v: int, vectors: int, loose: float, seed: int) -> Order:
    if len(padded) == v or v == 1:
        return np.arange(len(padded))
    label, _ = constrained_kmeans(_loose_mask(padded, loose).astype(np.float64), v, seed=seed)
    return np.argsort(label, kind="stable")


def _by_exchange(padded: Floats, v: int, vectors: int, loose: float, seed: int) -> Order:
    rows, columns = padded.shape
    neighbours = np.arange(rows)
    if rows == v or v == 1 or not 0 < vectors < rows // v * columns:
        return neighbours
    starts = [neighbours, _by_overlap(padded, v, loose)]
    if rows <= _KMEANS_ROWS:
        starts.append(_by_kmeans(padded, v, vectors, loose, seed))
    least, most = _ROUNDS
    rounds = max(least, min(most, int(_WORK / padded.size)))
    most_worth = np.partition(padded.ravel(), -v * vectors)[-v * vectors :].sum(dtype=np.float64)
    return search(padded, v, vectors, starts, rounds=rounds, enough=float(most_worth), seed=seed)


GROUPINGS: dict[str, Grouping] = {
    "exchange": _by_exchange,
    "kmeans": _by_kmeans,
    "none": _as_they_are,
}
"""Ways to put rows into groups; each returns an order of the padded rows."""


def _loose_mask(padded: Floats, share: float) -> npt.NDArray[np.bool_]:
    """Return which weights are among the largest share of the matrix."""
    count = round(share * padded.size)
    if count == 0:
        return np.zeros(padded.shape, np.bool_)
    place = padded.size - count
    mask: npt.NDArray[np.bool_] = padded >= np.partition(padded.ravel(), place)[place]
    return mask


def _by_overlap(padded: Floats, v: int, loose: float) -> Order:
    """Take the row least like the rest and the V - 1 that share most of its mask, time and again.

    Rows of one hidden support end up together whatever the order: planted structure is found.
    """
    mask = _loose_mask(padded, loose).astype(np.float32)
    taken = np.zeros(len(padded), np.float32)
    total, order = mask.sum(0), []
    for _ in range(len(padded) // v):
        seed = (mask @ total + taken).argmin()
        near = np.argsort(taken - mask @ mask[seed], kind="stable")[:v]
        order.append(near)
        taken[near] = np.inf
        total -= mask[near].sum(0)
    return np.concatenate(order)


def retained(weight: torch.Tensor, pattern: Pattern) -> float:
    """Return the share of a weight's absolute sum that a pattern keeps."""
    matrix = as_matrix(weight.detach()).abs().double()
    return float((matrix * pattern.mask).sum() / matrix.sum())
