"""The job of ``nas doctor``: what this machine has, what is missing, and how to get it.

Nothing here may fail because a part is broken: a part that cannot be asked is a finding.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Literal

from packaging.requirements import Requirement

from kernels import environment
from kernels.device import Device, detect
from kernels.errors import NasError
from nas.jobs.common import Json
from nas.tables import pairs

Status = Literal["ok", "note", "broken"]

DISTRIBUTION = "paretonas"
PACKAGES = ("nas", "dashboards", "studies", "evaluators", "search_spaces", "kernels")
_LOW_DISK = 2 << 30
_PYTHON = (3, 11)
_EXTRAS = {"export": "exports as ONNX", "postgresql": "records in PostgreSQL"}
"""What the optional libraries are for."""
_IMPORTED_AS = {
    "cuda-core": "cuda.core",
    "cupy-cuda13x": "cupy",
    "nvidia-ml-py": "pynvml",
    "scikit-learn": "sklearn",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        status: ``note`` where something optional is missing, ``broken`` where something needed is.
        found: what there is.
        remedy: what to do; empty where all is well.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


def doctor() -> Json:
    """Look at this machine and this installation."""
    findings = [item for check in _CHECKS for item in _guarded(check)]
    broken = [item.name for item in findings if item.status == "broken"]
    return {"healthy": not broken, "broken": broken, "findings": [asdict(i) for i in findings]}


def doctor_text(result: Json) -> str:
    """Write the findings, with what is to be done below each."""
    marks = {"ok": "ok", "note": "--", "broken": "!!"}
    rows = []
    width = max(len(item["name"]) for item in result["findings"])
    for item in result["findings"]:
        rows.append((marks[item["status"]], f"{item['name'].ljust(width)}  {item['found']}"))
        if item["remedy"]:
            rows.append(("", f"{' ' * width}  -> {item['remedy']}"))
    verdict = (
        "All that is needed is here."
        if result["healthy"]
        else f"Broken: {', '.join(result['broken'])}."
    )
    return f"{pairs(rows)}\n\n{verdict}"


Check = Callable[[], Iterator[Finding]]


def _guarded(check: Check) -> list[Finding]:
    """Run a check; one that fails is a finding of its own."""
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return list(check())
    except Exception as problem:  # a broken library may raise anything
        text = " ".join(str(problem).split())
        return [Finding(name, "broken", f"{type(problem).__name__}: {text}", "See the message.")]


def _system() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info >= _PYTHON:
        yield Finding("python", "ok", f"{version}, {sys.executable}")
    else:
        wanted = ".".join(map(str, _PYTHON))
        yield Finding("python", "broken", version, f"Use Python {wanted} or newer.")
    if sys.prefix == sys.base_prefix:
        remedy = f"Make one: {sys.executable} -m venv .venv; six packages have plain names."
        yield Finding("environment", "note", "not a virtual environment", remedy)
    yield Finding("system", "ok", f"{platform.platform()}")
    cpu = detect("cpu")
    memory = cpu.memory_bytes / 2**30
    yield Finding("processor", "ok", f"{cpu.name}, {cpu.cores} cores, {memory:.1f} GiB memory")


def _gpu() -> Iterator[Finding]:
    import torch

    found = f"torch {torch.__version__}, CUDA runtime {torch.version.cuda or 'none'}"
    yield Finding("torch", "ok", found)
    if not torch.cuda.is_available():
        smi = shutil.which("nvidia-smi")
        if smi is None:
            yield Finding(
                "GPU", "note", "none: latencies are measured on the processor, and say so"
            )
        else:
            yield Finding(
                "GPU",
                "broken",
                "nvidia-smi is installed, torch sees no GPU",
                "Check the driver (nvidia-smi), torch's CUDA build and CUDA_VISIBLE_DEVICES.",
            )
        return
    for index in range(torch.cuda.device_count()):
        yield Finding(f"GPU {index}", "ok", _card(detect(f"cuda:{index}")))


def _card(card: Device) -> str:
    major, minor = card.capability or (0, 0)
    return (
        f"{card.name}, {card.memory_bytes / 2**30:.0f} GiB, compute capability {major}.{minor}, "
        f"driver {card.driver or 'unknown'}"
    )


def _nvml() -> Iterator[Finding]:
    try:
        pynvml = importlib.import_module("pynvml")
    except ImportError as problem:
        remedy = "pip install nvidia-ml-py; clocks and energy are read through it."
        yield Finding("NVML", "note", str(problem), remedy)
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as problem:
        yield Finding("NVML", "note", f"no driver: {problem}; energy cannot be measured")
        return
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        yield Finding("NVML", "ok", f"driver {driver}, {pynvml.nvmlDeviceGetCount()} GPU(s)")
    finally:
        pynvml.nvmlShutdown()


def _compilers() -> Iterator[Finding]:
    from kernels.jit import compiler_version

    try:
        yield Finding("NVRTC", "ok", compiler_version())
    except NasError as problem:
        yield Finding("NVRTC", "note", "CUDA kernels cannot be compiled", str(problem))
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        yield Finding("nvcc", "note", "not found; kernels are compiled by NVRTC, nothing needs it")
    else:
        done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines() or ["no answer"]
        yield Finding("nvcc", "ok", f"{lines[-1]}, {nvcc}")


def _libraries() -> Iterator[Finding]:
    try:
        texts = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Finding(
            DISTRIBUTION,
            "note",
            "run from its source, not installed: versions cannot be checked",
            "pip install -e . in the source folder.",
        )
        return
    yield Finding(DISTRIBUTION, "ok", metadata.version(DISTRIBUTION))
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    for text in texts:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate():
            yield _library(wanted)
            continue
        for extra in extras:
            if wanted.marker.evaluate({"extra": extra}):
                yield _optional(wanted, extra)


def _optional(wanted: Requirement, extra: str) -> Finding:
    """Look for a library that only some work needs."""
    found = _library(wanted)
    if found.status == "ok":
        return found
    remedy = f"pip install '{DISTRIBUTION}[{extra}]', for {_EXTRAS.get(extra, extra)}."
    return Finding(found.name, "note", found.found, remedy)


def _library(wanted: Requirement) -> Finding:
    name = wanted.name
    remedy = f"pip install '{name}{wanted.specifier}'"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "broken", "not installed", remedy)
    if not wanted.specifier.contains(version, prereleases=True):
        return Finding(name, "broken", f"{version}, {wanted.specifier} is needed", remedy)
    module = _IMPORTED_AS.get(name, name.replace("-", "_"))
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return Finding(name, "broken", f"{version}, but {module} cannot be imported", remedy)
    return Finding(name, "ok", version)


def _names() -> Iterator[Finding]:
    """Look for other packages of our plain names: Hugging Face has one called ``kernels``."""
    others = metadata.packages_distributions()
    home = Path(importlib.import_module("nas").__file__ or "").resolve().parent.parent
    for name in PACKAGES:
        strangers = sorted({item for item in others.get(name, ()) if item != DISTRIBUTION})
        yield from name_findings(name, importlib.import_module(name), home, strangers)


def name_findings(
    name: str, module: ModuleType, home: Path, strangers: list[str]
) -> Iterator[Finding]:
    """Tell whether a package of ours is what its name imports.

    Args:
        name: of the package.
        module: what the name imports.
        home: folder that ours are in.
        strangers: other installed distributions that have a package of that name.
    """
    place = Path(module.__file__ or "").resolve()
    if home not in place.parents:
        yield Finding(
            f"package {name}",
            "broken",
            f"the name imports {place}",
            "Another package has this name; use an own virtual environment for paretonas.",
        )
    elif strangers:
        yield Finding(
            f"package {name}",
            "broken",
            f"{', '.join(strangers)} installs a package of this name too",
            f"pip uninstall {' '.join(strangers)}, or an own virtual environment for paretonas.",
        )
    elif name == "kernels":
        yield Finding("package kernels", "ok", f"ours, {place.parent}")


def _folders() -> Iterator[Finding]:
    for name, folder, variable in (
        ("cache folder", environment.cache_dir(), environment.CACHE_VARIABLE),
        ("data folder", environment.data_dir(), environment.DATA_VARIABLE),
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as problem:
            remedy = f"Make it writable, or let {variable} name another folder."
            yield Finding(name, "broken", f"{folder}: {problem.strerror or problem}", remedy)
            continue
        yield Finding(name, "ok", f"{folder}, writable")
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    status: Status = "ok" if free >= _LOW_DISK else "note"
    remedy = "" if status == "ok" else "Make room: weights and records of studies go there."
    yield Finding("disk", status, f"{free / 2**30:.1f} GiB free at {here}", remedy)


_CHECKS: tuple[Check, ...] = (_system, _gpu, _nvml, _compilers, _libraries, _names, _folders)
