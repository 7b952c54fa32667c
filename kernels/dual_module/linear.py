"""Linear layers and feed-forward blocks with a little module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from kernels.dual_module.base import DualModule
from kernels.dual_module.fit import LeastSquares
from kernels.dual_module.little import Estimator, LittleModule
from kernels.dual_module.regions import Activation
from kernels.dual_module.switch import Switch
from kernels.errors import NasError


class DualModuleLinear(DualModule):
    """A linear layer and its activation; rows whose estimate says so are not computed.

    The little module estimates all rows, the switch says which the big weights must compute, both
    are mixed before the activation. Everything is computed until :meth:`fit` was called and a
    threshold set. Here all rows are computed and masked; see ``docs/kernels.md`` for what is
    skipped where.

    Args:
        linear: the big layer, whose parameters are taken as they are.
        activation: what follows it.
        count: compute exactly so many rows; None goes by the switch's threshold.
        settings: of the little module: ``epsilon``, ``bits``, ``seed``, ``projected``.
    """

    def __init__(
        self,
        linear: nn.Linear,
        activation: Activation,
        *,
        count: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.little = LittleModule((linear.in_features,), linear.out_features, **settings)
        self.switch = Switch(activation, count)
        self.to(linear.weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (..., d) to the activation of the rows (..., n)."""
        return self.switch.apply_activation(self.mixed(x)[0])

    def mixed(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows before the activation, and which of them the big module computed."""
        estimate = self.little(x)
        mask = self.switch(estimate)
        return torch.where(mask, self.big(x), estimate.to(x.dtype)), mask

    def big(self, x: torch.Tensor) -> torch.Tensor:
        """Return all rows before the activation, computed."""
        return F.linear(x, self.weight, self.bias)

    def estimate(self, x: torch.Tensor) -> torch.Tensor:
        """Return the little module's estimate of all rows (..., n), float32."""
        rows: torch.Tensor = self.little(x)
        return rows

    def estimators(self) -> list[Estimator]:
        """See :class:`DualModule`."""
        return [self.little.estimator]

    @torch.no_grad()
    def observe(self, equations: Sequence[LeastSquares], *given: Any) -> None:
        """Add inputs x (..., d); see :class:`DualModule`."""
        flat = given[0].flatten(0, -2)
        equations[0].add(self.little.project(flat)[0], self.big(flat))


class DualModuleFFN(nn.Module):
    """Two linear layers with ReLU between: rows of the first and columns of the second go together.

    A row whose estimate is below the threshold counts as zero: neither it nor its column of the
    second layer is computed. With a threshold above 0 small positive rows are lost too.

    Args:
        first: d to n.
        second: n to m.
        count: compute exactly so many rows; None goes by the switch's threshold.
        settings: of the little module.
    """

    def __init__(
        self, first: nn.Linear, second: nn.Linear, *, count: int | None = None, **settings: Any
    ) -> None:
        super().__init__()
        if first.out_features != second.in_features:
            raise NasError(
                f"The first layer puts out {first.out_features} features, the second takes "
                f"{second.in_features}."
            )
        self.first = _Rows(first, "relu", count=count, **settings)
        self.second = second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (..., d) to (..., m)."""
        y: torch.Tensor = self.second(self.first(x))
        return y


class _Rows(DualModuleLinear):
    """A layer whose rows are zero where they are not computed, whatever the estimate is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (..., d) to ReLU of the rows (..., n)."""
        mask = self.switch(self.estimate(x))
        return torch.where(mask, torch.relu(self.big(x)), 0.0)
