"""What a Shfl-BW mask is: exact membership, the order of rows that shows it, and 2-D weights.

Source: Huang et al., Shfl-BW, DAC 2022 (arXiv 2203.05016). A mask has the pattern for vectors of V
rows if some order of its rows makes it vector-wise: in each group of V neighbours, every column is
kept or dropped as a whole. That is so exactly if every support of a row occurs a multiple of V
times.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.errors import NasError


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """Which weights of a matrix are kept, and the order of rows that groups them.

    Attributes:
        mask: (rows, columns), bool; kept weights, also where their value is 0.
        order: (groups * v,), int64: place in the packed matrix to row; ``rows`` and above are
            rows of padding, which every matrix has whose rows V does not divide.
        v: rows of a group.
    """

    mask: torch.Tensor
    order: torch.Tensor
    v: int

    @property
    def groups(self) -> int:
        """Number of groups of V rows."""
        return len(self.order) // self.v

    @property
    def density(self) -> float:
        """Share of the weights that are kept."""
        return float(self.mask.sum()) / max(1, self.mask.numel())

    def kept(self) -> torch.Tensor:
        """Return which columns each group keeps, (groups, columns), bool."""
        rows, columns = self.mask.shape
        padded = torch.cat([self.mask, self.mask.new_zeros(len(self.order) - rows, columns)])
        return padded[self.order].view(self.groups, self.v, columns).any(1)


def group_count(rows: int, v: int) -> int:
    """Return how many groups of V rows hold a matrix, the last filled up with zero rows.

    Raises:
        NasError: V or the rows are below 1.
    """
    if v < 1 or rows < 1:
        raise NasError(f"A vector has at least one row and a matrix too, got V={v}, {rows} rows.")
    return -(-rows // v)


def refuses_mask(mask: torch.Tensor, v: int) -> str | None:
    """Return why a mask has no Shfl-BW pattern, None if it has.

    Args:
        mask: (rows, columns), bool.
        v: rows of a group; rows of padding may have any support.
    """
    rows = mask.shape[0]
    padding = group_count(rows, v) * v - rows
    _, counts = _supports(mask)
    missing = int((-counts % v).sum())
    if missing == padding:
        return None
    odd = int(counts[counts % v != 0][0])
    return (
        f"every support of a row must occur a multiple of V={v} times, one occurs {odd} times"
        + (f" ({padding} rows of padding do not make up for {missing} missing)" if padding else "")
    )


def is_shfl_bw(mask: torch.Tensor, v: int) -> bool:
    """Tell whether some order of the rows makes a mask (rows, columns) vector-wise.

    Example:
        >>> is_shfl_bw(torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]]).bool(), 2)
        True
    """
    return refuses_mask(mask, v) is None


def pattern_of(mask: torch.Tensor, v: int) -> Pattern:
    """Return a mask with an order of its rows: by support, then by number.

    Raises:
        NasError: the mask has no such pattern; names the rule.
    """
    reason = refuses_mask(mask, v)
    if reason is not None:
        raise NasError(f"This mask of {mask.shape[0]} rows is not Shfl-BW: {reason}.")
    rows = mask.shape[0]
    support, counts = _supports(mask)
    spare = iter(range(rows, group_count(rows, v) * v))
    order: list[int] = []
    for number, count in enumerate(counts.tolist()):
        order += torch.nonzero(support == number).flatten().tolist()
        order += [next(spare) for _ in range(-count % v)]
    return Pattern(mask, torch.tensor(order, dtype=torch.int64), v)


def _supports(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the number of each row's support, and how often each support occurs."""
    _, support, counts = torch.unique(mask.cpu(), dim=0, return_inverse=True, return_counts=True)
    return support, counts


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """Return weights as a matrix (rows, columns): a convolution's (o, c, h, w) as (o, h*w*c).

    The channel runs fastest, as in the packed format.

    Raises:
        NasError: the weights have neither 2 nor 4 axes.
    """
    if weight.dim() == 2:
        return weight
    if weight.dim() == 4:
        return weight.permute(0, 2, 3, 1).flatten(1)
    raise NasError(
        f"Shfl-BW prunes matrices (out, in) and filters (out, in, h, w), got {tuple(weight.shape)}."
    )


def like_weight(matrix: torch.Tensor, shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
    """Undo :func:`as_matrix` for weights of a shape."""
    if len(shape) == 2:
        return matrix
    out, channels, height, width = shape
    return matrix.view(out, height, width, channels).permute(0, 3, 1, 2).contiguous()
