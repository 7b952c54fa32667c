"""The device that work runs on: what it is called and what it has."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from kernels.errors import NasError


@dataclass(frozen=True, slots=True)
class Device:
    """A processor or a GPU.

    Attributes:
        kind: ``"cpu"``, or ``"cuda"`` for a GPU.
        index: number of the GPU among those this process sees; 0 on a CPU.
        name: model name, such as ``"NVIDIA H100 80GB HBM3"``.
        capability: compute capability of a GPU, such as ``(9, 0)``; None on a CPU.
        cores: streaming multiprocessors of a GPU; processors this process may use on a CPU.
        memory_bytes: size of the device's memory.
        l2_bytes: size of the second-level cache; None where it is not known.
        uuid: the GPU's identity, the same in every process; None on a CPU.
        driver: version of the GPU driver; None on a CPU or where it is not known.
    """

    kind: Literal["cpu", "cuda"]
    index: int
    name: str
    capability: tuple[int, int] | None
    cores: int
    memory_bytes: int
    l2_bytes: int | None = None
    uuid: str | None = None
    driver: str | None = None

    @property
    def torch_name(self) -> str:
        """What ``torch.device`` takes: ``"cpu"`` or ``"cuda:0"``."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    def __str__(self) -> str:
        return f"{self.torch_name} ({self.name})"


def detect(name: str | None = None) -> Device:
    """Return the device of that name.

    Args:
        name: ``"cpu"``, ``"cuda"`` (torch's current GPU) or ``"cuda:1"``; None takes a GPU when
            there is one and the CPU otherwise.

    Raises:
        NasError: the name has another form, or this process sees no such device.

    Example:
        >>> detect("cpu").torch_name
        'cpu'
    """
    if name == "cpu":
        return _cpu()
    if name is not None and not re.fullmatch(r"cuda(:\d+)?", name):
        raise NasError(f"Unknown device {name!r}. Use 'cpu', 'cuda' or a GPU such as 'cuda:0'.")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None and count == 0:
        return _cpu()
    _, _, number = (name or "cuda").partition(":")
    if int(number or 0) >= count:
        raise NasError(
            f"There is no device {name!r}: torch {torch.__version__} sees {count} GPU(s). Use "
            "'cpu', or check the driver (nvidia-smi), torch's CUDA build and CUDA_VISIBLE_DEVICES."
        )
    return _cuda(int(number) if number else torch.cuda.current_device())


@cache
def _cpu() -> Device:
    return Device(
        kind="cpu",
        index=0,
        name=_cpu_name(),
        capability=None,
        cores=_processors(),
        memory_bytes=_system("SC_PAGE_SIZE") * _system("SC_PHYS_PAGES"),
        l2_bytes=_system("SC_LEVEL2_CACHE_SIZE") or None,
    )


def alike(device: Device) -> list[Device]:
    """Return the GPUs of a GPU's model that this process sees, that one first."""
    import torch

    seen = [_cuda(index) for index in range(torch.cuda.device_count())]
    others = [item for item in seen if item.name == device.name and item.index != device.index]
    return [device, *others]


def _cpu_name() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine() or "CPU"


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _system(name: str) -> int:
    """Return one figure of the operating system; 0 where it does not tell."""
    try:
        return max(0, os.sysconf(name))
    except (AttributeError, OSError, ValueError):
        return 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@cache
def _cuda(index: int) -> Device:
    import torch

    card = torch.cuda.get_device_properties(index)
    driver = re.search(r"\s(\d+(?:\.\d+)+)\s", _text("/proc/driver/nvidia/version"))
    return Device(
        kind="cuda",
        index=index,
        name=card.name,
        capability=(card.major, card.minor),
        cores=card.multi_processor_count,
        memory_bytes=card.total_memory,
        l2_bytes=card.L2_cache_size,
        uuid=str(card.uuid),
        driver=driver[1] if driver else None,
    )
