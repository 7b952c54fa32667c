"""NVRTC in a child process: request, options, errors and the resources it reports."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernels.errors import NasError

CUBIN = "kernel.cubin"

_CHILD = Path(__file__).with_name("child.py")
_TIMEOUT_SECONDS = 600

Fields = dict[str, str | int | bool | list[str]]


class CompileError(NasError):
    """A kernel that the compiler refused or that made it crash.

    Args:
        message: one line with the kernel's name and the first error.
        log: all that the compiler said.
    """

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log

    def __reduce__(self) -> tuple[type[CompileError], tuple[str, str]]:
        return type(self), (str(self), self.log)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one kernel function takes, as the assembler reports it.

    Attributes:
        registers: per thread.
        shared_bytes: static shared memory per block.
        stack_bytes: stack frame per thread.
        spill_bytes: bytes stored and loaded per thread because registers ran out.
    """

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be compiled.

    Attributes:
        name: what the kernel is called in errors and in the cache.
        arch: target, such as ``"sm_90a"``.
        options: compiler options as given.
        source: CUDA C++ text.

    Raises:
        NasError: a name, target or option that cannot be right.
    """

    name: str
    arch: str
    options: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise NasError(f"A kernel's name has letters, digits, '_', '-', '.'. Got {self.name!r}")
        if not re.fullmatch(r"sm_\d{2,3}[af]?", self.arch):
            raise NasError(f"Expected a target such as 'sm_80' or 'sm_90a'. Got {self.arch!r}.")
        option_fields(self.options)


def option_fields(options: Sequence[str]) -> Fields:
    """Return compiler options as the fields of ``cuda.core.ProgramOptions``.

    Raises:
        NasError: an option that is not known.
    """
    fields: Fields = {"std": "c++17"}
    macros: list[str] = []
    assembler = ["-v"]  # has the resources printed
    for option in options:
        name, _, value = option.lstrip("-").partition("=")
        if option.startswith("-D"):
            macros.append(option[2:])
        elif name == "std" and value:
            fields["std"] = value
        elif name == "maxrregcount" and value.isdecimal():
            fields["max_register_count"] = int(value)
        elif name in ("lineinfo", "use_fast_math") and not value:
            fields[name] = True
        elif name in ("Xptxas", "ptxas-options") and value:
            assembler.append(value)
        else:
            raise NasError(
                f"Unknown compiler option {option!r}. Known: -DNAME, -DNAME=VALUE, -std=, "
                "-maxrregcount=, -lineinfo, -use_fast_math, -Xptxas=. Headers of ours are pasted "
                "into the source by read_source, so that the cache sees their content."
            )
    if macros:
        fields["define_macro"] = macros
    fields["ptxas_options"] = assembler
    return fields


@cache
def compiler_version() -> str:
    """Return the version of NVRTC, such as ``"NVRTC 13.2"``.

    Raises:
        NasError: NVRTC is not installed.
    """
    try:
        from cuda.bindings import nvrtc

        status, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        raise NasError(
            f"CUDA kernels are compiled by NVRTC through cuda-core, which cannot be used: {error}. "
            "Install cuda-core and a CUDA build of torch."
        ) from error
    if int(status):
        raise NasError(f"NVRTC does not tell its version: {status}.")
    return f"NVRTC {major}.{minor}"


def compile_into(folder: Path, request: Request) -> str:
    """Compile in a child process; ``folder`` then holds the cubin.

    Returns:
        The compiler's log.

    Raises:
        CompileError: the source is wrong, or NVRTC crashed or hung.
        NasError: the child could not import cuda-core.
    """
    message = {
        "name": request.name,
        "arch": request.arch,
        "source": request.source,
        "fields": option_fields(request.options),
        "search_path": sys.path,
    }
    asked, answered = folder / "request.json", folder / "result.json"
    asked.write_text(json.dumps(message), encoding="utf-8")
    what = f"Kernel {request.name!r} for {request.arch}"
    # -P: the script's own folder must not shadow modules of the same name.
    command = [sys.executable, "-P", str(_CHILD), str(folder)]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(
            f"{what}: the compiler did not end within {_TIMEOUT_SECONDS} s.", str(error.stderr)
        ) from None
    try:
        result = json.loads(answered.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CompileError(_epitaph(what, child), child.stderr) from None
    if result["error"]:
        log = f"{result['error']}\n{result['log']}".strip()
        raise CompileError(
            f"{what} does not compile with {compiler_version()}: {_first_error(log)}", log
        )
    asked.unlink()
    answered.unlink()
    return str(result["log"])


def _epitaph(what: str, child: subprocess.CompletedProcess[str]) -> str:
    if child.returncode >= 0:
        last = child.stderr.strip().rpartition("\n")[2]
        return f"{what}: the compiler's process failed: {last or f'exit {child.returncode}'}"
    return (
        f"{what}: {compiler_version()} crashed ({signal.Signals(-child.returncode).name}). "
        "Look for a malformed inline instruction; halve the source to find it."
    )


def _first_error(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    marked = [line for line in lines if re.search(r"\b(error|fatal)\b", line)]
    return " ".join((marked or lines or ["no message"])[0].split())


_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>[^']+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def read_resources(log: str) -> dict[str, Resources]:
    """Return the resources of each kernel function from the assembler's report in the log."""
    found = {}
    for entry in _ENTRY.finditer(log):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        found[entry["name"]] = Resources(
            registers=int(entry["registers"]),
            shared_bytes=int(shared[1]) if shared else 0,
            stack_bytes=int(entry["stack"]),
            spill_bytes=int(entry["stores"]) + int(entry["loads"]),
        )
    return found
