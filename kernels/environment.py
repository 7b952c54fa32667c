"""Every environment variable of the project, read here and nowhere else.

| variable | meaning |
| --- | --- |
| ``NAS_KERNEL_<OP>`` | name of the implementation that ``<OP>`` must use, e.g. |
| | ``NAS_KERNEL_SLIDING_CHANNEL=reference``; an error if it cannot run; empty means unset |
| ``NAS_CACHE_DIR`` | folder for what can be made again, such as compiled kernels; without it |
| | ``paretonas`` in ``XDG_CACHE_HOME`` or in ``~/.cache`` |
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


def worker_environment(threads: int) -> dict[str, str]:
    """Return the environment of a worker process: this one, with the threads of libraries set."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
