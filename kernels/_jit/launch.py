"""Launching a function of a cubin on torch's current stream, through CuPy."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernels._jit.store import CompiledKernel
from kernels.errors import NasError, UnknownNameError

if TYPE_CHECKING:
    import numpy
    import torch

    Argument = torch.Tensor | numpy.generic | int | None

_DEFAULT_SHARED_BYTES = 48 << 10  # beyond it a function must opt in, on each device
_LOCK = threading.Lock()


class Kernel:
    """A function of a compiled kernel, loaded on each device at its first launch there.

    Args:
        compiled: what holds the function.
        function: its name, as in ``compiled.functions``.
    """

    def __init__(self, compiled: CompiledKernel, function: str) -> None:
        self.compiled = compiled
        self.function = function
        self._loaded: dict[int, Any] = {}
        self._shared_bytes: dict[int, int] = {}
        self._clusters: dict[tuple[int, int, int, int], int] = {}

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Argument],
        *,
        shared_bytes: int = 0,
        overlap: bool = False,
    ) -> None:
        """Launch on the tensors' device, on torch's current stream there.

        Args:
            grid: blocks in up to three dimensions; none of them may be 0.
            block: threads of a block in up to three dimensions.
            args: one per parameter, which is not checked: tensors, passed as pointers; None, a
                null pointer; ints; NumPy scalars of the parameter's exact type.
            shared_bytes: dynamic shared memory of a block.
            overlap: whether blocks may start before the kernel in front has ended (compute
                capability 9.0): the function waits for it by ``griddepcontrol.wait``.

        Raises:
            NasError: an argument of another type (a Python float among them: its width would be a
                guess), no tensor, tensors of several devices, a device the cubin is not for, or
                more shared memory than the device has.
        """
        import cupy
        import torch

        index = self._device_index(args)
        values = tuple(_value(self.function, argument) for argument in args)
        stream = _stream(index, torch.cuda.current_stream(index).cuda_stream)
        with cupy.cuda.Device(index), stream:
            _bind(index)
            kernel = self._loaded.get(index) or self._load(index)
            if shared_bytes > self._shared_bytes[index]:
                self._allow_shared(kernel, index, shared_bytes)
            if overlap:
                _launch_early(kernel.kernel.ptr, grid, block, values, shared_bytes, stream.ptr)
            else:
                kernel(grid, block, values, shared_mem=shared_bytes)

    def clusters_at_once(self, index: int, threads: int, cluster: int, shared_bytes: int) -> int:
        """Return how many clusters a device runs at once; not all multiprocessors fit into them.

        Args:
            index: of the device.
            threads: of a block.
            cluster: blocks of a cluster.
            shared_bytes: dynamic shared memory of a block.

        Raises:
            NasError: a device the cubin is not for, or the driver cannot tell.
        """
        key = (index, threads, cluster, shared_bytes)
        if key not in self._clusters:
            import cupy

            with cupy.cuda.Device(index):
                _bind(index)
                kernel = self._loaded.get(index) or self._load(index)
                if shared_bytes > self._shared_bytes[index]:
                    self._allow_shared(kernel, index, shared_bytes)
                self._clusters[key] = _clusters(kernel.kernel.ptr, *key[1:])
        return self._clusters[key]

    def _device_index(self, args: Sequence[Argument]) -> int:
        import torch

        devices = {argument.device for argument in args if isinstance(argument, torch.Tensor)}
        if len(devices) == 1 and (device := next(iter(devices))).type == "cuda":
            return int(device.index)
        raise NasError(
            f"Kernel function {self.function!r} takes its device from its tensors, which must be "
            f"on one GPU. Got {', '.join(sorted(map(str, devices))) or 'no tensor'}."
        )

    def _load(self, index: int) -> Any:
        """Load on the current device, under a lock: two threads must not load at once."""
        import torch

        with _LOCK:
            if index not in self._loaded:
                refusal = refuse_arch(self.compiled.arch, torch.cuda.get_device_capability(index))
                if refusal:
                    raise NasError(f"Kernel {self.compiled.name!r} cannot run: {refusal}.")
                module = _module(self.compiled.path, index)
                kernel = module.get_function(self.function)
                kernel.kernel  # noqa: B018  the property loads it, here and not at the launch
                self._shared_bytes[index] = _DEFAULT_SHARED_BYTES
                self._loaded[index] = kernel
            return self._loaded[index]

    def _allow_shared(self, kernel: Any, index: int, shared_bytes: int) -> None:
        import torch

        card = torch.cuda.get_device_properties(index)
        most: int = getattr(card, "shared_memory_per_block_optin")  # noqa: B009  torch 2.14 does not type it
        limit = most - int(kernel.shared_size_bytes)
        if shared_bytes > limit:
            raise NasError(
                f"Kernel function {self.function!r} asks for {shared_bytes} bytes of dynamic "
                f"shared memory. {card.name} leaves {limit}. Choose a smaller tile."
            )
        kernel.max_dynamic_shared_size_bytes = shared_bytes
        self._shared_bytes[index] = shared_bytes


def load(compiled: CompiledKernel, function: str) -> Kernel:
    """Return a function of a compiled kernel, ready to be launched.

    Nothing is loaded onto a GPU before the first launch there, which must not happen while a CUDA
    graph is captured.

    Raises:
        UnknownNameError: the kernel has no such function.
    """
    if compiled.functions and function not in compiled.functions:
        raise UnknownNameError(f"function of kernel {compiled.name}", function, compiled.functions)
    return Kernel(compiled, function)


def refuse_arch(arch: str, capability: tuple[int, int]) -> str | None:
    """Return why a cubin for ``arch`` does not run on a GPU of ``capability``, None if it does.

    Example:
        >>> refuse_arch("sm_80", (8, 6)) is None
        True
        >>> refuse_arch("sm_90a", (10, 0))
        'it is for sm_90a and the GPU is sm_100'
    """
    target = re.fullmatch(r"sm_(\d+)(\d)([af]?)", arch)
    assert target is not None
    major, minor = int(target[1]), int(target[2])
    exact = target[3] == "a"
    same = capability[0] == major and (capability[1] == minor if exact else capability[1] >= minor)
    gpu = f"sm_{capability[0]}{capability[1]}"
    return None if same else f"it is for {arch} and the GPU is {gpu}"


@cache
def _module(path: Path, index: int) -> Any:
    """Return the module of a cubin; ``index`` keeps devices apart."""
    import cupy

    return cupy.RawModule(path=str(path))


def _bind(index: int) -> None:
    """Make a device's context current in this thread, which calls of the driver ask for.

    A fresh thread has none before its first call of the runtime, and choosing device 0, where it
    stands already, is no call: autograd's thread launched backward kernels without a context.
    """
    import cupy
    from cuda.bindings import driver

    status, device = driver.cuCtxGetDevice()
    if status != driver.CUresult.CUDA_SUCCESS or int(device) != index:
        cupy.cuda.runtime.setDevice(index)


def _clusters(function: int, threads: int, cluster: int, shared_bytes: int) -> int:
    from cuda.bindings import driver

    size = driver.CUlaunchAttribute()
    size.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    shape = size.value.clusterDim
    shape.x, shape.y, shape.z = cluster, 1, 1
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = cluster, 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
    config.sharedMemBytes = shared_bytes
    config.attrs, config.numAttrs = [size], 1
    status, count = driver.cuOccupancyMaxActiveClusters(driver.CUfunction(function), config)
    if status != driver.CUresult.CUDA_SUCCESS or count < 1:
        raise NasError(f"The driver runs no clusters of {cluster} blocks: {status.name}.")
    return int(count)


def _launch_early(
    function: int,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    values: Sequence[numpy.generic | int],
    shared_bytes: int,
    stream: int,
) -> None:
    """Launch as the kernel in front says that others may start, or ends."""
    import numpy
    from cuda.bindings import driver

    early = driver.CUlaunchAttribute()
    early.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    early.value.programmaticStreamSerializationAllowed = 1
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = (*grid, 1, 1)[:3]
    config.blockDimX, config.blockDimY, config.blockDimZ = (*block, 1, 1)[:3]
    config.sharedMemBytes = shared_bytes
    config.hStream = driver.CUstream(stream)
    config.attrs, config.numAttrs = [early], 1
    held = [numpy.array(value) for value in values]  # Python ints become int64, as CuPy has it
    pointers = numpy.array([value.ctypes.data for value in held], numpy.uint64)
    (status,) = driver.cuLaunchKernelEx(
        config, driver.CUfunction(function), int(pointers.ctypes.data), 0
    )
    if status != driver.CUresult.CUDA_SUCCESS:
        raise NasError(f"The driver refuses to launch a kernel early: {status.name}.")


class _TorchStream:
    """A stream of torch as CuPy takes it; torch 2.11's own streams lack the protocol."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._pointer


@cache
def _stream(index: int, pointer: int) -> Any:
    """Return CuPy's view of a stream; the default stream of every device has pointer 0."""
    import cupy

    return cupy.cuda.Stream.from_external(_TorchStream(pointer))


def _value(function: str, argument: Argument) -> numpy.generic | int:
    import numpy
    import torch

    if isinstance(argument, torch.Tensor):
        return numpy.uint64(argument.data_ptr())
    if argument is None:
        return numpy.uint64(0)
    if isinstance(argument, numpy.generic | int):
        return argument
    raise NasError(
        f"Kernel function {function!r} takes tensors, None, ints and NumPy scalars such as "
        f"numpy.float32(1). Got {argument!r} of type {type(argument).__name__}."
    )
