"""The CUDA kernels' launches: what they are given, and their compiled text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from kernels.dual_module.linear import DualModuleFFN
from kernels.dual_module.packing import pack_codes, pack_rows, pack_signs
from kernels.dual_module.projection import unpack_signs
from kernels.dual_module.recurrent import DualModuleLSTMCell
from kernels.errors import NasError
from kernels.jit import CompiledKernel, Kernel, compile_cuda, load, read_source

SOURCES = Path(__file__).parent / "cuda"
"""Where the CUDA sources are."""

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
        kernel = self._kernel(device)
        threads = 32 * self.defines["WARPS"]
        kernel((self.blocks,), (threads,), self.arguments, shared_bytes=self.shared_bytes)

    def at_once(self) -> int:
        """Return how many blocks of it the tensors' device runs at once, all in whole clusters."""
        device = next(item.device for item in self.arguments if isinstance(item, torch.Tensor))
        blocks = torch.cuda.get_device_properties(device).multi_processor_count
        cluster = self.defines["CLUSTER"]
        if cluster == 1:
            return blocks
        kernel, threads = self._kernel(device), 32 * self.defines["WARPS"]
        clusters = kernel.clusters_at_once(device.index, threads, cluster, self.shared_bytes)
        return min(blocks, cluster * clusters)

    def _kernel(self, device: torch.device) -> Kernel:
        capability = torch.cuda.get_device_capability(device)
        return _kernel(self.file, self.function, tuple(sorted(self.defines.items())), capability)


@dataclass(frozen=True, slots=True)
class Plan:
    """Compile-time choices of a kernel.

    Attributes:
        warps: of a block; one block a multiprocessor.
        cluster: blocks that compute the projection together; 1 where the GPU has no clusters.
        split: warps that share a tile of the projection.
        held: chunks of a tile's signs that a warp holds while the vector is coming in.
        deep: loads of a row that a thread has on the way.
        pieces: of a row of an LSTM, which warps take one by one.
        early: rows of a second matrix that are on the way before hidden values are known.
        soon: matrices whose listed rows come into the second-level cache first.
    """

    warps: int
    cluster: int
    split: int
    held: int
    deep: int = 8
    pieces: int = 1
    early: int = 0
    soon: int = 0

    def defines(self, **more: int) -> dict[str, int]:
        """Return the kernel's constants."""
        found = {name.upper(): int(value) for name, value in asdict(self).items()} | more
        return found | ({"HOPPER": 1} if self.cluster > 1 else {})


LSTM_PLAN = Plan(warps=24, cluster=8, split=3, held=2, pieces=2)
FFN_PLAN = Plan(warps=16, cluster=8, split=4, held=4)
DENSE_PLAN = Plan(warps=24, cluster=1, split=1, held=1, pieces=2)
"""Of the steps on Hopper, and of the dense LSTM step that one is held against."""


class LSTMStep:
    """One step of a dual LSTM cell for one vector; memory is allocated once, as graphs need.

    Args:
        cell: fitted, on a GPU (or the CPU, where an emulator runs the launch).
        blocks: that the GPU runs at once; see :func:`blocks_at_once`.
        plan: of the kernel.
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
        plan: Plan = LSTM_PLAN,
        dense: bool = False,
        ahead: int | None = None,
    ) -> None:
        self._plan, self._dense = plan, dense
        inputs, hidden = cell.input_size, cell.hidden_size
        device = cell.weight.device
        self._parts = cell.little.estimator
        self._projections = cell.little.sizes
        self._sizes, self._units = (inputs, hidden), -(-hidden // blocks)
        self.blocks = _up_to(-(-hidden // self._units), plan.cluster)
        self._weight = pack_rows(cell.weight.detach(), self._sizes)
        row_bytes = 2 * self._weight.shape[1]
        self._ahead = _IDLE_BYTES // row_bytes if ahead is None else ahead
        self._bias = cell.bias.detach().float()
        self._codes = pack_codes(self._parts.codes, self._projections, self._parts.bits)
        self._signs = [
            pack_signs(unpack_signs(signs, size))
            for signs, size in zip(cell.little.signs, self._sizes, strict=True)
        ]
        self._thresholds = torch.stack([s.threshold for s in cell.switches()]).float()
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
        arguments: list[Argument] = [x, h, c, self._weight, self._bias, self._codes]
        arguments += [self._parts.scale, self._parts.bias, *self._signs, self._thresholds]
        arguments += [new_h, new_c, self.computed, *(np.int32(n) for n in numbers)]
        arguments += [np.float32((3 / k) ** 0.5) for k in (k_x, k_h)]
        arguments += [np.int32(self._ahead)]
        bits = 4 if self._parts.bits <= 4 else 8
        defines = self._plan.defines(BITS=bits, DENSE=int(self._dense))
        return Launch(
            "lstm.cu", "dual_lstm_step", defines, self.blocks, self.shared_bytes, arguments
        )

    def _shared_bytes(self) -> int:
        planes = sum(_up_to(size, 256) for size in self._sizes)
        rounded = sum(_up_to(k, 32) for k in self._projections)
        slots = 64 * self._plan.split * sum(_up_to(k, 16) // 16 for k in self._projections)
        rows = 4 * self._units
        whole = 16 + 2 * self._weight.shape[1] + planes + rounded + slots
        numbers = (6 + self._plan.pieces) * rows + self._units + 4 * self._plan.warps + 4
        return whole + rows * self._codes.shape[1] + 4 * numbers


class FFNStep:
    """A dual feed-forward block for one vector; memory is allocated once, as graphs need.

    Args:
        block: fitted, on a GPU (or the CPU, where an emulator runs the launch).
        blocks: that the GPU runs at once; see :func:`blocks_at_once`.
        plan: of the kernel.
        lossless: compute every row of the first matrix, without the little module, and leave out
            rows of the second where the hidden value is zero.

    Raises:
        NasError: the layer's sizes do not fit the kernel.
    """

    def __init__(
        self, block: DualModuleFFN, blocks: int, *, plan: Plan = FFN_PLAN, lossless: bool = False
    ) -> None:
        self._plan = replace(plan, early=0, soon=0) if lossless else plan
        self._lossless = lossless
        first, second = block.first, block.second
        hidden, inputs = first.weight.shape
        outputs = second.out_features
        if outputs % 8:
            raise NasError(f"The kernel takes outputs in eights, not {outputs}.")
        self._turns = -(-outputs // (32 * plan.warps * 8))
        if self._turns > 4:
            raise NasError(
                f"The kernel takes up to {4 * 32 * plan.warps * 8} outputs, not {outputs}."
            )
        device = first.weight.device
        self._parts = first.little.estimator
        (self._k,) = first.little.sizes
        self._signs = pack_signs(unpack_signs(first.little.signs[0], inputs))
        self._sizes, self._units = (inputs, hidden, outputs), -(-hidden // blocks)
        self.blocks = _up_to(-(-hidden // self._units), plan.cluster)
        self._first = pack_rows(first.weight.detach(), (inputs,))
        self._second = second.weight.detach().T.half().contiguous()
        zeros = torch.zeros(max(hidden, outputs), device=device)
        self._first_bias = zeros[:hidden] if first.bias is None else first.bias.detach().float()
        self._second_bias = zeros[:outputs] if second.bias is None else second.bias.detach().float()
        self._codes = pack_codes(self._parts.codes, (self._k,), self._parts.bits)
        self._threshold = first.switch.threshold.float()
        self._shares = torch.zeros(self.blocks // plan.cluster, outputs, device=device)
        self._came = torch.zeros(plan.cluster, dtype=torch.int32, device=device)
        self.computed = torch.zeros(self.blocks, dtype=torch.int32, device=device)
        self.shared_bytes = _fits(self._shared_bytes())

    def launch(self, x: torch.Tensor, y: torch.Tensor) -> Launch:
        """Return the launch of x (d,) to y (m,), both float16."""
        arguments: list[Argument] = [x, self._first, self._first_bias, self._second]
        arguments += [self._second_bias, self._codes, self._parts.scale, self._parts.bias]
        arguments += [self._signs, self._threshold, self._shares, self._came, y, self.computed]
        arguments += [np.int32(n) for n in (*self._sizes, self._units, self._k)]
        arguments += [np.float32((3 / self._k) ** 0.5)]
        bits = 4 if self._parts.bits <= 4 else 8
        defines = self._plan.defines(BITS=bits, TURNS=self._turns, DENSE=int(self._lossless))
        return Launch("ffn.cu", "dual_ffn", defines, self.blocks, self.shared_bytes, arguments)

    def _shared_bytes(self) -> int:
        plan, (inputs, _, outputs) = self._plan, self._sizes
        slots = 64 * plan.split * _up_to(self._k, 16) // 16
        whole = 32 + 2 * self._first.shape[1] + _up_to(inputs, 256) + _up_to(self._k, 32) + slots
        words = _up_to(self._units, 32) // 32
        numbers = _up_to(outputs, 8 * plan.cluster) + 4 * self._units + 2 * plan.warps + 2
        numbers += (plan.cluster + 1) * words
        return whole + self._units * self._codes.shape[1] + 4 * numbers


def _up_to(value: int, multiple: int) -> int:
    return value + -value % multiple


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
