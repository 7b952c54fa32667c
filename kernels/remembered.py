"""What is derived from a weight, kept until the weight changes or is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

import torch
from torch.utils.weak import WeakTensorKeyDictionary

T = TypeVar("T")


class PerTensor(Generic[T]):
    """One derived value a tensor.

    A tensor that was made in inference mode does not say when it changes: it must not.
    """

    def __init__(self) -> None:
        self._kept = WeakTensorKeyDictionary()

    def get(self, tensor: torch.Tensor, made_for: object, make: Callable[[], T]) -> T:
        """Return the value that was made of a tensor as it is now, or make it.

        Args:
            tensor: what it is derived from.
            made_for: whatever else it depends on; another one makes it anew.
            make: derives it.
        """
        version = 0 if tensor.is_inference() else tensor._version
        found = cast(
            "tuple[object, T] | None",
            self._kept.get(tensor),  # type: ignore[no-untyped-call]
        )
        if found is None or found[0] != (version, made_for):
            found = ((version, made_for), make())
            self._kept[tensor] = found
        return found[1]
