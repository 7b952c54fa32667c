"""What a measurement was made with: in its details, and in the key it is found by."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch

from kernels.device import Device
from search_spaces.architecture import Architecture
from search_spaces.ops import SlidingChannel

HARNESS_VERSION = 4
"""Raised when the same network would give another figure; part of every key."""


def provenance(device: Device) -> dict[str, str | int | None]:
    """Return the device and all versions that a figure depends on, as details."""
    return {
        "device": str(device),
        "driver": device.driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "harness": HARNESS_VERSION,
        "paretonas": our_version(),
    }


def key_versions(architecture: Architecture) -> dict[str, str]:
    """Return the versions of which a change makes figures of a network other ones.

    That of this package counts where its kernels run: variants and sliding-channel convolutions.
    """
    found = {"torch": torch.__version__, "harness": f"{HARNESS_VERSION}.0"}
    if architecture.regions or any(isinstance(n.op, SlidingChannel) for n in architecture.nodes):
        found["kernels"] = our_version()
    return found


def our_version() -> str:
    """Return the version of this package, and so of its kernels."""
    try:
        return version("paretonas")
    except PackageNotFoundError:  # run from the source tree
        return "unknown"
