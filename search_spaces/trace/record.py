"""Records a forward pass with torch.fx, in training and in evaluation, as one list of steps."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable
from itertools import zip_longest
from typing import Any, NamedTuple, cast

from torch import Tensor, fx, nn

from search_spaces.errors import ArchitectureError

WHILE_TRAINING = object()  # an argument that is True in training mode and False in evaluation


class Network(nn.Module):
    """Calls the module as a user does: defaults are filled in, and it may itself be a leaf.

    Args:
        module: takes one tensor; its other arguments have defaults.
        options: other arguments to give.
    """

    def __init__(self, module: nn.Module, **options: Any) -> None:
        super().__init__()
        self.module = module
        self._options = options

    def forward(self, x: Tensor) -> Tensor:
        """Return what the module returns, of Hugging Face's outputs the logits or last states."""
        result: Any = self.module(x, **self._options)
        if not isinstance(result, Tensor | fx.Proxy):
            for name in ("logits", "last_hidden_state"):
                result = getattr(result, name, result)
        return cast("Tensor", result)


class _Proxy(fx.Proxy):
    """NOTE: torch.fx records ``x += y`` as a sum and so forgets that ``x`` has changed."""

    def __iadd__(self, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __imul__(self, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})


class _Tracer(fx.Tracer):
    """Stops at modules that have a translation; remembers where tracing failed."""

    def __init__(self, is_known: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self._is_known = is_known
        self.failed = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self._is_known(m) or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if not self.failed:
                names = (name for name, item in self.root.named_modules() if item is m)
                path = _slashed(next(names, "an unregistered module"))
                self.failed = f"{path or 'network'} ({type(m).__name__})"
            raise


class Step(NamedTuple):
    """A recorded call; arguments that follow the mode are replaced by ``WHILE_TRAINING``."""

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def record(network: Network, *, is_known: Callable[[nn.Module], bool]) -> list[Step]:
    """Return the steps of a forward pass, in the order they run.

    Args:
        network: is left as it is.
        is_known: whether a module is one step, not to be looked into.

    Raises:
        ArchitectureError: control flow depends on the data, or on the mode in more than arguments.
    """
    modes = {module: module.training for module in network.modules()}
    graphs = []
    tracer = _Tracer(is_known)
    try:
        for mode in (True, False):
            for module in modes:
                module.training = mode
            tracer = _Tracer(is_known)
            graphs.append(list(tracer.trace(network).nodes))
    except Exception as problem:
        raise ArchitectureError(
            f"{tracer.failed or 'network'}: torch.fx cannot trace this: {problem}. The forward "
            "pass must take one tensor, and its control flow must not depend on the data."
        ) from problem
    finally:
        for module, mode in modes.items():
            module.training = mode
    return [_step(*pair) for pair in zip_longest(*graphs)]


def _step(first: fx.Node | None, second: fx.Node | None) -> Step:
    """Join the records of one step in training and in evaluation."""
    if first and second and (first.op, first.target) == (second.op, second.target):
        with contextlib.suppress(_DiffersError):  # the error below names the place
            kwargs = _joined(dict(first.kwargs), dict(second.kwargs))
            return Step(first, _joined(first.args, second.args), kwargs)
    node = first or second
    assert node is not None
    raise ArchitectureError(
        f"{scope_of(node) or 'network'} (node {node.name!r}): the forward pass differs between "
        "training and evaluation in more than dropout; one architecture cannot describe both."
    )


class _DiffersError(Exception):
    pass


def _joined(a: Any, b: Any) -> Any:
    if isinstance(a, fx.Node) and isinstance(b, fx.Node) and a.name == b.name:
        return a
    if isinstance(a, tuple | list) and isinstance(b, tuple | list) and len(a) == len(b):
        return tuple(_joined(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return {key: _joined(a[key], b[key]) for key in a}
    if a is True and b is False:
        return WHILE_TRAINING
    # Slices of nodes compare by identity, hence the names.
    if type(a) is not type(b) or (a != b and str(a) != str(b)):
        raise _DiffersError
    return a


def _slashed(path: str) -> str:
    return path.removeprefix("module").lstrip(".").replace(".", "/")


def scope_of(node: fx.Node) -> str:
    """Return the path of a step: the module it ran in, and the function's name."""
    stack = node.meta.get("nn_module_stack")
    path = _slashed(list(stack.values())[-1][0]) if stack else ""
    if node.op == "call_module":
        return _slashed(str(node.target))
    name = "input" if node.op == "placeholder" else name_of(node.target)
    name = name[1:] if name in ("iadd", "imul") else name
    return f"{path}/{name}" if path else name


def name_of(target: object) -> str:
    """Return the name of a function, a class or a method."""
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
