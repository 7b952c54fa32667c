"""What a mask of attention means, where it means something that attention has a word for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from search_spaces.trace.reader import Reader

_HIDDEN = -1e4
"""Scores below this are as good as minus infinity."""


def mask_attributes(
    reader: Reader, masks: Sequence[Tensor], tokens: int, keys: int
) -> dict[str, bool | int]:
    """Return ``causal`` and ``window`` of attention with some masks.

    Args:
        reader: at the step that attends.
        masks: each added to the scores, or bool, True where a token is seen; (..., tokens, keys).
        tokens: of the queries.
        keys: of the keys.

    Raises:
        ArchitectureError: together they mean something else.
    """
    seen = torch.ones(tokens, keys, dtype=torch.bool)
    for mask in masks:
        seen &= _seen(reader, mask, tokens, keys)
    if bool(seen.all()):
        return {}
    place = torch.arange(keys)
    age = place[:tokens, None] - place
    for causal in (True, False):
        inside = age >= 0 if causal else torch.ones_like(seen)
        if torch.equal(seen, inside):
            return {"causal": causal}
        widths = seen.sum(1)
        window = int(widths.max()) if causal else (int(widths.max()) + 1) // 2
        if window and torch.equal(seen, inside & (age.abs() < window)):
            return {"causal": causal, "window": window}
    raise reader.error("its mask is neither causal nor a window of tokens")


def _seen(reader: Reader, mask: Tensor, tokens: int, keys: int) -> Tensor:
    """Return a mask as bool (tokens, keys)."""
    whole = mask.detach().cpu()
    if whole.dtype != torch.bool:
        if bool(((whole != 0) & (whole > _HIDDEN)).any()):
            raise reader.error("adds a bias to the scores of attention; only masks are known")
        whole = whole == 0
    try:
        rows = whole.broadcast_to(*whole.shape[:-2], tokens, keys).reshape(-1, tokens, keys)
    except RuntimeError:
        raise reader.error(f"has a mask {tuple(whole.shape)} for {tokens} tokens") from None
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise reader.error("has masks that differ between samples or heads")
    return rows[0]
