"""The packed form of a pruned weight: kept vectors, their columns, and where rows belong.

Each group of V rows is a dense panel of its kept columns, vector after vector, V values each. Only
rows are permuted: a kernel gathers the kept columns' rows of the (features, tokens) input and
writes each row of its result where it belongs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kernels.errors import NasError
from kernels.shfl_bw.pattern import Pattern, as_matrix, group_count

FORMAT = "paretonas.shfl_bw"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A pruned matrix (rows, columns).

    Attributes:
        values: (vectors, v): the kept vectors, group by group.
        columns: (vectors,), int32: the column of each vector, rising within a group.
        offsets: (groups + 1,), int32: where each group's vectors begin.
        rows: (groups * v,), int32: packed place to row; -1 for rows of padding.
        shape: (rows, columns) of the matrix.
    """

    values: torch.Tensor
    columns: torch.Tensor
    offsets: torch.Tensor
    rows: torch.Tensor
    shape: tuple[int, int]

    @property
    def v(self) -> int:
        """Rows of a group."""
        return int(self.values.shape[1])

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.offsets) - 1

    @property
    def density(self) -> float:
        """Share of all vectors that are kept."""
        return len(self.columns) / (self.groups * self.shape[1])

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return values, columns, offsets and rows, as operators take them."""
        return self.values, self.columns, self.offsets, self.rows

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Packed:
        """Return it on a device, its values in a floating-point type."""
        values = self.values.to(device, dtype or self.values.dtype)
        columns, offsets, rows = (tensor.to(device) for tensor in self.tensors()[1:])
        return Packed(values, columns, offsets, rows, self.shape)

    def dense(self) -> torch.Tensor:
        """Return the matrix (rows, columns) with zeros where nothing is kept."""
        return dense_matrix(*self.tensors(), self.shape)


def pack(weight: torch.Tensor, pattern: Pattern) -> Packed:
    """Pack the kept weights of a matrix, or of filters (o, c, h, w) taken as (o, h * w * c).

    Raises:
        NasError: the pattern is of another shape.
    """
    matrix = as_matrix(weight.detach())
    if matrix.shape != pattern.mask.shape:
        raise NasError(
            f"A pattern over {tuple(pattern.mask.shape)} does not fit weights of "
            f"{tuple(weight.shape)}."
        )
    rows, columns = matrix.shape
    kept = pattern.kept().to(matrix.device)
    order = pattern.order.to(matrix.device)
    group, column = kept.nonzero(as_tuple=True)
    members = order.view(-1, pattern.v)[group]
    inside = members < rows
    values = matrix[members.clamp(max=rows - 1), column[:, None]] * inside
    return Packed(
        values.contiguous(),
        column.to(torch.int32),
        _offsets(kept.sum(1)),
        torch.where(order < rows, order, -1).to(torch.int32),
        (rows, columns),
    )


def _offsets(counts: torch.Tensor) -> torch.Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32)


def dense_matrix(
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    shape: tuple[int, int],
) -> torch.Tensor:
    """Return the matrix that packed tensors describe; see :class:`Packed`."""
    place, column = places(columns, offsets, rows, values.shape[1])
    matrix = values.new_zeros(shape[0] + 1, shape[1])  # padding goes to the row behind the last
    matrix[place, column] = values
    return matrix[:-1]


def places(
    columns: torch.Tensor, offsets: torch.Tensor, rows: torch.Tensor, v: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return row (-1: padding) and column of each packed value, (vectors, v) and (vectors, 1)."""
    counts = (offsets[1:] - offsets[:-1]).long()
    groups = torch.arange(len(counts), device=columns.device)
    group = groups.repeat_interleave(counts, output_size=len(columns))
    return rows.long().view(-1, v)[group], columns.long()[:, None]


def check(packed: Packed) -> None:
    """Refuse tensors that are no packed matrix, so that no kernel reads or writes out of bounds.

    Raises:
        NasError: names the first rule that is broken.
    """
    rows, columns = packed.shape
    reason = _refuses(packed, rows, columns)
    if reason is not None:
        raise NasError(f"This is no packed {rows}x{columns} matrix: {reason}.")


def _refuses(packed: Packed, rows: int, columns: int) -> str | None:
    if packed.values.dim() != 2 or packed.v < 1 or rows < 1 or columns < 1:
        return f"values must be (vectors, V), they are {tuple(packed.values.shape)}"
    groups = group_count(rows, packed.v)
    vectors = len(packed.values)
    expected = {"columns": (vectors,), "offsets": (groups + 1,), "rows": (groups * packed.v,)}
    for name, shape in expected.items():
        found: torch.Tensor = getattr(packed, name)
        if tuple(found.shape) != shape or found.dtype != torch.int32:
            return f"{name} must be int32 {shape}, they are {found.dtype} {tuple(found.shape)}"
    column, offsets, row = (tensor.cpu().long() for tensor in packed.tensors()[1:])
    steps = offsets.diff()
    if offsets[0] != 0 or offsets[-1] != vectors or bool((steps < 0).any()):
        return f"offsets must rise from 0 to {vectors}"
    if vectors and (int(column.min()) < 0 or int(column.max()) >= columns):
        return f"columns must lie in 0..{columns - 1}"
    group = torch.arange(groups).repeat_interleave(steps)
    if vectors > 1 and not bool(((group * columns + column).diff() > 0).all()):
        return "columns must rise within each group"
    if not torch.equal(row[row >= 0].sort().values, torch.arange(rows)) or bool((row < -1).any()):
        return f"rows must name each of 0..{rows - 1} once, and -1 elsewhere"
    return None


def save(packed: Packed, path: Path) -> None:
    """Write a packed matrix as a safetensors file.

    Raises:
        NasError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    rows, columns = packed.shape
    header = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "rows": str(rows),
        "columns": str(columns),
    }
    names = ("values", "columns", "offsets", "rows")
    tensors = dict(zip(names, (t.contiguous() for t in packed.tensors()), strict=True))
    try:
        save_file(tensors, path, metadata=header)
    except (OSError, SafetensorError) as problem:
        raise NasError(f"Cannot write the packed matrix to {path}: {problem}.") from None


def load(path: Path) -> Packed:
    """Read a packed matrix that :func:`save` wrote.

    Raises:
        NasError: there is no such file, it is of a newer version, or no packed matrix.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as problem:
        raise NasError(f"{path} cannot be read as a packed matrix: {problem}.") from None
    if header.get("format") != FORMAT:
        raise NasError(f"{path} is no packed matrix: its format is {header.get('format')!r}.")
    if header.get("version") != str(FORMAT_VERSION):
        raise NasError(
            f"{path} is packed in version {header.get('version')}; this release reads "
            f"{FORMAT_VERSION}. A newer one may read it."
        )
    try:
        shape = (int(header["rows"]), int(header["columns"]))
        packed = Packed(**tensors, shape=shape)
    except (KeyError, TypeError, ValueError) as problem:
        raise NasError(f"{path} is damaged: {problem}.") from None
    check(packed)
    return packed


def fold(first: Packed, second: Packed) -> tuple[Packed, Packed]:
    """Leave the rows of one layer in packed order, and have the next read them there.

    The two together compute what they did; between them features stand in packed order, so that
    the first writes neighbouring rows.

    Args:
        first: (hidden, columns), without rows of padding.
        second: (rows, hidden), reads the first's output through nothing but what acts on each
            feature alike.

    Raises:
        NasError: they do not fit, or the first has rows of padding.
    """
    hidden = first.shape[0]
    if second.shape[1] != hidden:
        raise NasError(f"A layer of {second.shape[1]} inputs does not follow one of {hidden} rows.")
    if bool((first.rows < 0).any()):
        raise NasError(
            f"V={first.v} does not divide {hidden} rows: rows of padding cannot be left."
        )
    place = torch.empty_like(first.rows)
    place[first.rows.long()] = torch.arange(hidden, dtype=torch.int32, device=place.device)
    moved = place[second.columns.long()]
    counts = (second.offsets[1:] - second.offsets[:-1]).long()
    group = torch.arange(len(counts), device=place.device).repeat_interleave(counts)
    again = (group * hidden + moved).argsort()
    plain = torch.arange(hidden, dtype=torch.int32, device=place.device)
    return (
        replace(first, rows=plain),
        replace(second, values=second.values[again].contiguous(), columns=moved[again]),
    )
