"""Evaluators and architectures as bytes that a worker process can read."""

from __future__ import annotations

import io
import pickle
from types import FunctionType
from typing import Any

from kernels.errors import NasError


def to_bytes(item: object) -> bytes:
    """Pickle something for a worker.

    Raises:
        NasError: it cannot be pickled, or refers to something that a worker cannot import.
    """
    content = io.BytesIO()
    try:
        _Pickler(content, pickle.HIGHEST_PROTOCOL).dump(item)
    except Exception as problem:
        raise NasError(
            f"{type(item).__name__} cannot be sent to a worker process ({problem}): define it at "
            "the top level of a module that can be imported, or set workers = 0."
        ) from None
    return content.getvalue()


class _Pickler(pickle.Pickler):
    """Refuses at once what only the worker would find missing."""

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, type | FunctionType) and obj.__module__ == "__main__":
            raise pickle.PicklingError(
                f"{obj.__qualname__} is defined in the script that was started or in a notebook"
            )
        return NotImplemented
