"""Weights in the order in which the CUDA kernels read them: one gather, tables kept per shape.

A fragment of a matrix product gives each of 32 lanes two registers of two elements. The tables
are exact: no product reads a channel outside its window.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from kernels.sliding_channel.launch import gather
from kernels.sliding_channel.plan import Structure


def pack_forward(weight: torch.Tensor, s: Structure) -> torch.Tensor:
    """Return the weights (c_out, width) as ``forward.cu`` and ``fused.cu`` read them, flat."""
    return _gather(weight, _forward_table(s, weight.device))


def pack_input_gradient(weight: torch.Tensor, s: Structure) -> torch.Tensor:
    """Return the weights (c_out, width) as ``input_gradient.cu`` reads them, flat."""
    return _gather(weight, _input_gradient_table(s, weight.device))


def pack_both(weight: torch.Tensor, s: Structure) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the two functions above return, by one gather."""
    count = len(_forward_table(s, weight.device))
    packed = _gather(weight, _both_tables(s, weight.device))
    return packed[:count], packed[count:]


def dense_matrix(weight: torch.Tensor, s: Structure) -> torch.Tensor:
    """Return the weights (c_out, width) as a matrix (c_out, c_in), 0 outside the windows."""
    return _gather(weight, _dense_table(s, weight.device)).view(s.c_out, s.c_in)


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
def _both_tables(s: Structure, device: torch.device) -> torch.Tensor:
    return torch.cat([_forward_table(s, device), _input_gradient_table(s, device)])


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
