"""The place in a network that is being described; names nodes and errors: ``stage2/block0``.

The choosers enter a scope as a space function loops over stages and blocks, and the builder reads
it, so a space names its parts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CURRENT: ContextVar[str] = ContextVar("scope", default="")

current = _CURRENT.get
"""Return the scope being described; empty at the top."""
enter = _CURRENT.set
"""Make a whole path the scope being described."""


def join(outer: str, name: str) -> str:
    """Return the scope ``name`` inside ``outer``."""
    return f"{outer}/{name}" if outer else name


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Describe what stands in the ``with`` block inside the current scope's ``name``."""
    outer = current()
    enter(join(outer, name))
    try:
        yield
    finally:
        enter(outer)
