"""The definition: products of codes plane by plane, with exact integers."""

from __future__ import annotations

import torch

from kernels.arbitrary_precision.encodings import Encoding, combination
from kernels.arbitrary_precision.planes import code_values, unpack_planes

_POPCOUNT = torch.tensor([bin(byte).count("1") for byte in range(256)], dtype=torch.int64)


def plane_counts(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return popcount(W_s[m] AND X_t[n]) for every pair of planes.

    Args:
        w: planes (m, p, bytes), uint8.
        x: planes (n, q, bytes), uint8; where one is longer, its further bits count nothing.

    Returns:
        (p, q, m, n), int64.
    """
    length = min(w.shape[2], x.shape[2])
    w, x = w[..., :length], x[..., :length]
    both = w.permute(1, 0, 2)[:, None, :, None, :] & x.permute(1, 0, 2)[None, :, None, :, :]
    return _POPCOUNT.to(w.device)[both.long()].sum(-1)


def integer_product(
    w: torch.Tensor, x: torch.Tensor, w_encoding: Encoding, x_encoding: Encoding, k: int
) -> torch.Tensor:
    """Return the exact product of the numbers that planes stand for.

    Args:
        w: planes of weights (m, p, bytes).
        x: planes of activations (n, q, bytes).
        w_encoding: of the weights.
        x_encoding: of the activations.
        k: elements of a sum; later bits are padding.

    Returns:
        (n, m), int64: a row for each row of ``x``, as ``torch.nn.functional.linear`` has it.
    """
    counts = plane_counts(w, x)
    values = torch.tensor(w_encoding.plane_values)[:, None] * torch.tensor(x_encoding.plane_values)
    y = (counts * values[:, :, None, None].to(counts.device)).sum((0, 1))
    sum_w = code_values(unpack_planes(w, k), w_encoding).sum(-1)
    sum_x = code_values(unpack_planes(x, k), x_encoding).sum(-1)
    c = combination(w_encoding, x_encoding, k)
    product = c.y * y + c.sum_w * sum_w[:, None] + c.sum_x * sum_x[None, :] + c.constant
    return product.T.contiguous()
