"""Nearest neighbours and k-means, whose work is one matrix product."""

from __future__ import annotations

from typing import NamedTuple

import torch

from kernels.errors import NasError
from kernels.extended_precision.functional import addmm, implementation_of
from kernels.extended_precision.launch import run_nearest, run_split

_CHUNK_BYTES = 256 << 20
"""Distances that are held at once."""


class Nearest(NamedTuple):
    """What is nearest to each row.

    Attributes:
        indices: int64.
        distances: squared, float32.
    """

    indices: torch.Tensor
    distances: torch.Tensor


class Clusters(NamedTuple):
    """The outcome of k-means.

    Attributes:
        centres: (k, d).
        labels: (n,), int64: the nearest centre of each point.
        inertia: sum of the squared distances to them, after each round.
    """

    centres: torch.Tensor
    labels: torch.Tensor
    inertia: list[float]


def nearest_centres(x: torch.Tensor, centres: torch.Tensor) -> Nearest:
    """Return the nearest centre of each point, the first among equals.

    On Hopper the distances never leave the registers.

    Args:
        x: points (n, d), float32.
        centres: (k, d), float32, k at least 1.

    Returns:
        Both (n,). A distance is |x|^2 + (|c|^2 - 2 x c), as accurate as float32 makes that.

    Raises:
        NasError: shapes that do not fit.
    """
    _check(x, centres)
    norms = centres.square().sum(1)
    if implementation_of(x, centres) == "hopper" and x.numel():
        indices, values = run_nearest(run_split(x[None]), run_split(centres[None]), norms)
    else:
        parts = [addmm(norms, rows, centres.T, alpha=-2.0).min(1) for rows in _chunks(x, centres)]
        values = torch.cat([part.values for part in parts])
        indices = torch.cat([part.indices for part in parts])
    return Nearest(indices, (values + x.square().sum(1)).clamp_min(0.0))


def nearest_neighbours(queries: torch.Tensor, points: torch.Tensor, count: int) -> Nearest:
    """Return the ``count`` nearest points of each query, the nearest first.

    Args:
        queries: (n, d), float32.
        points: (p, d), float32.
        count: at most p.

    Returns:
        Both (n, count).

    Raises:
        NasError: shapes that do not fit, or fewer points than asked for.
    """
    _check(queries, points)
    if not 1 <= count <= len(points):
        raise NasError(f"Expected 1 to {len(points)} neighbours, got {count}.")
    norms = points.square().sum(1)
    parts = [
        addmm(norms, rows, points.T, alpha=-2.0).topk(count, largest=False)
        for rows in _chunks(queries, points)
    ]
    values = torch.cat([part.values for part in parts])
    distances = values + queries.square().sum(1, keepdim=True)
    return Nearest(torch.cat([part.indices for part in parts]), distances.clamp_min(0.0))


def kmeans(x: torch.Tensor, k: int, *, rounds: int = 20, seed: int = 0) -> Clusters:
    """Return k clusters by Lloyd's rounds from k random points.

    A centre that no point is nearest to stays where it is. Equal inputs give equal bits.

    Args:
        x: points (n, d), float32.
        k: clusters, at most n.
        rounds: at most; ends earlier when no label changes.
        seed: of the choice of first centres.

    Raises:
        NasError: more clusters than points.
    """
    if not 1 <= k <= len(x):
        raise NasError(f"Expected 1 to {len(x)} clusters, got {k}.")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    centres = x[order[:k].to(x.device)]
    labels, inertia = torch.full((len(x),), -1, device=x.device), list[float]()
    for _ in range(rounds):
        found = nearest_centres(x, centres)
        inertia.append(float(found.distances.sum(dtype=torch.float64)))
        if torch.equal(found.indices, labels):
            break
        labels = found.indices
        centres = _means(x, labels, centres)
    return Clusters(centres, labels, inertia)


def _means(x: torch.Tensor, labels: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    sums = torch.zeros_like(centres).index_put_((labels,), x, accumulate=True)  # in a fixed order
    counts = torch.bincount(labels, minlength=len(centres))[:, None]
    return torch.where(counts > 0, sums / counts.clamp_min(1), centres)


def _chunks(x: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.split(x, max(1, _CHUNK_BYTES // (4 * len(others))))


def _check(x: torch.Tensor, others: torch.Tensor) -> None:
    fits = x.dim() == others.dim() == 2 and x.shape[1] == others.shape[1]
    if not fits or not len(others) or {x.dtype, others.dtype} != {torch.float32}:
        raise NasError(
            "Expected float32 points (n, d) and at least one of (k, d), got "
            f"{tuple(x.shape)} {x.dtype} and {tuple(others.shape)} {others.dtype}."
        )
