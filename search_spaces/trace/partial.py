"""Results of steps that are no values of an architecture, but become some a few steps later."""

from __future__ import annotations

from typing import Any, Protocol

from torch import fx, nn

from search_spaces.errors import ArchitectureError
from search_spaces.trace.record import name_of

_NAMES = {
    "iadd": "add",
    "imul": "mul",
    "truediv": "div",
    "true_divide": "div",
    "divide": "div",
    "multiply": "mul",
    "view": "reshape",
    "unflatten": "reshape",
    "concat": "cat",
    "concatenate": "cat",
    "negative": "neg",
    "bmm": "matmul",
    "swapaxes": "transpose",
}
_SAME = frozenset(("contiguous", "clone", "detach", "to", "type", "type_as", "float", "half"))
_SWAPPED = frozenset(("add", "mul"))


class Place(Protocol):
    """What a partial result asks of the reader that follows it."""

    def module(self, node: fx.Node) -> nn.Module:
        """Return the module that a step calls."""
        ...

    def error(self, problem: str) -> ArchitectureError:
        """Return an error that names the step at hand."""
        ...


class Partial:
    """What a step made on the way to a value; subclasses have ``on_<step>`` for what may follow."""

    def follow(self, reader: Place, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Return what a step makes of it.

        Raises:
            ArchitectureError: the step is not understood here.
        """
        name = name_of(node.target).strip("_")
        if node.op == "call_module":
            name = type(reader.module(node)).__name__.lower()
        name = _NAMES.get(name, name)
        if name in _SAME or name == "identity":
            return self
        handler = getattr(self, f"on_{name}", None)
        if handler is None:
            raise reader.error(f"is not understood behind {type(self).__name__.lower()}")
        if name in _SWAPPED and args[0] is not self:
            args = [args[1], args[0], *args[2:]]
        if name == "cat":
            return handler(reader, *args, **kwargs)
        return handler(reader, *args[1:], **kwargs)
