"""The one exception base of the project, in the lowest package so that all may raise it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NasError(Exception):
    """An error the user can act on: one line that says what was expected, what came, what to do."""


class UnknownNameError(NasError):
    """A name that no registry entry, option or field carries; lists the known ones.

    Args:
        what: the kind of thing looked up, such as ``"space"``.
        name: what the user wrote.
        known: every name that would have been accepted.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"Unknown {what} {name!r}. Known: {', '.join(names) or 'none'}.{hint}")
        self.name = name
