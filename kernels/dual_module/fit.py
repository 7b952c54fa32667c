"""The little module's weights: least squares on calibration data, then a few bits."""

from __future__ import annotations

import torch

from kernels.errors import NasError

_RIDGE = 1e-6  # times the square of each projected input


class LeastSquares:
    """Normal equations of y = W u + b, added up batch by batch in float64.

    Args:
        inputs: size of u.
        outputs: size of y.
        device: where to add.
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device | str = "cpu") -> None:
        kind = {"dtype": torch.float64, "device": device}
        self.count = 0
        self._uu = torch.zeros(inputs + 1, inputs + 1, **kind)  # type: ignore[call-overload]
        self._yu = torch.zeros(outputs, inputs + 1, **kind)  # type: ignore[call-overload]

    def add(self, u: torch.Tensor, y: torch.Tensor) -> None:
        """Take inputs (samples, inputs) and what they should give (samples, outputs).

        Raises:
            NasError: a value is not finite.
        """
        if not (torch.isfinite(u).all() and torch.isfinite(y).all()):
            raise NasError("Cannot fit a little module to values that are not finite.")
        grown = torch.nn.functional.pad(u.double(), (0, 1), value=1.0)
        self._uu += grown.T @ grown
        self._yu += y.double().T @ grown
        self.count += len(u)

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights (outputs, inputs) and bias (outputs,), float32.

        Raises:
            NasError: there are no samples.
        """
        if not self.count:
            raise NasError("Cannot fit a little module without samples.")
        size = self._uu.diagonal().clamp_min(1e-30).sqrt()  # parts may differ by many orders
        level = _RIDGE * torch.ones_like(size)
        level[-1] = 0.0
        scaled = self._uu / size / size[:, None] + torch.diag(level)
        solved = torch.linalg.solve(scaled, (self._yu / size).T).T / size
        return solved[:, :-1].float().contiguous(), solved[:, -1].float().contiguous()


def quantise(
    x: torch.Tensor, bits: int, *, per_row: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round to integers of ``bits`` bits, symmetric about 0, ties to even.

    Args:
        x: (rows, columns), or (columns,).
        bits: 2 to 8.
        per_row: whether each row has a scale of its own.

    Returns:
        int8 integers, and their scale: () or (rows, 1). A scale is 1 where all is zero, NaN where
        one is.

    Raises:
        NasError: the bits are out of range.
    """
    if not 2 <= bits <= 8:
        raise NasError(f"Expected 2 to 8 bits of a little weight, got {bits}.")
    highest = (1 << (bits - 1)) - 1
    largest = x.abs().amax(-1, keepdim=True) if per_row else x.abs().amax()
    scale = torch.where(largest == 0, 1.0, largest / highest)  # NaN stays NaN
    return (x / scale).round().clamp(-highest, highest).to(torch.int8), scale
