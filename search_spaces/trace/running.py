"""Records a forward pass by running it once: every call on a tensor that depends on the input.

It takes what :mod:`search_spaces.trace.record` cannot follow: control flow and masks that are
computed from sizes, as in Hugging Face's models. What does not depend on the input is computed, not
recorded, and appears as a constant. What depends on the input's values is refused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from search_spaces.errors import ArchitectureError
from search_spaces.trace.record import Network, Step

BATCH = 2
"""Samples that are run; a size of its axis."""

_READING = frozenset(
    ("__bool__", "__int__", "__float__", "__index__", "__contains__", "item", "tolist", "numpy")
)
"""Methods whose result is Python's, and depends on the values of a tensor."""
_FRESH = frozenset(
    f"{start}{name}{end}"
    for start, end in (("new_", ""), ("", "_like"))
    for name in ("zeros", "ones", "full", "empty", "tensor", "rand", "randn")
)
"""Functions that take only shape and type from a tensor."""
_OPERATORS: dict[str, Callable[..., Any]] = {
    "__getitem__": operator.getitem,
    "__add__": operator.add,
    "__radd__": operator.add,
    "__mul__": operator.mul,
    "__rmul__": operator.mul,
    "__iadd__": operator.iadd,
    "__imul__": operator.imul,
    "__matmul__": torch.matmul,
    "__truediv__": torch.div,
}


class _Tracked(Tensor):
    """A tensor that depends on the input, and the node that made it."""

    node: fx.Node
    recorder: _Recorder

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*_plain(args), **_plain(kwargs))
        tracked = next(item for item in _tensors((args, kwargs)) if isinstance(item, _Tracked))
        if name in _READING:
            raise ArchitectureError(
                f"{tracked.recorder.place()}: {name.strip('_')} of a tensor that depends on the "
                "input; control flow must not depend on the data"
            )
        if name in _FRESH or not any(True for _ in _tensors(result)):
            return result
        return tracked.recorder.call(func, name, args, kwargs, result)


class _Recorder:
    """Keeps the steps of a pass, and in which module it is."""

    def __init__(self, network: Network, is_known: Callable[[nn.Module], bool]) -> None:
        self._names = {module: name for name, module in reversed([*network.named_modules()])}
        self._is_known = is_known
        self._inside: list[str] = []
        self._graph = fx.Graph()
        self.steps: list[Step] = []

    def place(self) -> str:
        """Return the path of the module that runs now."""
        path = self._inside[-1] if self._inside else ""
        return path.removeprefix("module").lstrip(".").replace(".", "/") or "network"

    def input(self, x: Tensor) -> Tensor:
        """Return the network's input."""
        return self._tracked(x, self._step("placeholder", "x", (), {}))

    def output(self, result: object) -> None:
        """Note what the network returns."""
        self._step("output", "output", (result,), {})

    def call(
        self, func: Callable[..., Any], name: str, args: Any, kwargs: Any, result: Any
    ) -> object:
        """Record a call of a function or of a tensor's method."""
        if name in _OPERATORS:
            return self._wrapped(
                result, self._step("call_function", _OPERATORS[name], args, kwargs)
            )
        method = getattr(Tensor, name, None) is func
        target: Any = name if method else func
        kind = "call_method" if method else "call_function"
        return self._wrapped(result, self._step(kind, target, args, kwargs))

    @contextmanager
    def following(self) -> Iterator[None]:
        """Record calls of modules that have a translation as one step each."""
        original = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            path = self._names.get(module)
            if path is None:
                return original(module, *args, **kwargs)
            depends = any(isinstance(item, _Tracked) for item in _tensors((args, kwargs)))
            if depends and self._is_known(module):
                with torch._C.DisableTorchFunctionSubclass():
                    result = original(module, *_plain(args), **_plain(kwargs))
                return self._wrapped(result, self._step("call_module", path, args, kwargs))
            self._inside.append(path)
            try:
                return original(module, *args, **kwargs)
            finally:
                self._inside.pop()

        nn.Module.__call__ = call  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.__call__ = original  # type: ignore[method-assign]

    def _step(self, kind: str, target: Any, args: Any, kwargs: Any) -> fx.Node:
        given, named = _nodes(args), _nodes(kwargs)
        used = tuple(item for item in _leaves((given, named)) if isinstance(item, fx.Node))
        node = self._graph.create_node(kind, target, used)
        stack = {"": (self._inside[-1], None)} if self._inside else {}
        node.meta["nn_module_stack"] = stack
        self.steps.append(Step(node, given, named))
        return node

    def _wrapped(self, result: Any, node: fx.Node) -> Any:
        if isinstance(result, Tensor):
            return self._tracked(result, node)
        if isinstance(result, tuple | list):
            return tuple(
                self._tracked(item, self._step("call_function", operator.getitem, (node, i), {}))
                if isinstance(item, Tensor)
                else item
                for i, item in enumerate(result)
            )
        raise ArchitectureError(f"{self.place()}: {node.target} returns {type(result).__name__}")

    def _tracked(self, tensor: Tensor, node: fx.Node) -> Tensor:
        made = tensor.detach().as_subclass(_Tracked)
        made.node, made.recorder = node, self
        return made


def record_run(
    network: Network,
    x: Tensor,
    *,
    is_known: Callable[[nn.Module], bool],
    training: bool = False,
) -> list[Step]:
    """Return the steps of a forward pass, in the order they run.

    Args:
        network: is left as it is.
        x: an example of its input, (BATCH, ...).
        is_known: whether a module is one step, not to be looked into.
        training: whether it is run in training mode, else in evaluation mode.

    Raises:
        ArchitectureError: it cannot be run, or control flow depends on the data.
    """
    modes = {module: module.training for module in network.modules()}
    recorder = _Recorder(network, is_known)
    try:
        network.train(training)
        with torch.no_grad(), recorder.following():
            recorder.output(network(recorder.input(x)))
    except ArchitectureError:
        raise
    except Exception as problem:
        why = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise ArchitectureError(f"{recorder.place()}: this cannot be run: {why}") from problem
    finally:
        for module, mode in modes.items():
            module.training = mode
    return recorder.steps


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from _leaves(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _leaves(item)
    elif isinstance(tree, slice):
        yield from _leaves((tree.start, tree.stop, tree.step))
    else:
        yield tree


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (item for item in _leaves(tree) if isinstance(item, Tensor))


def _mapped(tree: Any, function: Callable[[Any], Any]) -> Any:
    def one(item: Any) -> Any:
        return _mapped(item, function)

    if isinstance(tree, tuple | list):
        return [*map(one, tree)] if isinstance(tree, list) else tuple(map(one, tree))
    if isinstance(tree, dict):
        return {key: one(item) for key, item in tree.items()}
    return function(tree)


def _plain(tree: Any) -> Any:
    """Return a tree with ordinary tensors in the place of tracked ones."""
    return _mapped(
        tree, lambda item: item.as_subclass(Tensor) if isinstance(item, _Tracked) else item
    )


def _nodes(tree: Any) -> Any:
    """Return a tree with nodes in the place of tracked tensors."""
    return _mapped(tree, lambda item: item.node if isinstance(item, _Tracked) else item)
