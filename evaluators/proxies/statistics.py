"""Formulas of scores of fresh networks, on tensors alone; ``untrained.py`` feeds them."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-30


def entropy(values: Tensor) -> Tensor:
    """Return the entropy in nats of non-negative values (..., n), scaled to sum 1."""
    shares = values.clamp_min(0)
    shares = shares / shares.sum(-1, keepdim=True).clamp_min(_TINY)
    result: Tensor = torch.special.entr(shares).sum(-1)
    return result


def jacobian_correlation(jacobian: Tensor, k: float = 1e-5) -> Tensor:
    """Return ``-sum(ln(v + k) + 1 / (v + k))``, v the eigenvalues of the samples' correlations.

    Args:
        jacobian: gradient of the outputs for the input of each sample, (b, d).
        k: keeps both terms finite.

    Source: Mellor et al. 2020 (first version of "Neural Architecture Search without Training").
    It is largest, ``-b (1 + ln 1)``, where no two samples' gradients are alike.
    """
    rows = jacobian.double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(_TINY)
    values = torch.linalg.eigvalsh(rows @ rows.T)
    result: Tensor = -((values + k).log() + 1 / (values + k)).sum()
    return result


def code_kernel(codes: Tensor) -> Tensor:
    """Return how many units two samples agree on, (b, b), from binary codes (b, n)."""
    ones = codes.float()
    return (ones @ ones.T + (1 - ones) @ (1 - ones).T).double()


def log_determinant(kernel: Tensor, ridge: float = 1e-6) -> Tensor:
    """Return ``ln det`` of a kernel of codes, with a ridge so that samples may be equal.

    Args:
        kernel: units that two samples agree on, (b, b); each agrees with itself on all.
        ridge: what is added to the diagonal, as a share of the units.

    Source: NASWOT (Mellor et al., ICML 2021). The number of units is part of the score there: a
    kernel of shares would be less by ``b ln(units)``, and ranks shallow networks first.
    """
    units = kernel.diagonal().mean().clamp_min(1)
    eye = torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    result: Tensor = torch.linalg.slogdet(kernel / units + ridge * eye)[1]
    return result + len(kernel) * units.log()


def feature_entropy(features: Tensor) -> Tensor:
    """Return the entropy of the principal components of feature maps (b, c, h, w) or (b, n, c).

    Source: AZ-NAS (Lee and Ham, CVPR 2024), expressivity: places of all maps are samples, channels
    are variables.
    """
    channels = features.movedim(1 if features.dim() == 4 else -1, 0).flatten(1).double()
    centred = channels - channels.mean(1, keepdim=True)
    return entropy(torch.linalg.eigvalsh(centred @ centred.T / centred.shape[1]))


def backward_gain(inner: Tensor, outer: Tensor) -> Tensor:
    """Return the top singular value of a block's Jacobian, estimated from random signs.

    Args:
        inner: gradient for the block's input, (b, c, h, w).
        outer: random signs that were fed back at its output, (b, c', h', w').

    Source: AZ-NAS, trainability: mean over places of the outer product of both; a coarser output
    is compared with all pixels under each of its own.
    """
    factor = inner.shape[-1] // outer.shape[-1] if inner.dim() == 4 else 1
    if factor > 1:
        inner = torch.nn.functional.pixel_unshuffle(inner, factor)
    axis = 1 if inner.dim() == 4 else -1
    a, b = (item.movedim(axis, 0).flatten(1).double() for item in (inner, outer))
    result: Tensor = torch.linalg.matrix_norm(a @ b.T / a.shape[1], 2)
    return result


def trainability(gain: Tensor) -> Tensor:
    """Return ``2 - s - 1 / s``: 0 for a gain of 1, less for gradients that grow or fade."""
    return 2 - gain - 1 / (gain + 1e-6)


def gradient_steadiness(gradients: Tensor) -> Tensor:
    """Return ``ln sum |mean of |g|| / std(g)`` over the weights of a layer, from (batches, ...).

    Source: ZiCo (Li et al., ICLR 2023). Weights whose gradient is the same for all batches are
    left out, as there.
    """
    flat = gradients.flatten(1).double()
    deviation = flat.std(0, unbiased=False)
    moving = deviation > 0
    ratio = flat.abs().mean(0)[moving] / deviation[moving]
    return ratio.sum().clamp_min(_TINY).log()


def decile_entropy(spectrum: Tensor) -> Tensor:
    """Return the entropy of the nine deciles of a spectrum, scaled to sum 1.

    Source: VKDNW (Tybl and Neumann, CVPR 2025), on the eigenvalues of the Fisher information.
    """
    places = torch.linspace(0.1, 0.9, 9, dtype=spectrum.dtype, device=spectrum.device)
    return entropy(torch.quantile(spectrum.clamp_min(0), places))


def label_spread(shares: Tensor, most: int) -> Tensor:
    """Return a root R of the covariance of labels that a network draws: ``R^T R``, (b, r, classes).

    The Fisher information for some weights is then the mean over samples of ``(R J)^T R J``, J the
    gradients of the logits: an expectation over labels, for which none is drawn.

    Args:
        shares: p, what the network predicts, (b, classes); the covariance is ``diag(p) - p p^T``.
        most: rows; where there are more classes, random sums of them stand for it in the mean.
    """
    p = shares.double()
    eye = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
    root = p.sqrt()[:, :, None] * (eye - p[:, None, :])
    if p.shape[1] <= most:
        return root
    signs = torch.randint(0, 2, (most, p.shape[1]), device=p.device).double() * 2 - 1
    sums: Tensor = signs @ root / most**0.5
    return sums


def fisher_spectrum(rows: Tensor) -> Tensor:
    """Return the eigenvalues of the Fisher information (weights,), from ``R J`` (b, r, weights).

    See :func:`label_spread`.
    """
    flat = rows.double().flatten(0, 1)
    result: Tensor = torch.linalg.eigvalsh(flat.T @ flat / len(rows))
    return result


def drawn_loss(output: Tensor) -> Tensor:
    """Return the cross-entropy of each sample (b,), with labels that the network itself draws.

    Args:
        output: logits, (b, classes), or (b, tokens, classes): the mean over tokens.
    """
    logits = output.flatten(0, -2)
    labels = torch.multinomial(logits.detach().softmax(1), 1)[:, 0]
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    result: Tensor = losses.reshape(len(output), -1).mean(1)
    return result
