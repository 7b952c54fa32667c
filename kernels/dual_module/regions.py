"""Where an activation is so flat that an error in its input hardly matters, and switches by it.

With an error of size delta and a tolerance theta, an input is insensitive where the activation
changes by no more than theta, to first order. The tail of tanh falls by ``4 exp(-2 |x|)``: the
paper's constant 2 lets the change exceed the tolerance.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from kernels.errors import NasError

Activation = Literal["relu", "sigmoid", "tanh"]
ACTIVATIONS: tuple[Activation, ...] = ("relu", "sigmoid", "tanh")


def region_threshold(activation: Activation, delta: float, tolerance: float) -> float:
    """Return the threshold of a switch from the size of the estimate's error.

    Returns:
        for ReLU the value below which estimates are kept; for sigmoid and tanh the size above
        which they are kept, at least 0.

    Raises:
        NasError: another activation, or a tolerance or delta that is not positive.

    Example:
        >>> round(region_threshold("tanh", 0.1, 0.01), 3)
        1.844
    """
    if activation not in ACTIVATIONS:
        raise NasError(f"Unknown activation {activation!r}. Known: {', '.join(ACTIVATIONS)}.")
    if not (delta > 0 and tolerance > 0):
        raise NasError(f"Delta and tolerance must be positive, got {delta} and {tolerance}.")
    if activation == "relu":
        return tolerance - delta
    if activation == "sigmoid":
        return max(0.0, math.log(delta / tolerance))
    return max(0.0, 0.5 * math.log(4 * delta / tolerance))


def sensitive(
    estimate: torch.Tensor, activation: Activation, threshold: torch.Tensor | float
) -> torch.Tensor:
    """Return which rows the big module must compute, of the estimates' shape, bool.

    NaN is sensitive: a row is never skipped for an estimate that says nothing.
    """
    if activation == "relu":
        return ~(estimate < threshold)
    return ~(estimate.abs() > threshold)


def most_sensitive(estimate: torch.Tensor, activation: Activation, count: int) -> torch.Tensor:
    """Return the ``count`` most sensitive rows of each vector (..., n), bool.

    The largest for ReLU; the smallest in size for sigmoid and tanh.
    """
    order = _sensitivity(estimate, activation)
    places = order.topk(min(count, order.shape[-1]), dim=-1).indices
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, places, True)


def threshold_for_ratio(estimates: torch.Tensor, activation: Activation, ratio: float) -> float:
    """Return the threshold at which a share of estimates is kept.

    Args:
        estimates: of any shape, from calibration.
        activation: what follows.
        ratio: the share, from 0 to 1.

    Raises:
        NasError: the share is out of range, or there is no estimate.
    """
    if not 0 <= ratio <= 1:
        raise NasError(f"Expected a share between 0 and 1, got {ratio}.")
    order = _sensitivity(estimates.detach().flatten().double(), activation)
    order = order[torch.isfinite(order)].sort().values
    if not len(order):
        raise NasError("There is no finite estimate to choose a threshold from.")
    kept = round(ratio * len(order))
    if kept == 0:
        edge = -math.inf
    elif kept == len(order):
        edge = math.inf
    else:
        edge = float(order[kept - 1] + order[kept]) / 2
    return edge if activation == "relu" else -edge


def _sensitivity(estimate: torch.Tensor, activation: Activation) -> torch.Tensor:
    return estimate if activation == "relu" else -estimate.abs()
