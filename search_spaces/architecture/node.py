"""The values an architecture consists of: nodes, regions of nodes, variants of regions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from search_spaces.errors import ArchitectureError
from search_spaces.ops import Facts, Op, Shape

_VARIANT = re.compile(r"([a-z][a-z0-9_]*)(?:\(([^()]*)\))?")
_WORD = re.compile(r"[A-Za-z0-9_.+-]+")


class Node(NamedTuple):
    """One operator of an architecture, at its canonical place.

    Attributes:
        op: the operator.
        inputs: canonical numbers of the nodes it reads, all lower than its own.
        scope: its name, for errors, module names and state dicts; not hashed.
        facts: shape, parameters, multiply-accumulates and reach at its input shapes.
        tie: number of the earlier node whose parameters it shares, or None.
    """

    op: Op
    inputs: tuple[int, ...]
    scope: str
    facts: Facts
    tie: int | None = None

    @property
    def shape(self) -> Shape:
        """Output shape without the batch axis."""
        return self.facts.shape


@dataclass(frozen=True, slots=True)
class Variant:
    """Another execution of (nearly) the same function: sparse, low-bit, emulated, dual-module.

    Attributes:
        kind: name of the kernel system, such as ``shfl_bw``.
        params: its settings as written, sorted by name: ``(("V", "64"), ("density", "0.25"))``.

    Example:
        >>> str(Variant.parse("shfl_bw(density=0.25,V=64)"))
        'shfl_bw(V=64,density=0.25)'
    """

    kind: str
    params: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read the text form.

        Raises:
            ArchitectureError: it is not ``name`` or ``name(key=value,...)``.
        """
        match = _VARIANT.fullmatch(text.strip())
        pairs = [item.split("=") for item in match[2].split(",")] if match and match[2] else []
        if not match or any(len(p) != 2 or not all(map(_WORD.fullmatch, p)) for p in pairs):
            raise ArchitectureError(f"cannot read the variant {text!r}; expected name(key=value)")
        if len({name for name, _ in pairs}) != len(pairs):
            raise ArchitectureError(f"the variant {text!r} gives a setting twice")
        return cls(match[1], tuple(sorted((name, value) for name, value in pairs)))

    def __str__(self) -> str:
        inner = ",".join(f"{name}={value}" for name, value in self.params)
        return f"{self.kind}({inner})" if inner else self.kind


class Region(NamedTuple):
    """A set of nodes that one variant executes together, and that variant.

    Attributes:
        nodes: canonical numbers, rising.
        variant: how they are executed.
    """

    nodes: tuple[int, ...]
    variant: Variant

    def __str__(self) -> str:
        return f"{self.variant} on {','.join(map(str, self.nodes))}"
