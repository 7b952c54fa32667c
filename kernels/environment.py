"""Every environment variable of the project, read here and nowhere else.

| variable | meaning |
| --- | --- |
| ``NAS_KERNEL_<OP>`` | name of the implementation that ``<OP>`` must use, e.g. |
| | ``NAS_KERNEL_SLIDING_CHANNEL=reference``; an error if it cannot run; empty means unset |
"""

from __future__ import annotations

import os
import re
from functools import cache

KERNEL_PREFIX = "NAS_KERNEL_"
"""Start of the variables that force one implementation of an operator."""


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
