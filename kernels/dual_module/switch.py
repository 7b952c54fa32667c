"""Which rows the big module computes: by a threshold, by a share, or by their number."""

from __future__ import annotations

import torch
from torch import nn

from kernels.dual_module.regions import Activation, most_sensitive, sensitive, threshold_for_ratio
from kernels.errors import NasError

_FUNCTIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


class Switch(nn.Module):
    """Decides from estimates (..., n) of one activation's inputs.

    Buffer ``threshold`` () float32: all rows are computed until one is set. It counts what it
    decides, for reports.

    Args:
        activation: what follows the rows.
        count: compute exactly so many rows of each vector instead; None goes by the threshold.
    """

    threshold: torch.Tensor

    def __init__(self, activation: Activation, count: int | None = None) -> None:
        super().__init__()
        if count is not None and count < 0:
            raise NasError(f"Expected a number of rows, got {count}.")
        self.activation, self.count = activation, count
        everything = -torch.inf if activation == "relu" else torch.inf
        self.register_buffer("threshold", torch.tensor(everything))
        self.decided = 0
        self.kept = 0

    def forward(self, estimate: torch.Tensor) -> torch.Tensor:
        """Return which rows to compute, bool, of the estimates' shape."""
        if self.count is not None:
            mask = most_sensitive(estimate, self.activation, self.count)
        else:
            mask = sensitive(estimate, self.activation, self.threshold)
        if not torch.compiler.is_compiling():  # an export has no use for the counts
            self.decided += mask.numel()
            self.kept += mask.numel() - int(mask.sum())
        return mask

    def set_ratio(self, estimates: torch.Tensor, ratio: float) -> None:
        """Set the threshold at which a share of estimates from calibration is kept."""
        self.threshold.fill_(threshold_for_ratio(estimates, self.activation, ratio))

    def apply_activation(self, y: torch.Tensor) -> torch.Tensor:
        """Return the activation of y."""
        return _FUNCTIONS[self.activation](y)

    @property
    def ratio(self) -> float:
        """Share of rows that kept the estimate since :meth:`reset`; 0 before any."""
        return self.kept / self.decided if self.decided else 0.0

    def reset(self) -> None:
        """Begin to count anew."""
        self.decided = self.kept = 0

    def extra_repr(self) -> str:
        """Return activation and rule."""
        rule = f"count={self.count}" if self.count is not None else f"{float(self.threshold):.4g}"
        return f"{self.activation}, {rule}"
