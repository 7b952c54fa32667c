"""Kernels of this project on a CPU: the CUDA source as it is, compiled by g++ as ordinary C++.

``ptx.cuh`` is replaced by the one beside this file, everything else of CUDA comes from
``emulator.hpp``. What is checked is control flow, addresses, barriers and arithmetic; registers,
speed and the meaning of PTX are not.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

FOLDER = Path(__file__).parent
_FLAGS = ("-O1", "-std=c++20", "-march=native", "-fno-gnu-unique", "-w", "-shared", "-fPIC")
_C_TYPES = {
    numpy.int32: ctypes.c_int32,
    numpy.int64: ctypes.c_int64,
    numpy.uint64: ctypes.c_uint64,
    numpy.float32: ctypes.c_float,
}


def require() -> None:
    """Skip where the emulator cannot be built."""
    if shutil.which("g++") is None or platform.machine() != "x86_64":
        pytest.skip("the emulator needs g++ on an x86-64 processor")


class EmulatedKernel:
    """Stands for ``kernels.jit.Kernel``: launches on CPU tensors, and checks parameters' sizes.

    Args:
        library: of ``build``.
        function: the kernel's name.
        seed: of the order in which threads run.
    """

    def __init__(self, library: ctypes.CDLL, function: str, seed: int = 0) -> None:
        self.library = library
        self.function = function
        self.seed = seed

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        *,
        shared_bytes: int = 0,
    ) -> None:
        values = [self._value(argument) for argument in args]
        pointers = [ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values]
        blocks = (*grid, 1, 1)[:3]
        known = self.library.run(
            self.function.encode(),
            (ctypes.c_uint * 3)(*blocks),
            ctypes.c_uint(block[0]),
            ctypes.c_uint(shared_bytes),
            ctypes.c_uint64(self.seed),
            len(values),
            (ctypes.c_int * len(values))(*map(ctypes.sizeof, values)),
            (ctypes.c_void_p * len(values))(*pointers),
        )
        assert known, f"{self.function} does not take parameters of these sizes"

    @staticmethod
    def _value(argument: Any) -> Any:
        if argument is None:
            return ctypes.c_void_p(0)
        if isinstance(argument, torch.Tensor):
            assert argument.device.type == "cpu"
            return ctypes.c_void_p(argument.data_ptr())
        return _C_TYPES[type(argument)](argument.item())


def build(
    source: Path,
    functions: Sequence[str],
    defines: Mapping[str, int],
    folder: Path,
    replace: tuple[str, str] | None = None,
) -> ctypes.CDLL:
    """Compile a CUDA source for this processor.

    Args:
        source: the ``.cu`` file; the headers beside it come along.
        functions: its kernels.
        defines: compile-time constants.
        folder: an empty one, where the library stays.
        replace: a text of the source, and what to put in its place: a fault to be found.
    """
    for header in source.parent.glob("*.cuh"):
        shutil.copy(header, folder)
    for own in ("emulator.hpp", "ptx.cuh", "main.cpp"):
        shutil.copy(FOLDER / own, folder)
    text = source.read_text(encoding="utf-8")
    if replace is not None:
        assert text.count(replace[0]) == 1, replace[0]
        text = text.replace(*replace)
    (folder / source.name).write_text(text, encoding="utf-8")
    options = [f"-D{name}={value}" for name, value in defines.items()]
    entries = " ".join(f"ENTRY({name})" for name in functions)
    options += [f'-DSOURCE="{source.name}"', f"-DENTRIES={entries}"]
    library = folder / "kernel.so"
    command = ["g++", *_FLAGS, *options, "-o", str(library), str(folder / "main.cpp")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(library))
    loaded.run.restype = ctypes.c_bool
    return loaded
