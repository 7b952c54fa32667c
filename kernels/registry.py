"""A table of named things: ops, spaces, data sets, kernel implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from kernels.errors import NasError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things, each name once.

    Args:
        what: what is registered, in the singular; used in error messages.

    Example:
        >>> shapes = Registry[int]("shape")
        >>> shapes.add("square", 4)
        4
        >>> shapes.get("square"), shapes.names("s*")
        (4, ['square'])
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Enrol ``entry`` and return it.

        Raises:
            NasError: the name is taken.
        """
        if name in self._entries:
            raise NasError(f"The {self.what} {name!r} is registered twice.")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Give the decorator form of :meth:`add`."""
        return lambda entry: self.add(name, entry)

    def get(self, name: str) -> T:
        """Return the entry.

        Raises:
            UnknownNameError: nothing is registered under that name.
        """
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self.what, name, self._entries) from None

    def names(self, pattern: str = "*") -> list[str]:
        """Return the names that match a shell-style wildcard, sorted."""
        return sorted(name for name in self._entries if fnmatchcase(name, pattern))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[tuple[str, T]]:
        return iter(sorted(self._entries.items()))
