"""Runs CUDA kernels on a CPU, thread by thread, so that they can be tested where there is no GPU.

Kernels whose inline assembly stands in a file ``instructions.cuh`` of its own are compiled by the
host's compiler with ``instructions.hpp`` in that file's place. See ``machine.hpp``.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
Argument = torch.Tensor | np.generic | None


def missing() -> str:
    """Return what keeps kernels from being emulated here; empty if nothing does."""
    return "" if shutil.which("g++") else "there is no g++ to compile kernels for the CPU"


class Emulated:
    """A CUDA source compiled for the CPU.

    Args:
        source: the ``.cu`` file; what it includes lies beside it.
        function: the kernel.
        defines: compile-time constants.
        folder: where to build.
        more: C++ to put behind the source.
    """

    def __init__(
        self,
        source: Path,
        function: str,
        defines: Mapping[str, int],
        folder: Path,
        more: str = "",
    ) -> None:
        constants = [f"-D{name}={value}" for name, value in sorted(defines.items())]
        name = hashlib.sha256(f"{source} {function} {constants}".encode()).hexdigest()[:16]
        library = folder / f"{name}.so"
        if not library.exists():
            self._build(source, f"{more}\n{_entry(function)}", constants, folder / name, library)
        self._launch = ctypes.CDLL(str(library)).emulate
        self._launch.restype = ctypes.c_char_p

    @staticmethod
    def _build(
        source: Path, more: str, constants: Sequence[str], place: Path, library: Path
    ) -> None:
        place.mkdir(parents=True)
        for item in source.parent.iterdir():
            if item.suffix in (".cu", ".cuh") and item.name != "instructions.cuh":
                text = item.read_text().replace("extern __shared__", "extern")
                (place / item.name).write_text(text)
        for item in HERE.glob("*.hpp"):
            shutil.copy(item, place)
        (place / "instructions.cuh").write_text('#pragma once\n#include "instructions.hpp"\n')
        (place / "kernel.cpp").write_text(
            f'#include "machine.hpp"\n#include "{source.name}"\n{more}'
        )
        command = ["g++", "-std=c++17", "-O2", "-w", "-ffp-contract=off", "-shared", "-fPIC"]
        command += [*constants, f"-I{HERE}", "kernel.cpp", "-o", str(library)]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:4000]

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Argument]
    ) -> None:
        """Run all blocks; tensors are passed as pointers, None as a null pointer.

        Raises:
            AssertionError: the kernel did what a GPU refuses, or its threads wait for ever.
        """
        holders = [_holder(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(holders))(*(item.ctypes.data for item in holders))
        sizes = [(ctypes.c_uint * 3)(*item, *[1] * (3 - len(item))) for item in (grid, block)]
        reason = self._launch(*sizes, pointers).decode()
        assert not reason, f"The kernel ended early: {reason}."


def _entry(function: str) -> str:
    return (
        'extern "C" const char* emulate(const unsigned* grid, const unsigned* block, void** a) {\n'
        f"  return machine::launch({function}, grid, block, a);\n}}\n"
    )


def _holder(argument: Argument) -> np.ndarray:
    if argument is None:
        return np.array([0], np.uint64)
    if isinstance(argument, torch.Tensor):
        assert argument.is_contiguous()
        return np.array([argument.data_ptr()], np.uint64)
    return np.array([argument])
