"""A fixed piece of work that is timed beside every network, so that drift and company show.

Its best time on a device is kept in the cache folder: a device that is busy from the first round to
the last is told from a quiet one only by what it could do earlier.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch

from kernels.device import Device
from kernels.environment import cache_dir

_GPU_SIZE = 1024
_CPU_SIZE = 256
_COPY_BYTES = 16 << 20


def reference_work(device: Device) -> Callable[[], object]:
    """Return the work: on a GPU an fp16 product 1024^3 and a copy of 16 MiB, on a CPU a product.

    The GPU's is light on purpose: beside a heavier one networks came out slower (see
    docs/measuring.md). The CPU's is a float32 product 256^3, about 0.3 ms on one core.
    """
    generator = torch.Generator().manual_seed(1)
    if device.kind == "cpu":
        a = torch.randn(_CPU_SIZE, _CPU_SIZE, generator=generator)
        b = torch.empty_like(a)
        return lambda: torch.mm(a, a, out=b)
    half = torch.randn(_GPU_SIZE, _GPU_SIZE, generator=generator).to(device.torch_name).half()
    product = torch.empty_like(half)
    source = torch.randn(_COPY_BYTES // 4, generator=generator).to(device.torch_name)
    target = torch.empty_like(source)

    def work() -> None:
        torch.mm(half, half, out=product)
        target.copy_(source)

    return work


class KnownReference:
    """The best time of the reference on a device, over all measurements so far.

    Args:
        device: the device; another driver or library starts anew.
        mode: how it was run, and how many calls a graph held.
    """

    def __init__(self, device: Device, mode: str) -> None:
        parts = [device.kind, device.uuid or device.name, device.driver or "", torch.__version__]
        parts += [str(size) for size in (_GPU_SIZE, _CPU_SIZE, _COPY_BYTES)]
        name = blake2b(" ".join([*parts, mode]).encode(), digest_size=8).hexdigest()
        self._path = cache_dir() / "reference" / f"{name}.json"

    def best_us(self) -> float | None:
        """Return the best median so far in microseconds; None where there is none."""
        try:
            return float(json.loads(self._path.read_text())["best_us"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def learn(self, median_us: float) -> None:
        """Take a median of undisturbed rounds into account."""
        best = self.best_us()
        if best is not None and best <= median_us:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile("w", dir=self._path.parent, delete=False) as file:
                json.dump({"best_us": median_us}, file)
            Path(file.name).replace(self._path)
        except OSError:
            return  # a cache that cannot be written is no reason to fail
