"""Runs CUDA kernels on a CPU, thread by thread, so that they can be tested where there is no GPU.

Kernels whose inline assembly stands in a file ``instructions.cuh`` of its own are compiled by the
host's compiler with ``instructions.hpp`` in that file's place. See ``machine.hpp``.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
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
        folder: where to build; a source's kernels share what is there.
        more: C++ to put behind the source.
        together: blocks of a cluster, which run side by side.
        seed: 0 runs threads in order and copies as late as can be, others as they are drawn.
        fault: a text of the source, and what to put in its place, to see that it is found.
    """

    def __init__(
        self,
        source: Path,
        function: str,
        defines: Mapping[str, int],
        folder: Path,
        more: str = "",
        *,
        together: int = 1,
        seed: int = 0,
        fault: tuple[str, str] | None = None,
    ) -> None:
        constants = [f"-D{name}={value}" for name, value in sorted(defines.items())]
        constants.append(f"-DBLOCKS_TOGETHER={together}")
        name = hashlib.sha256(f"{source} {constants} {more} {fault}".encode()).hexdigest()[:16]
        library = folder / f"{name}.so"
        if not library.exists():
            self._build(source, more, constants, folder / name, library, fault)
        self._launch = getattr(ctypes.CDLL(str(library)), f"emulate_{function}")
        self._launch.restype = ctypes.c_char_p
        self._seed = seed

    @staticmethod
    def _build(
        source: Path,
        more: str,
        constants: Sequence[str],
        place: Path,
        library: Path,
        fault: tuple[str, str] | None,
    ) -> None:
        place.mkdir(parents=True)
        for item in source.parent.iterdir():
            if item.suffix in (".cu", ".cuh") and item.name != "instructions.cuh":
                text = item.read_text().replace("extern __shared__", "extern")
                if fault is not None and item == source:
                    assert text.count(fault[0]) == 1, fault[0]
                    text = text.replace(*fault)
                (place / item.name).write_text(text)
        entries = "".join(map(_entry, _KERNEL.findall(source.read_text())))
        for item in HERE.glob("*.hpp"):
            shutil.copy(item, place)
        (place / "instructions.cuh").write_text('#pragma once\n#include "instructions.hpp"\n')
        (place / "kernel.cpp").write_text(
            f'#include "machine.hpp"\n#include "{source.name}"\n{more}\n{entries}'
        )
        command = ["g++", "-std=c++17", "-O2", "-w", "-ffp-contract=off", "-shared", "-fPIC"]
        # Without it, libraries that are loaded together would share the machine's state.
        command += ["-fno-gnu-unique", *constants, f"-I{HERE}", "kernel.cpp", "-o", str(library)]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:4000]

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Argument],
        *,
        shared_bytes: int = 0,
    ) -> None:
        """Run all blocks, as ``kernels.jit.Kernel`` does on a GPU.

        Args:
            grid: blocks in up to three dimensions.
            block: threads of a block likewise.
            arguments: tensors are passed as pointers, None as a null pointer.
            shared_bytes: dynamic shared memory, of which there always is enough.

        Raises:
            AssertionError: the kernel did what a GPU refuses, has parameters of other sizes, or
                its threads wait for ever.
        """
        holders = [_holder(argument) for argument in arguments]
        count = len(holders)
        sizes = (ctypes.c_int * count)(*(item.nbytes for item in holders))
        pointers = (ctypes.c_void_p * count)(*(item.ctypes.data for item in holders))
        shape = [(ctypes.c_uint * 3)(*item, *[1] * (3 - len(item))) for item in (grid, block)]
        reason = self._launch(*shape, ctypes.c_ulonglong(self._seed), count, sizes, pointers)
        assert not reason, f"The kernel ended early: {reason.decode()}."


_KERNEL = re.compile(r'extern "C" __global__[^{;]*?(\w+)\s*\([^(){}]*\)\s*\{')


def _entry(function: str) -> str:
    return (
        f'extern "C" const char* emulate_{function}(const unsigned* grid, const unsigned* block, '
        "unsigned long long seed, int count, const int* sizes, void** a) {\n"
        f"  return machine::launch({function}, grid, block, seed, count, sizes, a);\n}}\n"
    )


def _holder(argument: Argument) -> np.ndarray:
    if argument is None:
        return np.array([0], np.uint64)
    if isinstance(argument, torch.Tensor):
        return np.array([argument.data_ptr()], np.uint64)
    return np.array([argument])
