"""What a space is by itself: its size, and every decision with its options."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from threading import Lock, Thread
from typing import Any

from dashboards.process import run_child
from kernels.references import is_file_reference
from search_spaces.choose import Option, RandomDecider, Rejected
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space

Json = dict[str, Any]

PROBES = 2000
"""Random walks for the size of a large space: a second or two; ``nas spaces`` makes more."""
_COUNTED = 2000
"""Candidates up to which they are counted one by one."""
_WALKS = 300
"""Random walks on which every decision is met that is not very rare."""


def describe_space(reference: str, shape: tuple[int, ...], classes: int) -> Json:
    """Return a space's version, its size in words, and the options of each decision.

    Raises:
        NasError: there is no such space, or it fails.
    """
    space, data = load_space(reference), DataSpec(shape, classes)
    size = space.size(data, limit=_COUNTED, probes=PROBES)
    rng = Random(0)
    options: dict[str, list[Option]] = {}
    for _ in range(_WALKS):
        try:
            space.attempt(_Noting(rng, options), data)
        except Rejected:
            continue
    return {"version": space.version, "size": str(size), "options": options}


class _Noting(RandomDecider):
    """Answers at random and notes what it was asked."""

    def __init__(self, rng: Random, options: dict[str, list[Option]]) -> None:
        super().__init__(rng)
        self._options = options

    def decide(self, name: str, options: Sequence[Option]) -> int:
        known = self._options.setdefault(name, [])
        known += [item for item in options if item not in known]
        return super().decide(name, options)


class Descriptions:
    """Spaces described in the background, once each."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[tuple[str, tuple[int, ...], int], Json] = {}

    def get(
        self, reference: str, shape: tuple[int, ...], classes: int, *, wait: bool = False
    ) -> Json:
        """Return what :func:`describe_space` finds; ``{"counting": True}`` until it has.

        A space in a user's file is not described: a page must not run a file that a record names.

        Args:
            reference: the space.
            shape: of one input.
            classes: number of classes.
            wait: whether to wait for it.
        """
        if is_file_reference(reference):
            return {"error": "The space is in a file of its own; nas spaces tells its size."}
        key = (reference, shape, classes)
        with self._lock:
            known = self._known.setdefault(key, {})
        if not known:
            known["counting"] = True
            if wait:
                self._describe(key)
            else:
                Thread(target=self._describe, args=(key,), daemon=True).start()
        return self._known[key]

    def _describe(self, key: tuple[str, tuple[int, ...], int]) -> None:
        reference, shape, classes = key
        order = {"do": "space", "space": reference, "shape": shape, "classes": classes}
        self._known[key] = run_child(order)
