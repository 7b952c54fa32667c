"""How lines of generated Python are broken: as ``ruff format`` would at 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from search_spaces.architecture.node import Node

WIDTH = 100
_NO_BREAK = "\N{NO-BREAK SPACE}"


def wrapped_nodes(text: str, width: int) -> list[str]:
    """Write a network's text form in lines that end where a node does.

    Example:
        >>> wrapped_nodes("input 3x8x8; conv 8 k3 bn relu; gap; flatten", 32)
        ['input 3x8x8; conv 8 k3 bn relu;', 'gap; flatten']
    """
    nodes = text.split("; ")
    whole = "; ".join(node.replace(" ", _NO_BREAK) if len(node) < width else node for node in nodes)
    lines = textwrap.wrap(whole, width, break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines]


def import_lines(module: str, names: Sequence[str]) -> list[str]:
    """Write what is imported of a module; many names stand on lines of their own."""
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return [line]
    return [f"from {module} import (", *(f"    {name}," for name in names), ")"]


def call_lines(before: str, source: str, after: str = "") -> list[str]:
    """Write a call on one line, or its arguments on a line of their own where it is too long."""
    if len(before) + len(source) + len(after) <= WIDTH:
        return [f"{before}{source}{after}"]
    function, _, arguments = source.partition("(")
    indent = " " * (len(before) - len(before.lstrip()))
    return [f"{before}{function}(", f"{indent}    {arguments[:-1]}", f"{indent}){after}"]


def signature(arguments: Sequence[str], others: Sequence[str] = ()) -> list[str]:
    """Write the first lines of the forward method; many arguments stand on lines of their own.

    Args:
        arguments: names of the tensors.
        others: what else it takes, with types and defaults.
    """
    typed = ["self", *(f"{argument}: torch.Tensor" for argument in arguments), *others]
    line = f"    def forward({', '.join(typed)}) -> torch.Tensor:"
    if len(line) <= WIDTH:
        return [line]
    together = [f"        {', '.join(typed)}"]
    listed = [f"        {item}," for item in typed]
    inner = together if len(together[0]) <= WIDTH else listed
    return ["    def forward(", *inner, "    ) -> torch.Tensor:"]


def statement(target: str, call: str, shape: str) -> list[str]:
    """Write a statement with the shape behind it, or above one that fills a line or more.

    Args:
        target: what stands before the call, ``x =`` or ``return``.
        call: the expression.
        shape: the comment.
    """
    line = f"        {target} {call}"
    if len(line) + len(f"  # {shape}") <= WIDTH:
        return [f"{line}  # {shape}"]
    above = f"        # {shape}"
    if len(line) <= WIDTH:
        return [above, line]
    if call.startswith("torch.cat(["):
        items, _, rest = call.removeprefix("torch.cat([").rpartition("], ")
        inner = f"            [{items}], {rest[:-1]}"
        if len(inner) <= WIDTH:
            return [above, f"        {target} torch.cat(", inner, "        )"]
        listed = [f"            [{items}],"]
        if len(listed[0]) > WIDTH:
            many = [f"                {item}," for item in items.split(", ")]
            listed = ["            [", *many, "            ],"]
        return [
            *(above, f"        {target} torch.cat("),
            *listed,
            *(f"            {rest[:-1]},", "        )"),
        ]
    first, *others = call.split(" + ")
    terms = [f"            {first}", *(f"            + {item}" for item in others)]
    return [above, f"        {target} (", *terms, "        )"]


def free_variable(taken: Iterable[str]) -> str:
    """Return the first name that is not taken."""
    used = set(taken)
    for name in ("x", "y", "z", "u", "v", "w"):
        if name not in used:
            return name
    number = 1
    while f"t{number}" in used:
        number += 1
    return f"t{number}"


class Paragraphs:
    """Tells where a blank line belongs: where a block ends.

    A block is what shares its scopes up to the last of the first ones that are numbered:
    ``stage1/block0`` of ``stage1/block0/conv``, ``encoder/layer_2`` of ``encoder/layer_2/mlp/up``.
    """

    def __init__(self) -> None:
        self._last: list[str] | None = None

    def begins(self, node: Node) -> bool:
        """Tell whether a node is the first of its block, and not the first of all."""
        last, self._last = self._last, _block(node.scope.split("/")[:-1])
        return last is not None and last != self._last


def _block(scopes: list[str]) -> list[str]:
    numbered = [bool(item) and item[-1].isdigit() for item in scopes]
    if not any(numbered):
        return scopes[:2]
    first = numbered.index(True)
    return scopes[: numbered.index(False, first) if False in numbered[first:] else len(scopes)]
