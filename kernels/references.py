"""Finding what a user names: ``path/to/file.py:name``, ``module:name``, or an entry point."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from hashlib import blake2b
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from kernels.errors import NasError, UnknownNameError


def is_file_reference(reference: str) -> bool:
    """Tell whether a reference names a Python file, with or without ``:name``."""
    return reference.endswith(".py") or ".py:" in reference


def split_reference(reference: str) -> tuple[str, str]:
    """Return file or module and name; the name is empty where none is given.

    Example:
        >>> split_reference("mine/spaces.py:wide"), split_reference("spaces.py")
        (('mine/spaces.py', 'wide'), ('spaces.py', ''))
    """
    place, _, name = reference.rpartition(":")
    return (place, name) if place and not name.endswith(".py") else (reference, "")


def load_file(path: Path) -> ModuleType:
    """Run a Python file once per process and return its module.

    The module's name follows from the file's absolute path, so that what the file defines can be
    pickled to a process that loads the same file.

    Raises:
        NasError: there is no such file, or it raises; names the error.
    """
    path = path.expanduser().absolute()
    name = f"_file_{path.stem}_{blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise NasError(f"There is no Python file {path}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the file look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[name]
        why = " ".join(str(problem).split())
        raise NasError(f"{path} cannot be loaded: {type(problem).__name__}: {why}") from problem
    return module


def load_entry(entry: EntryPoint, what: str) -> Any:
    """Return the object that another distribution offers under an entry point.

    Raises:
        NasError: it cannot be loaded; names the error and what the entry point stands for.
    """
    try:
        return entry.load()
    except Exception as problem:  # the code is a stranger's
        why = " ".join(str(problem).split())
        raise NasError(
            f"The {what} {entry.name!r} ({entry.value}) cannot be loaded: "
            f"{type(problem).__name__}: {why}"
        ) from problem


def load_reference(reference: str, what: str, *, group: str | None = None) -> Any:
    """Return the object that a reference names.

    Args:
        reference: ``path/to/file.py:name``, ``module:name``, or the name of an entry point.
        what: for messages: ``"evaluator"``.
        group: entry-point group that plain names are looked up in.

    Raises:
        NasError: it cannot be found or loaded; says why.
    """
    place, name = split_reference(reference)
    if not name and not is_file_reference(reference):
        known = entry_points(group=group) if group else ()
        for entry in known:
            if entry.name == reference:
                return load_entry(entry, what)
        raise UnknownNameError(what, reference, [entry.name for entry in known])
    if not name:
        raise NasError(f"Name the {what} in {reference}: {reference}:NAME.")
    if is_file_reference(reference):
        module = load_file(Path(place))
    else:
        try:
            module = importlib.import_module(place)
        except Exception as problem:  # the module may raise anything
            why = " ".join(str(problem).split())
            raise NasError(
                f"Cannot import {place!r} for the {what}: {type(problem).__name__}: {why}"
            ) from problem
    try:
        return getattr(module, name)
    except AttributeError:
        public = [key for key in vars(module) if not key.startswith("_")]
        raise UnknownNameError(f"{what} in {place}", name, public) from None
