"""The CUDA kernels' launches: what they are given, and their compiled text."""

from __future__ import annotations

from abc import ABC, abstractmethod
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

_IDLE_BYTES = 48 << 10
"""What a multiprocessor brings ahead while it waits for the projection; more gains nothing."""

Argument = torch.Tensor | np.generic | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Compile-time choices of a kernel.

    Attributes:
        warps: of a block; one block a multiprocessor.
        cluster: blocks that compute the projection together; 1 where the GPU has no clusters.
        held: products of the projection whose signs a warp holds while the vector is coming in.
        deep: loads of a row that a thread has on the way.
        pieces: of a row of an LSTM, which warps take one by one.
        early: rows of a second matrix that are on the way before hidden values are known.
        soon: matrices whose listed rows come into the second-level cache first.
    """

    warps: int
    cluster: int
    held: int
    deep: int = 8
    pieces: int = 1
    early: int = 0
    soon: int = 0

    def defines(self) -> dict[str, int]:
        """Return the kernel's constants."""
        found = {name.upper(): int(value) for name, value in asdict(self).items()}
        return found | ({"HOPPER": 1} if self.cluster > 1 else {})


LSTM_PLANS = {
    "whole rows": Plan(warps=24, cluster=8, held=3),
    "half rows": Plan(warps=24, cluster=8, held=3, pieces=2),
    "clusters of 4": Plan(warps=24, cluster=4, held=3),
    "clusters of 2": Plan(warps=24, cluster=2, held=3),
    "16 warps": Plan(warps=16, cluster=8, held=4),
    "16 warps, 12 loads": Plan(warps=16, cluster=8, held=3, deep=12),
}
FFN_PLANS = {
    "as listed": Plan(warps=16, cluster=8, held=3),
    "first matrix ahead": Plan(warps=16, cluster=8, held=3, soon=1),
    "both ahead": Plan(warps=16, cluster=8, held=3, soon=2),
    "first ahead, 16 loads": Plan(warps=16, cluster=8, held=3, deep=16, soon=1),
    "clusters of 4": Plan(warps=16, cluster=4, held=3, soon=1),
}
DENSE_PLANS = {
    "whole rows": Plan(warps=24, cluster=1, held=1),
    "half rows": Plan(warps=24, cluster=1, held=1, pieces=2),
}
"""What the bench tries: of both steps, and of the dense LSTM step that one is held against."""

LSTM_PLAN, FFN_PLAN = LSTM_PLANS["half rows"], FFN_PLANS["first matrix ahead"]
"""Of the steps where there are clusters."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel's launch.

    Attributes:
        file: the source in ``cuda/``.
        function: the kernel.
        defines: its compile-time constants.
        blocks: of the grid, in whole clusters.
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
        kernel = _kernel(self.file, self.function, _sorted(self.defines), _capability(device))
        threads = 32 * self.defines["WARPS"]
        kernel((self.blocks,), (threads,), self.arguments, shared_bytes=self.shared_bytes)


class _Step(ABC):
    """What steps have in common: how hidden units are divided among blocks.

    Args:
        plan: of the kernel, where one was asked for.
        fastest: taken where none was, without clusters where the GPU has none.
        device: of the weights.
    """

    file: str
    function: str

    def __init__(self, plan: Plan | None, fastest: Plan, device: torch.device) -> None:
        clusters = device.type != "cuda" or _capability(device) >= (9, 0)
        self.plan = plan or (fastest if clusters else replace(fastest, cluster=1))
        self.device = device

    def divide(self, hidden: int, blocks: int | None) -> None:
        """Set the units of a block, the blocks, and a block's shared memory.

        Args:
            hidden: units in all.
            blocks: that run at once; None asks the driver.

        Raises:
            NasError: a block's share does not fit into shared memory.
        """
        cluster = self.plan.cluster
        if blocks is None:
            blocks = torch.cuda.get_device_properties(self.device).multi_processor_count
            if cluster > 1:
                shared_bytes = _fits(self.shared_bytes_of(-(-hidden // blocks)))
                kernel = _kernel(
                    self.file, self.function, _sorted(self.defines), _capability(self.device)
                )
                index = (
                    torch.cuda.current_device() if self.device.index is None else self.device.index
                )
                clusters = kernel.clusters_at_once(
                    index, 32 * self.plan.warps, cluster, shared_bytes
                )
                blocks = min(blocks, cluster * clusters)
        self.blocks = _up_to(min(blocks, hidden), cluster)
        self.units = -(-hidden // self.blocks)
        self.shared_bytes = _fits(self.shared_bytes_of(self.units))
        self.computed = torch.zeros(self.blocks, dtype=torch.int32, device=self.device)

    @property
    @abstractmethod
    def defines(self) -> dict[str, int]:
        """The kernel's constants."""

    @abstractmethod
    def shared_bytes_of(self, units: int) -> int:
        """Return a block's shared memory, of so many units."""

    def launched(self, arguments: Sequence[Argument]) -> Launch:
        """Return the launch with its arguments."""
        file, function = self.file, self.function
        return Launch(file, function, self.defines, self.blocks, self.shared_bytes, arguments)


class LSTMStep(_Step):
    """One step of a dual LSTM cell for one vector; memory is allocated once, as graphs need.

    After a launch ``computed`` (blocks,) int32 says how many rows each block computed.

    Args:
        cell: fitted, on a GPU (or the CPU, where an emulator runs the launch).
        blocks: that run at once; None asks the driver.
        plan: of the kernel; None takes what was fastest.
        dense: compute every row, without the little module.
        ahead: rows a block that come into the second-level cache before it is known whether they
            matter; None takes what the memory has time for.

    Raises:
        NasError: the layer's sizes do not fit the kernel.
    """

    file, function = "lstm.cu", "dual_lstm_step"

    def __init__(
        self,
        cell: DualModuleLSTMCell,
        blocks: int | None = None,
        *,
        plan: Plan | None = None,
        dense: bool = False,
        ahead: int | None = None,
    ) -> None:
        super().__init__(plan, DENSE_PLANS["half rows"] if dense else LSTM_PLAN, cell.weight.device)
        self._dense = dense
        self._parts = cell.little.estimator
        self._projections = cell.little.sizes
        self._sizes = cell.input_size, cell.hidden_size
        self._weight = _by_unit(pack_rows(cell.weight.detach(), self._sizes))
        row_bytes = 2 * self._weight.shape[1]
        self._ahead = _IDLE_BYTES // row_bytes if ahead is None else ahead
        self._bias = _by_unit(cell.bias.detach().float())
        codes = pack_codes(self._parts.codes, self._projections, self._parts.bits)
        self._codes = _by_unit(codes)
        self._scales = [_by_unit(self._parts.scale), _by_unit(self._parts.bias)]
        self._signs = [
            pack_signs(unpack_signs(signs, size))
            for signs, size in zip(cell.little.signs, self._sizes, strict=True)
        ]
        self._thresholds = torch.stack([s.threshold for s in cell.switches()]).float()
        self.divide(cell.hidden_size, blocks)

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
        numbers = (*self._sizes, self.units, k_x, k_h, self._weight.shape[1])
        arguments: list[Argument] = [x, h, c, self._weight, self._bias, self._codes]
        arguments += [*self._scales, *self._signs, self._thresholds]
        arguments += [new_h, new_c, self.computed, *(np.int32(n) for n in numbers)]
        arguments += [np.float32((3 / k) ** 0.5) for k in (k_x, k_h)]
        return self.launched([*arguments, np.int32(self._ahead)])

    @property
    def defines(self) -> dict[str, int]:
        """See :class:`_Step`."""
        bits = 4 if self._parts.bits <= 4 else 8
        return {**self.plan.defines(), "BITS": bits, "DENSE": int(self._dense)}

    def shared_bytes_of(self, units: int) -> int:
        """See :class:`_Step`."""
        cluster = self.plan.cluster
        planes = _up_to(sum(_up_to(size, 256) for size in self._sizes) // 256, cluster) // cluster
        rounded = sum(_up_to(k, 32) for k in self._projections)
        tiles = sum(_up_to(k, 16) // 16 for k in self._projections)
        projected = 64 * tiles * (cluster + 1)
        whole = 16 + 2 * self._weight.shape[1] + 256 * planes + rounded + projected
        numbers = 4 * (6 + self.plan.pieces) * units + units + 4 * self.plan.warps + 4
        return whole + 4 * units * self._codes.shape[1] + 4 * numbers


class FFNStep(_Step):
    """A dual feed-forward block for one vector; memory is allocated once, as graphs need.

    After a launch ``computed`` (blocks,) int32 says how many units each block computed.

    Args:
        block: fitted, on a GPU (or the CPU, where an emulator runs the launch).
        blocks: that run at once; None asks the driver.
        plan: of the kernel; None takes what was fastest.
        lossless: compute every row of the first matrix, without the little module, and leave out
            rows of the second where the hidden value is zero.

    Raises:
        NasError: the layer's sizes do not fit the kernel.
    """

    file, function = "ffn.cu", "dual_ffn"

    def __init__(
        self,
        block: DualModuleFFN,
        blocks: int | None = None,
        *,
        plan: Plan | None = None,
        lossless: bool = False,
    ) -> None:
        first, second = block.first, block.second
        super().__init__(plan, FFN_PLAN, first.weight.device)
        self._lossless = lossless
        if lossless:
            self.plan = replace(self.plan, early=0, soon=0)
        hidden, inputs = first.weight.shape
        outputs = second.out_features
        if outputs % 8:
            raise NasError(f"The kernel takes outputs in eights, not {outputs}.")
        turn = 32 * self.plan.warps * 8
        self._turns = -(-outputs // turn)
        if self._turns > 4:
            raise NasError(f"The kernel takes up to {4 * turn} outputs, not {outputs}.")
        self._parts = first.little.estimator
        (self._k,) = first.little.sizes
        self._sizes = inputs, hidden, outputs
        self._signs = pack_signs(unpack_signs(first.little.signs[0], inputs))
        self._first = pack_rows(first.weight.detach(), (inputs,))
        self._second = second.weight.detach().T.half().contiguous()
        zeros = torch.zeros(max(hidden, outputs), device=self.device)
        self._first_bias = zeros[:hidden] if first.bias is None else first.bias.detach().float()
        self._second_bias = zeros[:outputs] if second.bias is None else second.bias.detach().float()
        self._codes = pack_codes(self._parts.codes, (self._k,), self._parts.bits)
        self._threshold = first.switch.threshold.float()
        self.divide(hidden, blocks)
        self._shares = torch.zeros(self.blocks // self.plan.cluster, outputs, device=self.device)
        self._came = torch.zeros(self.plan.cluster, dtype=torch.int32, device=self.device)

    def launch(self, x: torch.Tensor, y: torch.Tensor) -> Launch:
        """Return the launch of x (d,) to y (m,), both float16."""
        arguments: list[Argument] = [x, self._first, self._first_bias, self._second]
        arguments += [self._second_bias, self._codes, self._parts.scale, self._parts.bias]
        arguments += [self._signs, self._threshold, self._shares, self._came, y, self.computed]
        arguments += [np.int32(n) for n in (*self._sizes, self.units, self._k)]
        return self.launched([*arguments, np.float32((3 / self._k) ** 0.5)])

    @property
    def defines(self) -> dict[str, int]:
        """See :class:`_Step`."""
        bits = 4 if self._parts.bits <= 4 else 8
        more = {"BITS": bits, "TURNS": self._turns, "DENSE": int(self._lossless)}
        return {**self.plan.defines(), **more}

    def shared_bytes_of(self, units: int) -> int:
        """See :class:`_Step`."""
        plan, (inputs, _, outputs) = self.plan, self._sizes
        projected = 64 * (_up_to(self._k, 16) // 16) * (plan.cluster + 1)
        planes = 256 * (_up_to(_up_to(inputs, 256) // 256, plan.cluster) // plan.cluster)
        whole = 32 + 2 * self._first.shape[1] + planes + _up_to(self._k, 32)
        words = (plan.cluster + 1) * _up_to(units, 32) // 32
        numbers = 2 * _up_to(outputs, 8 * plan.cluster) + 4 * units + 2 * plan.warps + 2 + words
        return whole + projected + units * self._codes.shape[1] + 4 * numbers


def _by_unit(rows: torch.Tensor) -> torch.Tensor:
    """Return rows gate by gate (4 h, ...) unit by unit: a block's rows lie together."""
    by_gate = rows.view(4, len(rows) // 4, *rows.shape[1:])
    return by_gate.transpose(0, 1).reshape(rows.shape).contiguous()


def _up_to(value: int, multiple: int) -> int:
    return value + -value % multiple


def _fits(shared_bytes: int) -> int:
    if shared_bytes > 160 << 10:
        raise NasError(
            f"A block's little weights take {shared_bytes >> 10} KiB of shared memory, 160 fit: "
            "take fewer bits or a coarser projection."
        )
    return shared_bytes


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _sorted(defines: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(defines.items()))


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
