"""Weights in the order in which the CUDA kernels read them: one gather, tables kept per shape.

A fragment of a matrix product gives each of 32 lanes two registers of two elements. The tables
are exact: no product reads a channel outside its window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch

from kernels.sliding_channel.launch import gather
from kernels.sliding_channel.plan import Structure
from kernels.sliding_channel.plan_hopper import forward_plan

DENSE = "dense"
"""In the place of a CUDA source: the product with one matrix, by torch's libraries."""


def pack(weight: torch.Tensor, s: Structure, kernels: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """Return the weights as some kernels read them, by one gather.

    Args:
        weight: (c_out, width).
        s: the windows.
        kernels: CUDA sources, among the keys of ``TABLES``.

    Returns:
        for each of them flat weights; for the dense product a matrix (c_out, c_in).
    """
    counts = [len(TABLES[name](s, weight.device)) for name in kernels]
    table = _tables(s, tuple(kernels), weight.device)
    parts = zip(kernels, torch.split(_gather(weight, table), counts), strict=True)
    return tuple(part.view(s.c_out, s.c_in) if name == DENSE else part for name, part in parts)


def pack_forward(weight: torch.Tensor, s: Structure) -> torch.Tensor:
    """Return the weights (c_out, width) as ``forward.cu`` and ``fused.cu`` read them, flat."""
    return pack(weight, s, ("forward.cu",))[0]


def dense_matrix(weight: torch.Tensor, s: Structure) -> torch.Tensor:
    """Return the weights (c_out, width) as a matrix (c_out, c_in), 0 outside the windows."""
    return pack(weight, s, (DENSE,))[0]


def window_entries(matrix: torch.Tensor, s: Structure) -> torch.Tensor:
    """Return the entries (c_out, width) that the windows have in a matrix (c_out, c_in)."""
    return _gather(matrix, _window_table(s, matrix.device)).view(s.c_out, s.width)


def _gather(source: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    if source.is_cuda and source.element_size() == 2 and len(table) % 8 == 0:
        with torch.cuda.device(source.device):
            return gather(source.contiguous(), table)
    found = source.reshape(-1)[table]
    return found.masked_fill_(table < 0, 0)


@lru_cache(maxsize=64)
def _tables(s: Structure, kernels: tuple[str, ...], device: torch.device) -> torch.Tensor:
    return torch.cat([TABLES[name](s, device) for name in kernels])


@lru_cache(maxsize=64)
def _window_table(s: Structure, device: torch.device) -> torch.Tensor:
    """Place in a (c_out, c_in) matrix of each weight."""
    output = torch.arange(s.c_out)[:, None]
    channel = (output * s.shift + torch.arange(s.width)) % s.c_in
    return _table(output * s.c_in + channel, device)


@lru_cache(maxsize=64)
def _dense_table(s: Structure, device: torch.device) -> torch.Tensor:
    """Weight of each entry of the (c_out, c_in) matrix, -1 outside the windows."""
    output = torch.arange(s.c_out)[:, None]
    offset = (torch.arange(s.c_in) - output * s.shift) % s.c_in
    return _table(torch.where(offset < s.width, output * s.width + offset, -1), device)


def _table(places: torch.Tensor, device: torch.device) -> torch.Tensor:
    return places.reshape(-1).to(device, torch.int32)


def _fragment() -> tuple[torch.Tensor, torch.Tensor]:
    """Return (row of 16, column of 8) of each element of a fragment, (32, 2, 2)."""
    lane = torch.arange(32).view(32, 1, 1)
    register = torch.arange(2).view(1, 2, 1)
    row = 2 * (lane % 4) + 8 * register + torch.arange(2)
    return row.expand(32, 2, 2), (lane // 4).expand(32, 2, 2)


@lru_cache(maxsize=64)
def _forward_table(s: Structure, device: torch.device) -> torch.Tensor:
    """Index of each packed weight: (groups, period, steps, 32, 2, 2)."""
    row, column = _fragment()
    group = torch.arange(s.c_out // (8 * s.period)).view(-1, 1, 1, 1, 1, 1)
    r = torch.arange(s.period).view(1, -1, 1, 1, 1, 1)
    step = torch.arange(s.width // 16).view(1, 1, -1, 1, 1, 1)
    # Columns 2t and 2t + 1 are one thread's: neighbours, or 4 apart where one fills 16 bytes.
    q = column if s.period < 8 else column // 2 + 4 * (column % 2)
    output = s.period * (8 * group + q) + r
    return _table(output * s.width + 16 * step + row, device)


@lru_cache(maxsize=64)
def _input_gradient_table(s: Structure, device: torch.device) -> torch.Tensor:
    """Index of each packed weight: (owners, parts, members, steps, tiles, 32, 2, 2)."""
    row, column = _fragment()
    parts = max(1, 32 // s.chunk)
    tiles = 4 // parts
    owner = torch.arange(s.c_in // 32).view(-1, 1, 1, 1, 1, 1, 1, 1)
    part = torch.arange(parts).view(1, -1, 1, 1, 1, 1, 1, 1)
    member = torch.arange(s.members).view(1, 1, -1, 1, 1, 1, 1, 1)
    step = torch.arange(s.per_window // 16).view(1, 1, 1, -1, 1, 1, 1, 1)
    tile = torch.arange(tiles).view(1, 1, 1, 1, -1, 1, 1, 1)
    # Column 2t + i of tile j is channel 2 * tiles * t + 2j + i of the part: a thread's are side by
    # side. With one tile a part, threads exchange instead.
    within = 2 * tiles * (column // 2) + 2 * tile + column % 2
    channel = 32 * owner + min(32, s.chunk) * part + within
    chunk = 32 * owner // s.chunk + part
    inverse = pow(s.shift // s.chunk, -1, s.period) if s.period > 1 else 0
    window = (chunk - member) % s.period * inverse % s.period
    output = s.period * (16 * step + row) + window
    offset = (channel - window * s.shift) % s.c_in
    return _table(output * s.width + offset, device)


def _swizzled(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (row, column) of each place of a matrix as the warpgroup products read it.

    64 columns after another, each row 128 bytes, their 16-byte units turned by the row. Both are
    (columns / 64, rows, 64).
    """
    row = torch.arange(rows).view(1, -1, 1)
    place = torch.arange(64)
    column = torch.arange(0, columns, 64).view(-1, 1, 1)
    column = column + ((place // 8) ^ (row % 8)) * 8 + place % 8
    return row.expand_as(column), column


@lru_cache(maxsize=64)
def _hopper_forward_table(s: Structure, device: torch.device) -> torch.Tensor:
    """Index of each packed weight: (split, columns / 64, outputs of a window, 64).

    Columns are the windows' channels, window by window.
    """
    split = forward_plan(s).split
    rows = s.per_window // split
    row, column = _swizzled(rows, s.period * s.width)
    # Rows 2t and 2t + 1 of each eight are one thread's, which holds 8 neighbouring outputs.
    thread, pair = row % 8 // 2, row % 2
    if s.period == 8:
        q = row // 8 * 8 + 4 * pair + thread
    else:
        eights = 4 // s.period  # whose pairs make up a unit
        q = (row // 8 // eights * 4 + thread) * 2 * eights + row // 8 % eights * 2 + pair
    q = q + rows * torch.arange(split).view(-1, 1, 1, 1)
    output = s.period * q + column // s.width
    return _table(output * s.width + column % s.width, device)


@lru_cache(maxsize=64)
def _hopper_input_gradient_table(s: Structure, device: torch.device) -> torch.Tensor:
    """Index of each packed weight: (chunks, columns / 64, channels of a chunk, 64).

    Columns are the outputs of the windows that read the chunk, window by window.
    """
    row, column = _swizzled(s.chunk, s.members * s.per_window)
    member, k = column // s.per_window, column % s.per_window
    # Of 16 columns 2t, 2t + 1 and those 8 on are one thread's, which reads whole units of dy.
    thread, fourth = k % 8 // 2, k % 16 // 8 * 2 + k % 2
    at_once = 8 // s.period  # outputs of a window in a unit
    q = k // 16 * 16 + (fourth // at_once * 4 + thread) * at_once + fourth % at_once
    chunk = torch.arange(s.c_in // s.chunk).view(-1, 1, 1, 1)
    window = (chunk - member) % s.period * _inverse(s) % s.period
    # Rows 2t and 2t + 1 of four eights are one thread's: 8 neighbouring channels.
    channel = row // 32 * 32 + row % 8 // 2 * 8 + row % 32 // 8 * 2 + row % 2
    return _table((s.period * q + window) * s.width + member * s.chunk + channel, device)


def _inverse(s: Structure) -> int:
    """Return what makes a chunk, times it, the window that starts there, modulo the period."""
    return pow(s.shift // s.chunk, -1, s.period) if s.period > 1 else 0


TABLES: Mapping[str, Callable[[Structure, torch.device], torch.Tensor]] = {
    DENSE: _dense_table,
    "forward.cu": _forward_table,
    "forward_hopper.cu": _hopper_forward_table,
    "input_gradient.cu": _input_gradient_table,
    "input_gradient_hopper.cu": _hopper_input_gradient_table,
}
"""Of each kernel: the index of each packed weight in (c_out, width), -1 for a zero."""
