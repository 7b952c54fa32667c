"""CUDA C++ text to running kernels: compiled at first use, kept on disk, launched beside torch.

Compiling needs neither a GPU nor a driver. The cache may be shared by any number of processes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from kernels import environment
from kernels._jit.compiler import (
    CompileError,
    Request,
    Resources,
    compile_into,
    compiler_version,
)
from kernels._jit.launch import Kernel, load, refuse_arch
from kernels._jit.store import (
    CompiledKernel,
    entry_key,
    entry_lock,
    read_entry,
    staging_folder,
    write_entry,
)
from kernels.errors import NasError

__all__ = [
    "CompileError",
    "CompiledKernel",
    "Kernel",
    "Resources",
    "compile_cuda",
    "compiler_version",
    "load",
    "read_source",
    "refuse_arch",
]

_INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')
_ONCE = re.compile(r"\s*#\s*pragma\s+once\b")


def compile_cuda(
    source: str,
    *,
    name: str,
    arch: str = "sm_90a",
    options: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> CompiledKernel:
    """Compile CUDA C++ text, or find it compiled.

    Args:
        source: CUDA C++, with ``extern "C"`` before the functions to launch. CUDA's own headers
            may be included; for headers of ours see ``read_source``.
        name: what the kernel is called in errors and in the cache.
        arch: target; Hopper's own instructions need ``"sm_90a"``.
        options: among -DNAME, -DNAME=VALUE, -std=, -maxrregcount=, -lineinfo, -use_fast_math,
            -Xptxas=.
        cache_dir: where compiled kernels are kept; None takes the folder that
            ``kernels.environment.cache_dir`` names.

    Raises:
        CompileError: the compiler refused the source or crashed on it; carries the log.
        NasError: no compiler, an unknown option, or a cache that cannot be written.

    Example:
        >>> kernel = compile_cuda('extern "C" __global__ void f(int* x) { *x = 1; }', name="one")
        >>> kernel.functions["f"].spill_bytes
        0
    """
    request = Request(name, arch, tuple(options), source)
    compiler = compiler_version()
    key = entry_key(request, compiler)
    root = cache_dir if cache_dir is not None else environment.cache_dir() / "kernels"
    folder = root / f"{name}-{key[:32]}"
    found = read_entry(folder, key)
    if found is not None:
        return found
    try:
        root.mkdir(parents=True, exist_ok=True)
        with entry_lock(folder):
            return read_entry(folder, key) or _build(request, folder, compiler)
    except OSError as error:
        raise NasError(
            f"Kernel {name!r} cannot be kept in {root}: {error}. Free the folder or set "
            f"{environment.CACHE_VARIABLE} to another."
        ) from error


def _build(request: Request, folder: Path, compiler: str) -> CompiledKernel:
    with staging_folder(folder.parent) as staging:
        log = compile_into(staging, request)
        return write_entry(staging, folder, request, compiler=compiler, log=log)


def read_source(path: Path) -> str:
    """Return a CUDA source with the files it includes in quotes pasted in, each once.

    The text is then all that the cache must know, and line numbers in errors stay right.

    Args:
        path: the source; included files are looked up beside the file that includes them.

    Raises:
        NasError: a file does not exist.
    """
    return "".join(_lines(path, set()))


def _lines(path: Path, seen: set[Path]) -> list[str]:
    resolved = path.resolve()
    if resolved in seen:
        return []
    seen.add(resolved)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise NasError(f"CUDA source {path} cannot be read: {error}.") from error
    lines = [f'#line 1 "{path.name}"\n']
    for number, line in enumerate(text.splitlines(), start=1):
        include = _INCLUDE.match(line)
        if include:
            lines += _lines(path.parent / include[1], seen)
            lines.append(f'#line {number + 1} "{path.name}"\n')
        else:
            lines.append("\n" if _ONCE.match(line) else f"{line}\n")
    return lines
