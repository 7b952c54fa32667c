"""Evaluators and architectures as bytes that a worker process can read."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from hashlib import blake2b
from types import FunctionType
from typing import Any

from evaluators.protocol import Evaluator
from kernels.errors import NasError


@dataclass(frozen=True, slots=True)
class Pickled:
    """An evaluator, what it is pickled to, and a name for that."""

    evaluator: Evaluator
    digest: str
    content: bytes


class PickledOnce:
    """Pickles each evaluator when it is first asked for, and no second time."""

    def __init__(self) -> None:
        self._known: dict[int, Pickled] = {}

    def of(self, evaluator: Evaluator) -> Pickled:
        """Return an evaluator pickled, as it was when it was first asked for.

        Raises:
            NasError: it cannot be pickled.
        """
        known = self._known.get(id(evaluator))
        if known is None:
            content = to_bytes(evaluator)
            known = Pickled(evaluator, blake2b(content, digest_size=16).hexdigest(), content)
            # It holds the evaluator, so that no other can get its id.
            self._known[id(evaluator)] = known
        return known

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()


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
