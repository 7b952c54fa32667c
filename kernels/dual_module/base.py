"""What calibration needs of a layer with a little module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from kernels.dual_module.fit import LeastSquares
from kernels.dual_module.little import Estimator
from kernels.dual_module.switch import Switch


class DualModule(nn.Module):
    """A layer whose rows are estimated first; see each layer for its form."""

    def estimators(self) -> list[Estimator]:
        """Return the estimators, in the order in which :meth:`observe` takes equations."""
        raise NotImplementedError

    def observe(self, equations: Sequence[LeastSquares], *given: Any) -> None:
        """Add what :meth:`forward` was given to each estimator's least squares."""
        raise NotImplementedError

    def switches(self) -> list[Switch]:
        """Return the layer's switches."""
        return [module for module in self.modules() if isinstance(module, Switch)]
