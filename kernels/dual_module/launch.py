"""The CUDA kernels' launches: what they are given, and their compiled text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from kernels.dual_module.linear import DualModuleFFN
from kernels.dual_module.little import Estimator
from kernels.dual_module.packing import pack_codes, pack_rows
from kernels.dual_module.recurrent import DualModuleLSTMCell
from kernels.errors import NasError
from kernels.jit import CompiledKernel, Kernel, compile_cuda, load, read_source

SOURCES = Path(__file__).parent / "cuda"
"""Where the CUDA sources are."""

LSTM_WARPS = 24
FFN_WARPS = 16
"""Of a block; one block a multiprocessor."""

_IDLE_BYTES = 24 << 10
"""What a multiprocessor brings ahead while all wait for the projection; more was slower."""

Argument = torch.Tensor | np.generic | None


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel's launch.

    Attributes:
        file: the source in ``cuda/``.
        function: the kernel.
        defines: its compile-time constants.
        blocks: of the grid; all must fit on the GPU at once.
        shared_bytes: dynamic shared memory of a block.
        arguments: in the kernel's order.
    """

    file: str
    function: str
    defines: Mapping[str, int]
    blocks: int
    shared_bytes: int
    arguments: Sequence[Argument]

    def run(self) -> None:
        """Launch on the current stream of the tensors' device."""
        device = next(item.device for item in self.arguments if isinstance(item, torch.Tensor))
        capability = torch.cuda.get_device_capability(device)
        kernel = _kernel(self.file, self.function, tuple(sorted(self.defines.items())), capability)
        threads = 32 * self.defines["WARPS"]
        kernel((self.blocks,), (threads,), self.arguments, shared_bytes=self.shared_bytes)


class LSTMStep:
    """One step of a dual LSTM cell for one vector; memory is allocated once, as graphs need.

    Args:
        cell: fitted, on a GPU (or the CPU, where an emulator runs the launch).
        blocks: of the grid; the multiprocessors of the GPU.
        dense: compute every row, without the little module.
        ahead: rows a block that come into the second-level cache before it is known whether they
            matter; None takes what the memory has time for.

    Raises:
        NasError: the layer's sizes do not fit the kernel.
    """

    def __init__(
        self,
        cell: DualModuleLSTMCell,
        blocks: int,
        *,
        dense: bool = False,
        ahead: int | None = None,
    ) -> None:
        self._dense = dense
        inputs, hidden = cell.input_size, cell.hidden_size
        device = cell.weight.device
        self._parts = cell.little.estimator
        self._projections = cell.little.sizes
        self._sizes, self._units = (inputs, hidden), -(-hidden // blocks)
        self.blocks = -(-hidden // self._units)
        self._weight = pack_rows(cell.weight.detach(), self._sizes)
        row_bytes = 2 * self._weight.shape[1]
        self._ahead = _IDLE_BYTES // row_bytes if ahead is None else ahead
        self._bias = cell.bias.detach().float()
        self._codes = pack_codes(self._parts.codes, self._projections, self._parts.bits)
        self._signs = cell.little.signs
        self._thresholds = torch.stack([s.threshold for s in cell.switches()]).float()
        self._u = torch.zeros(sum(self._projections), device=device)
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)
        self.computed = torch.zeros(self.blocks, dtype=torch.int32, device=device)
        self.shared_bytes = _fits(self._shared_bytes())

    def launch(
        self,
        x: torch.Tensor,
        h: torch.Tensor,
        c: torch.Tensor,
        new_h: torch.Tensor,
        new_c: torch.Tensor,
    ) -> Launch:
        """Return the launch of x (d,), h (h,), float16, and c (h,), float32, to the next state."""
        k_x, k_h = self._projections
        numbers = (*self._sizes, self._units, k_x, k_h, self._weight.shape[1])
        arguments: list[Argument] = [x, h, c, self._weight, self._bias, *self._little()]
        arguments += [*self._signs, self._thresholds, self._u, self._counter, new_h, new_c]
        arguments += [self.computed, *(np.int32(n) for n in numbers)]
        arguments += [np.float32((3 / k) ** 0.5) for k in (k_x, k_h)]
        arguments += [np.int32(self._ahead)]
        return Launch(
            "lstm.cu",
            "dual_lstm_step",
            {**_defines(self._parts, LSTM_WARPS), "DENSE": int(self._dense)},
            self.blocks,
            self.shared_bytes,
            arguments,
        )

    def _little(self) -> list[torch.Tensor]:
        return [self._codes, self._parts.scale, self._parts.bias]

    def _shared_bytes(self) -> int:
        vector = 2 * self._weight.shape[1]
        rounded = sum(k + -k % 32 for k in self._projections)
        rows = 4 * self._units
        little = rows * self._codes.shape[1]
        numbers = sum(self._projections) + 6 * rows + self._units + 2 * LSTM_WARPS
        return vector + rounded + little + 4 * (numbers + rows + 2)


class FFNStep:
    """A dual feed-forward block for one vector; memory is allocated once, as graphs need.

    Args:
        block: fitted, on a GPU (or the CPU, where an emulator runs the launch).
        blocks: of the grid; the multiprocessors of the GPU.

    Raises:
        NasError: the layer's sizes do not fit the kernel.
    """

    def __init__(self, block: DualModuleFFN, blocks: int) -> None:
        first, second = block.first, block.second
        hidden, inputs = first.weight.shape
        outputs = second.out_features
        if outputs % 8:
            raise NasError(f"The kernel takes outputs in eights, not {outputs}.")
        self._turns = -(-outputs // (32 * FFN_WARPS * 8))
        if self._turns > 4:
            raise NasError(
                f"The kernel takes up to {4 * 32 * FFN_WARPS * 8} outputs, not {outputs}."
            )
        device = first.weight.device
        self._parts = first.little.estimator
        (self._k,), (self._signs,) = first.little.sizes, first.little.signs
        self._sizes, self._units = (inputs, hidden, outputs), -(-hidden // blocks)
        self.blocks = -(-hidden // self._units)
        self._first = pack_rows(first.weight.detach(), (inputs,))
        self._second = second.weight.detach().T.half().contiguous()
        zeros = torch.zeros(max(hidden, outputs), device=device)
        self._first_bias = zeros[:hidden] if first.bias is None else first.bias.detach().float()
        self._second_bias = zeros[:outputs] if second.bias is None else second.bias.detach().float()
        self._codes = pack_codes(self._parts.codes, (self._k,), self._parts.bits)
        self._threshold = first.switch.threshold.float()
        self._u = torch.zeros(self._k, device=device)
        self._shares = torch.zeros(self.blocks, outputs, device=device)
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)
        self.computed = torch.zeros(self.blocks, dtype=torch.int32, device=device)
        self.shared_bytes = _fits(self._shared_bytes())

    def launch(self, x: torch.Tensor, y: torch.Tensor) -> Launch:
        """Return the launch of x (d,) to y (m,), both float16."""
        arguments: list[Argument] = [x, self._first, self._first_bias, self._second]
        arguments += [self._second_bias, self._codes, self._parts.scale, self._parts.bias]
        arguments += [self._signs, self._threshold, self._u, self._shares, self._counter, y]
        arguments += [self.computed, *(np.int32(n) for n in (*self._sizes, self._units, self._k))]
        arguments += [np.float32((3 / self._k) ** 0.5)]
        defines = {**_defines(self._parts, FFN_WARPS), "TURNS": self._turns}
        return Launch("ffn.cu", "dual_ffn", defines, self.blocks, self.shared_bytes, arguments)

    def _shared_bytes(self) -> int:
        rounded = self._k + -self._k % 32
        little = self._units * self._codes.shape[1]
        numbers = self._k + 6 * self._units + 32 * FFN_WARPS + 1
        return 2 * self._first.shape[1] + rounded + little + 4 * numbers


def _defines(parts: Estimator, warps: int) -> dict[str, int]:
    return {"WARPS": warps, "BITS": 4 if parts.bits <= 4 else 8}


def _fits(shared_bytes: int) -> int:
    if shared_bytes > 160 << 10:
        raise NasError(
            f"A block's little weights take {shared_bytes >> 10} KiB of shared memory, 160 fit: "
            "take fewer bits or a coarser projection."
        )
    return shared_bytes


@lru_cache(maxsize=64)
def _kernel(
    file: str, function: str, defines: tuple[tuple[str, int], ...], capability: tuple[int, int]
) -> Kernel:
    major, minor = capability
    arch = f"sm_{major}{minor}" + ("a" if capability == (9, 0) else "")
    return load(compiled(file, dict(defines), arch), function)


def compiled(file: str, defines: Mapping[str, int], arch: str) -> CompiledKernel:
    """Return a source compiled for an architecture; needs no GPU."""
    options = [f"-D{name}={value}" for name, value in sorted(defines.items())]
    name = f"dual_{file.removesuffix('.cu')}"
    return compile_cuda(read_source(SOURCES / file), name=name, arch=arch, options=options)
