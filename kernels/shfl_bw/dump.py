"""Reads the text form in which the authors' kernel repository writes packed matrices."""

from __future__ import annotations

import torch

from kernels.errors import NasError
from kernels.shfl_bw.packed import Packed, check


def read_dump(text: str) -> Packed:
    """Return the packed matrix of a text dump.

    Numbers in this order: rows, columns, blocks, V, columns of a block, whether an order of rows
    follows; then where each group's blocks begin, each block's column of blocks, the values block
    by block with rows fastest, and the order: packed place to row. The repository's documentation
    prints the flag 0 before an example that needs 1.

    Raises:
        NasError: it is no such dump.
    """
    try:
        numbers = [float(word) for word in text.split()]
        rows, columns, blocks, v, width, flag = (int(number) for number in numbers[:6])
        groups = rows // v
        sizes = [groups + 1, blocks, blocks * v * width, rows if flag else 0]
        parts = torch.split(torch.tensor(numbers[6:]), sizes)
    except (ValueError, ZeroDivisionError, RuntimeError) as problem:
        first = str(problem).splitlines()[0]
        raise NasError(f"This is no text dump of a packed matrix: {first}.") from None
    column = (parts[1].int()[:, None] * width + torch.arange(width)).flatten()
    order = parts[3] if flag else torch.arange(rows)
    packed = Packed(
        parts[2].view(blocks * width, v),
        column.to(torch.int32),
        (parts[0] * width).to(torch.int32),
        order.to(torch.int32),
        (rows, columns),
    )
    check(packed)
    return packed
