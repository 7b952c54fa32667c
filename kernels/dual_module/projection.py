"""Random projections with entries -1, 0 and +1, two bits each (Achlioptas, 2001)."""

from __future__ import annotations

import torch

_SIGNS = torch.tensor([0, 1, -1, 0], dtype=torch.int8)


def ternary(outputs: int, inputs: int, seed: int) -> torch.Tensor:
    """Return signs (outputs, inputs), int8: +1 and -1 with probability 1/6 each.

    Times the root of 3 over ``outputs`` they keep lengths. Equal seeds give equal signs.
    """
    generator = torch.Generator().manual_seed(seed)
    dice = torch.randint(0, 6, (outputs, inputs), generator=generator)
    return (dice == 0).to(torch.int8) - (dice == 1).to(torch.int8)


def pack_signs(signs: torch.Tensor) -> torch.Tensor:
    """Return signs (outputs, inputs) as two bits each (outputs, bytes), uint8, the first lowest.

    0 is 0, +1 is 1, -1 is 2. Rows are padded with zeros to 16 bytes: 64 signs.
    """
    codes = torch.where(signs < 0, 2, signs.to(torch.int64)).to(torch.uint8)
    padded = torch.nn.functional.pad(codes, (0, -signs.shape[1] % 64))
    fours = padded.view(len(signs), -1, 4)
    places = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)
    packed: torch.Tensor = (fours << places.to(codes.device)).sum(-1, dtype=torch.uint8)
    return packed


def unpack_signs(packed: torch.Tensor, inputs: int) -> torch.Tensor:
    """Return packed signs as (outputs, inputs), int8."""
    places = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=packed.device)
    codes = ((packed.unsqueeze(-1) >> places) & 3).flatten(1)[:, :inputs]
    return _SIGNS.to(packed.device)[codes.long()]
