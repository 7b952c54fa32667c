"""The definition of the packed products, group by group, in plain PyTorch."""

from __future__ import annotations

import torch

from kernels.shfl_bw.activation import FUNCTIONS
from kernels.shfl_bw.window import Window


def shfl_bw_reference(
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    out_features: int,
    activation: str = "none",
    feature_major: bool = False,
) -> torch.Tensor:
    """Return ``act(W x + bias)``, W packed as :class:`kernels.shfl_bw.packed.Packed` says.

    An output depends on the kept columns of its group alone: NaN and infinity elsewhere do not
    reach it. Correct in float64; half types are multiplied in float32.

    Args:
        x: (tokens, in_features), or (in_features, tokens) where feature-major.
        values: (vectors, v).
        columns: (vectors,), int32.
        offsets: (groups + 1,), int32.
        rows: (groups * v,), int32.
        bias: (out_features,).
        out_features: rows of W.
        activation: among :data:`kernels.shfl_bw.activation.ACTIVATIONS`.
        feature_major: how input and output lie.

    Returns:
        (tokens, out_features) or (out_features, tokens), of the type of ``x``.
    """
    features = x if feature_major else x.T
    exact = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    y = x.new_zeros(out_features + 1, features.shape[1], dtype=exact)  # the last is for padding
    bounds = offsets.tolist()
    for group, members in enumerate(rows.long().view(-1, values.shape[1])):
        kept = slice(bounds[group], bounds[group + 1])
        y[members] = values[kept].to(exact).T @ features[columns[kept].long()].to(exact)
    y = y[:-1] if bias is None else y[:-1] + bias.to(exact)[:, None]
    y = FUNCTIONS[activation](y).to(x.dtype)
    return y if feature_major else y.T.contiguous()


def shfl_bw_conv2d_reference(
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    out_features: int,
    window: Window,
    activation: str = "none",
    feature_major: bool = False,
) -> torch.Tensor:
    """Return the convolution of x (b, c, h, w), or (c, h, w, b) where feature-major.

    W is the filters as a matrix (out, kh * kw * c), the channel fastest; the rest is as above.

    Returns:
        (b, out, oh, ow), or (out, oh, ow, b) where feature-major.
    """
    images = x.permute(3, 0, 1, 2) if feature_major else x
    batch, channels, height, width = images.shape
    y = shfl_bw_reference(
        window.unfold(images),
        values,
        window.unfolded_rows(columns, channels),
        offsets,
        rows,
        bias,
        out_features=out_features,
        activation=activation,
        feature_major=True,
    )
    y = y.view(out_features, batch, *window.output(height, width))
    return y.permute(0, 2, 3, 1).contiguous() if feature_major else y.transpose(0, 1).contiguous()
