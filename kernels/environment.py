"""Every environment variable of the project, read here and nowhere else.

| variable | meaning |
| --- | --- |
| ``NAS_KERNEL_<OP>`` | name of the implementation that ``<OP>`` must use, e.g. |
| | ``NAS_KERNEL_SLIDING_CHANNEL=reference``; an error if it cannot run; empty means unset |
| ``NAS_CACHE_DIR`` | folder for what can be made again, such as compiled kernels; without it |
| | ``paretonas`` in ``XDG_CACHE_HOME`` or in ``~/.cache`` |
| ``CUDA_VISIBLE_DEVICES`` | the GPUs that a process may see; empty for workers that need none |
| ``RAY_AUTH_MODE`` and others | see :data:`RAY_SETTINGS` |
| ``NAS_DATA_DIR`` | folder of the public data sets that torchvision reads and downloads; without |
| | it ``data`` in the cache folder |
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

KERNEL_PREFIX = "NAS_KERNEL_"
"""Start of the variables that force one implementation of an operator."""

CACHE_VARIABLE = "NAS_CACHE_DIR"
"""Names the cache folder."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Read by numerical libraries when they are loaded: how many threads they start."""

DATA_VARIABLE = "NAS_DATA_DIR"
"""Names the folder of public data sets."""


@cache
def kernel_variable(op: str) -> str:
    """Return the name of the variable that forces an implementation of ``op``.

    Example:
        >>> kernel_variable("sliding_channel")
        'NAS_KERNEL_SLIDING_CHANNEL'
    """
    return KERNEL_PREFIX + re.sub(r"[^A-Z0-9]", "_", op.upper())


def forced_kernel(op: str) -> str | None:
    """Return the implementation that the environment forces on ``op``; None when it forces none."""
    return os.environ.get(kernel_variable(op)) or None


def cache_dir() -> Path:
    """Return the folder for what can be made again; it need not exist."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "paretonas"


def data_dir() -> Path:
    """Return the folder of public data sets; it need not exist."""
    named = os.environ.get(DATA_VARIABLE)
    return Path(named).expanduser() if named else cache_dir() / "data"


GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""Names the GPUs that a process may see."""

RAY_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
"""What Ray is started with where the environment does not say otherwise: who talks to it needs its
token, it reports to nobody, and what asked for no GPU sees none."""


def worker_environment(threads: int, gpus: str | None = None) -> dict[str, str]:
    """Return the environment of a worker process.

    Args:
        threads: of numerical libraries.
        gpus: that it may see, by UUID; empty for none; None: those that this process sees.
    """
    seen = {} if gpus is None else {GPU_VARIABLE: gpus}
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **seen}


def visible_gpus() -> str | None:
    """Return the GPUs that the environment lets this process see; None where it does not say."""
    return os.environ.get(GPU_VARIABLE)


def prepare_ray() -> None:
    """Set what Ray reads when it is loaded; what the user has set stays."""
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
