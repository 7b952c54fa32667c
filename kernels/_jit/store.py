"""Compiled kernels on disk: whole directories that appear at once and are checked when read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kernels._jit.compiler import CUBIN, Request, Resources, read_resources
from kernels.errors import NasError

_FORMAT = 1
_ENTRY = "entry.json"
_SOURCE = "source.cu"


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """A compiled CUDA source.

    Attributes:
        name: what it is called.
        arch: what it was compiled for.
        compiler: what compiled it.
        key: names it in the cache: 64 hexadecimal digits.
        path: its cubin.
        functions: resources of each kernel function; without ``extern "C"`` the names are
            mangled.
        log: what the compiler said.
        cached: whether it was found in the cache.
    """

    name: str
    arch: str
    compiler: str
    key: str
    path: Path
    functions: Mapping[str, Resources]
    log: str
    cached: bool = field(compare=False)


def entry_key(request: Request, compiler: str) -> str:
    """Return the hash of all that decides what comes out of the compiler."""
    content = json.dumps([_FORMAT, compiler, asdict(request)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def read_entry(folder: Path, key: str) -> CompiledKernel | None:
    """Return the entry; None where there is none or where it is damaged."""
    try:
        stored = json.loads((folder / _ENTRY).read_text(encoding="utf-8"))
        content = stored["content"]
        if stored["checksum"] != _checksum(content, (folder / CUBIN).read_bytes()):
            return None
        if content["key"] != key:
            return None
        return _compiled(folder, content, cached=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_entry(
    staging: Path, folder: Path, request: Request, *, compiler: str, log: str
) -> CompiledKernel:
    """Complete the directory that holds a fresh cubin and move it into place at once.

    Where an intact entry turned up meanwhile, that one stays and is returned.
    """
    key = entry_key(request, compiler)
    content = {
        "name": request.name,
        "arch": request.arch,
        "options": list(request.options),
        "compiler": compiler,
        "key": key,
        "log": log,
        "functions": {name: asdict(used) for name, used in read_resources(log).items()},
    }
    checksum = _checksum(content, (staging / CUBIN).read_bytes())
    stored = json.dumps({"checksum": checksum, "content": content}, indent=1)
    (staging / _ENTRY).write_text(stored, encoding="utf-8")
    (staging / _SOURCE).write_text(request.source, encoding="utf-8")
    for file in (staging / name for name in (CUBIN, _ENTRY, _SOURCE)):
        _sync(file)
    _sync(staging)
    winner = _move_into_place(staging, folder, key)
    _sync(folder.parent)
    return winner or _compiled(folder, content, cached=False)


def _compiled(folder: Path, content: Mapping[str, object], *, cached: bool) -> CompiledKernel:
    functions = content["functions"]
    assert isinstance(functions, dict)
    return CompiledKernel(
        name=str(content["name"]),
        arch=str(content["arch"]),
        compiler=str(content["compiler"]),
        key=str(content["key"]),
        path=folder / CUBIN,
        functions={name: Resources(**used) for name, used in functions.items()},
        log=str(content["log"]),
        cached=cached,
    )


def _checksum(content: object, cubin: bytes) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    digest.update(cubin)
    return digest.hexdigest()


def _move_into_place(staging: Path, folder: Path, key: str) -> CompiledKernel | None:
    """Return None, or the intact entry that another process put there first."""
    for _ in range(10):
        try:
            staging.rename(folder)
            return None
        except OSError:
            if not folder.exists():
                raise
        winner = read_entry(folder, key)
        if winner is not None:
            return winner
        with suppress(FileNotFoundError):  # damaged: aside in one step, then away
            folder.rename(staging.with_name(f"{staging.name}-damaged"))
        shutil.rmtree(staging.with_name(f"{staging.name}-damaged"), ignore_errors=True)
    raise NasError(f"The cache entry {folder} is damaged and cannot be replaced. Delete it.")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """Give an empty directory beside the entries; what is left of it goes away."""
    staging = Path(tempfile.mkdtemp(prefix=".build-", dir=root))
    try:
        staging.chmod(0o755)  # mkdtemp's 0700 would lock others out of a shared cache
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def entry_lock(folder: Path) -> Iterator[None]:
    """Hold the entry's lock, so that one worker compiles while the others wait for it.

    On a file system without locks all compile, and the first to finish wins.
    """
    import fcntl

    with folder.with_name(f"{folder.name}.lock").open("a") as handle:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
