"""The CUDA kernels' launches: what they are given, and their compiled text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from kernels.dual_module.linear import DualModuleFFN
from kernels.dual_module.packing import pack_codes, pack_rows, pack_signs, share_signs
from kernels.dual_module.plans import DENSE_PLANS, FFN_PLAN, LSTM_PLAN, Plan
from kernels.dual_module.projection import unpack_signs
from kernels.dual_module.recurrent import DualModuleLSTMCell
from kernels.errors import NasError
from kernels.jit import CompiledKernel, Kernel, compile_cuda, load, read_source

SOURCES = Path(__file__).parent / "cuda"
"""Where the CUDA sources are."""

Argument = torch.Tensor | np.generic | None


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
        kernel(
            (self.blocks,),
            (threads,),
            self.arguments,
            shared_bytes=self.shared_bytes,
            overlap=bool(self.defines["OVERLAP"]),
        )


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
        self.plan = plan or (fastest if clusters else fastest.alone())
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

    def share(self, signs: Sequence[torch.Tensor], sizes: Sequence[int]) -> torch.Tensor:
        """Return the signs of the input's parts as the blocks of a cluster share them."""
        packed = [
            pack_signs(unpack_signs(part, size)) for part, size in zip(signs, sizes, strict=True)
        ]
        plan = self.plan
        return share_signs(packed, max(plan.cluster, len(packed)), plan.groups, plan.held)

    def settle(self) -> None:
        """Wait until what launches read is there: they may begin before kernels in front end."""
        if self.device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
            torch.cuda.current_stream(self.device).synchronize()

    @property
    @abstractmethod
    def defines(self) -> dict[str, int]:
        """The kernel's constants."""

    @abstractmethod
    def shared_bytes_of(self, units: int) -> int:
        """Return a block's shared memory, of so many units."""

    def launched(self, arguments: Sequence[Argument], *vectors: torch.Tensor) -> Launch:
        """Return the launch with its arguments, of which some are the input vector's parts."""
        aligned = int(all(vector.data_ptr() % 8 == 0 for vector in vectors))
        defines = {**self.defines, "ALIGNED": aligned}
        return Launch(self.file, self.function, defines, self.blocks, self.shared_bytes, arguments)


class LSTMStep(_Step):
    """One step of a dual LSTM cell for one vector; memory is allocated once, as graphs need.

    After a launch ``computed`` (blocks,) int32 says how many rows each block computed.

    Args:
        cell: fitted, on a GPU (or the CPU, where an emulator runs the launch).
        blocks: that run at once; None asks the driver.
        plan: of the kernel; None takes what was fastest.
        dense: compute every row, without the little module.

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
    ) -> None:
        super().__init__(
            plan, DENSE_PLANS["whole rows"] if dense else LSTM_PLAN, cell.weight.device
        )
        self._dense = dense
        self._parts = cell.little.estimator
        self._projections = cell.little.sizes
        self._sizes = cell.input_size, cell.hidden_size
        self._weight = _by_unit(pack_rows(cell.weight.detach(), self._sizes))
        self._ahead = (self.plan.ahead << 10) // (2 * self._weight.shape[1])
        self._bias = _by_unit(cell.bias.detach().float())
        codes = pack_codes(self._parts.codes, self._projections, self._parts.bits)
        self._codes = _by_unit(codes)
        self._scales = [_by_unit(self._parts.scale), _by_unit(self._parts.bias)]
        self._signs = self.share(cell.little.signs, self._sizes)
        self._thresholds = torch.stack([s.threshold for s in cell.switches()]).float()
        self.divide(cell.hidden_size, blocks)
        self.settle()

    def launch(
        self,
        x: torch.Tensor,
        h: torch.Tensor,
        c: torch.Tensor,
        new_h: torch.Tensor,
        new_c: torch.Tensor,
    ) -> Launch:
        """Return the launch of x (d,), h (h,), float16, and c (h,), float32, to the next state."""
        arguments: list[Argument] = [x, h, c, self._weight, self._bias, self._codes]
        arguments += [*self._scales, self._signs, self._thresholds]
        arguments += [new_h, new_c, self.computed, np.int32(self.units)]
        arguments += [np.float32((3 / k) ** 0.5) for k in self._projections]
        return self.launched([*arguments, np.int32(self._ahead)], x, h)

    @property
    def defines(self) -> dict[str, int]:
        """See :class:`_Step`."""
        more = _sizes(self._sizes, self._projections, self._parts.bits)
        dense = {"DENSE": int(self._dense), "HIDDEN": self._sizes[1]}
        return {**self.plan.defines(), **more, **dense}

    def shared_bytes_of(self, units: int) -> int:
        """See :class:`_Step`."""
        plan, rows = self.plan, 4 * units
        whole = 32 + _shared_bytes(plan, self._sizes, self._projections, self._signs) + 16
        return whole + rows * self._codes.shape[1] + 4 * rows * (6 + plan.pieces)


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
        hidden, inputs = first.weight.shape
        outputs = second.out_features
        if outputs % 8:
            raise NasError(f"The kernel takes outputs in eights, not {outputs}.")
        turn = 32 * self.plan.warps * 8
        if outputs > 4 * turn:
            raise NasError(f"The kernel takes up to {4 * turn} outputs, not {outputs}.")
        self._parts = first.little.estimator
        (self._k,) = first.little.sizes
        self._sizes = inputs, hidden, outputs
        self._signs = self.share(first.little.signs, (inputs,))
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
        self.settle()

    def launch(self, x: torch.Tensor, y: torch.Tensor) -> Launch:
        """Return the launch of x (d,) to y (m,), both float16."""
        arguments: list[Argument] = [x, self._first, self._first_bias, self._second]
        arguments += [self._second_bias, self._codes, self._parts.scale, self._parts.bias]
        arguments += [self._signs, self._threshold, self._shares, self._came, y, self.computed]
        arguments += [np.int32(self.units), np.float32((3 / self._k) ** 0.5)]
        return self.launched(arguments, x)

    @property
    def defines(self) -> dict[str, int]:
        """See :class:`_Step`."""
        inputs, hidden, outputs = self._sizes
        more = _sizes((inputs, 0), (self._k, 0), self._parts.bits)
        more |= {"HIDDEN": hidden, "OUTPUTS": outputs, "DENSE": int(self._lossless)}
        return {**self.plan.defines(), **more}

    def shared_bytes_of(self, units: int) -> int:
        """See :class:`_Step`."""
        cluster, (inputs, _, outputs) = self.plan.cluster, self._sizes
        whole = 32 + _shared_bytes(self.plan, (inputs,), (self._k,), self._signs) + 16
        words = (cluster + 1) * -(-units // 32)
        numbers = 2 * _up_to(outputs, 8 * cluster) + 4 * units + words
        return whole + units * self._codes.shape[1] + 4 * numbers


def _sizes(counts: Sequence[int], projections: Sequence[int], bits: int) -> dict[str, int]:
    """Return a kernel's constants of an input vector of two parts, and of little weights."""
    found = {f"COUNT_{i}": count for i, count in enumerate(counts)}
    found |= {f"K_{i}": k for i, k in enumerate(projections)}
    return {**found, "BITS": 4 if bits <= 4 else 8, "ALIGNED": 1}


def _shared_bytes(
    plan: Plan, counts: Sequence[int], projections: Sequence[int], signs: torch.Tensor
) -> int:
    """Return the shared memory of an input vector, its projection and what belongs to them."""
    shares, tiles, runs, run = signs.shape[:4]
    vector = 2 * sum(_up_to(count, 64) for count in counts)
    planes = 256 * runs * run * shares // plan.cluster
    rounded = sum(_up_to(k, 32) for k in projections)
    largest = 4 * plan.warps * len(counts) + _up_to(rounded // 8, 16) + 16
    return vector + planes + rounded + 64 * tiles * shares + largest


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
