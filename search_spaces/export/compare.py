"""Two networks side by side: what one has that the other has not."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from search_spaces.architecture import Architecture

Mark = Literal[" ", "-", "+", "~"]


@dataclass(frozen=True, slots=True)
class Line:
    """A node of the first network, of the second, or of both.

    Attributes:
        mark: blank: in both alike; ``~``: in both under one name, but different; ``-``: in the
            first only; ``+``: in the second only.
        name: scope of the node.
        first: its operator and output shape in the first network, and where it does not read the
            node before it, how far before it stand those it reads; empty if it is not there.
        second: the same of the second.
    """

    mark: Mark
    name: str
    first: str = ""
    second: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two networks.

    Attributes:
        lines: their nodes in order.
        params: of the first and of the second.
        macs: of the first and of the second.
    """

    lines: tuple[Line, ...]
    params: tuple[int, int]
    macs: tuple[int, int]

    def __str__(self) -> str:
        """Write the difference for people: runs of equal nodes are counted, not listed."""
        written: list[str] = []
        same = 0
        for line in (*self.lines, None):
            if line is not None and line.mark == " ":
                same += 1
                continue
            if same:
                written.append(f"  ({same} {'node' if same == 1 else 'nodes'} alike)")
                same = 0
            if line is not None:
                shown = (
                    f"{line.first} -> {line.second}"
                    if line.mark == "~"
                    else (line.first or line.second)
                )
                written.append(f"{line.mark} {line.name}: {shown}")
        for what, (first, second) in (("parameters", self.params), ("MACs", self.macs)):
            change = f" ({(second - first) / first:+.1%})" if first else ""
            written.append(f"{what}: {first:,} -> {second:,}{change}")
        return "\n".join(written)


def compare(first: Architecture, second: Architecture) -> Comparison:
    """Set two networks side by side.

    Example:
        >>> small = Architecture.parse("input 1x8x8; conv 4 k3 bn relu; gap; flatten; linear 10")
        >>> large = Architecture.parse("input 1x8x8; conv 8 k5 bn relu; gap; flatten; linear 10")
        >>> print(compare(small, large))
          (1 node alike)
        ~ conv1: conv 4 k3 bn relu, 4x8x8 -> conv 8 k5 bn relu, 8x8x8
        ~ gap2: gap, 4x1x1 -> gap, 8x1x1
        ~ flatten3: flatten, 4 -> flatten, 8
          (1 node alike)
        parameters: 94 -> 306 (+225.5%)
        MACs: 2,344 -> 12,880 (+449.5%)
    """
    left, right = _described(first), _described(second)
    lines: list[Line] = []
    texts = [text for _, text in left], [text for _, text in right]  # names mean nothing
    for kind, a, b, c, d in SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
        if kind == "equal":
            lines += [Line(" ", name, text, text) for name, text in left[a:b]]
        else:
            lines += _changed(left[a:b], right[c:d])
    params, macs = (first.params, second.params), (first.macs, second.macs)
    return Comparison(tuple(lines), params, macs)


def _changed(left: list[tuple[str, str]], right: list[tuple[str, str]]) -> list[Line]:
    """Pair the nodes of equal names, in order; what is left was removed or added."""
    lines = []
    names = SequenceMatcher(None, [n for n, _ in left], [n for n, _ in right], autojunk=False)
    for kind, a, b, c, d in names.get_opcodes():
        if kind == "equal":
            pairs = zip(left[a:b], right[c:d], strict=True)
            lines += [
                Line("~" if old != new else " ", name, old, new) for (name, old), (_, new) in pairs
            ]
        else:
            lines += [Line("-", name, first=text) for name, text in left[a:b]]
            lines += [Line("+", name, second=text) for name, text in right[c:d]]
    return lines


def _described(architecture: Architecture) -> list[tuple[str, str]]:
    variants = {number: region for region in architecture.regions for number in region.nodes}
    described = []
    for number, node in enumerate(architecture.nodes):
        text = f"{node.op.text}, {'x'.join(map(str, node.shape))}"
        back = [source - number for source in node.inputs]
        if back and back != [-1]:  # counted backwards, so that what comes before changes nothing
            text = f"{text}, of {' and '.join(map(str, back))}"
        if number in variants:
            text = f"{text}, {variants[number].variant}"
        described.append((node.scope or node.op.kind, text))
    return described
