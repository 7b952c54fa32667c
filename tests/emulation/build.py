"""Builds CUDA sources of this project as programs for the CPU; see ``hopper.hpp``."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

HEADER = Path(__file__).with_name("hopper.hpp")
_REPLACED = ("hopper.cuh", "element.cuh")
_MAIN = """
#include "{header}"
#include "{source}"
#include <fstream>
#include <iterator>

template <typename T>
std::vector<T> file(const char* name) {{
  std::ifstream in(std::string(name) + ".bin", std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}}

template <typename T>
void readable_whole(const std::vector<T>& values) {{
  const char* begin = reinterpret_cast<const char*>(values.data());
  readable.push_back({{begin, begin + values.size() * sizeof(T)}});
}}

template <typename T>
void write(const char* name, const std::vector<T>& values) {{
  std::ofstream out(std::string(name) + ".bin", std::ios::binary);
  out.write(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}}

int main() {{
{body}
}}
"""


def has_compiler() -> bool:
    """Whether there is a C++ compiler."""
    return shutil.which("g++") is not None


def build(folder: Path, source: Path, defines: Mapping[str, int], body: str) -> Path:
    """Compile a program that runs a CUDA source.

    Args:
        folder: to work in.
        source: the CUDA source; what it includes lies beside it.
        defines: its compile-time constants.
        body: C++ statements: read arrays with ``file<T>("name")``, call ``launch``, ``write``.

    Returns:
        The program; :func:`run` runs it.
    """
    for path in source.parent.glob("*.cu*"):
        shutil.copy(path, folder)
    for name in _REPLACED:
        (folder / name).write_text("#pragma once\n")
    main = folder / "main.cpp"
    main.write_text(_MAIN.format(header=HEADER, source=source.name, body=body))
    options = [f"-D{name}={value}" for name, value in defines.items()]
    command = ["g++", "-std=c++20", "-O1", "-pthread", "-w", *options, str(main), "-o"]
    program = folder / "program"
    done = subprocess.run([*command, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return program


def run(program: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write the arrays to files beside a program and run it there.

    Raises:
        RuntimeError: with what the emulation found wrong.
    """
    for name, array in arrays.items():
        (program.parent / f"{name}.bin").write_bytes(np.ascontiguousarray(array).tobytes())
    command: Sequence[str] = [str(program)]
    done = subprocess.run(
        command, cwd=program.parent, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"exit code {done.returncode}")


def result(program: Path, name: str, dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
    """Read an array that a program wrote."""
    return np.frombuffer((program.parent / f"{name}.bin").read_bytes(), dtype)
