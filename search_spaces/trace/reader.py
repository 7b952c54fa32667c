"""Follows recorded steps one after the other, and makes the values of an architecture.

Steps are read in the order they run, so that what an in-place operation does to other names of the
same memory is followed, where torch.fx alone would lose it.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from search_spaces.architecture.graph import Value, share_parameters
from search_spaces.errors import ArchitectureError, OpError
from search_spaces.ops import (
    Add,
    ChannelShuffle,
    Concat,
    Dropout,
    Flatten,
    Input,
    Op,
    Shape,
    TokenPool,
    Tokens,
    Zero,
)
from search_spaces.trace.partial import Partial
from search_spaces.trace.record import WHILE_TRAINING, Network, Step, name_of, scope_of

Translator = Callable[..., object]
"""Takes the reader, the module of a layer, and the arguments of the step; returns its result."""

_VIEWS = (Flatten, Dropout, ChannelShuffle, Tokens, TokenPool)
"""Operators whose result may stand in the memory of their input."""

BATCH_SIZE = object()
"""The size of the batch axis, where the steps were recorded without running them."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The translators that a reader looks up.

    Attributes:
        translator_of: returns that of a layer, if it has one.
        modules: of layers, by class or by name.
        functions: by the function.
        methods: of tensors, by name.
        copies: those whose result never stands in the memory of their input.
    """

    translator_of: Callable[[nn.Module], Translator | None]
    modules: Mapping[type[nn.Module] | str, Translator]
    functions: Mapping[Any, Translator]
    methods: Mapping[Any, Translator]
    copies: tuple[Translator, ...]


class ReadError(ArchitectureError):
    """A step has no translation.

    Attributes:
        made: operators that were read before it.
    """

    def __init__(self, message: str, made: int) -> None:
        super().__init__(message)
        self.made = made


class _Stale(NamedTuple):
    """What stands for a tensor whose memory an in-place operation has changed."""

    by: str


class Reader:
    """Translates recorded steps one after the other.

    Args:
        network: what was recorded.
        input_op: its input.
        tables: the translators.
        batch: samples that it was run with; None where it was not run.

    Attributes:
        node: the step at hand.
        sums: steps that made a sum in memory of its own.
    """

    def __init__(
        self, network: Network, input_op: Input, *, tables: Tables, batch: int | None = None
    ) -> None:
        self._modules: dict[str, nn.Module] = dict(network.named_modules())
        self._input_op = input_op
        self._tables = tables
        self._batch = batch
        self._role = ""
        self._made = 0
        self._results: dict[fx.Node, object] = {}
        self._memory: dict[fx.Node, list[fx.Node]] = {}
        self._owners: dict[int, Value] = {}
        self._tensors: dict[Value, dict[str, Tensor]] = {}
        self._absent: set[Value] = set()
        self.node: fx.Node
        self.sums: set[fx.Node] = set()

    def run(self, steps: Sequence[Step]) -> Value:
        """Return the output."""
        for step in steps:
            self.node = step.node
            if step.node.op == "placeholder":
                self._results[step.node] = self.make(Input, **vars_of(self._input_op))
                self._memory[step.node] = [step.node]
            elif step.node.op == "output":
                output = self._looked_up(step.args[0])
                if not isinstance(output, Value):
                    raise self.error(f"the network must return one tensor, not {step.args[0]}")
                return output
            else:
                self._call(step)
        raise self.error("the network returns nothing")

    def error(self, problem: str) -> ArchitectureError:
        """Return an error that names the step at hand."""
        node = self.node
        what = f"node {node.name!r}"
        if node.op == "call_module":
            what = type(self._modules[str(node.target)]).__name__
        return ReadError(f"{scope_of(node) or 'network'} ({what}): {problem}", self._made)

    def make(
        self, op: type[Op], *inputs: Value, tensors: dict[str, Tensor] | None = None, **attrs: Any
    ) -> Value:
        """Return a new value at the step at hand.

        Args:
            op: kind of operator.
            inputs: what it reads.
            tensors: the module's own tensors by role.
            attrs: attributes of the operator.
        """
        for item in inputs:
            self.tensor(item)
        weights = {role: tensor.detach() for role, tensor in (tensors or {}).items()}
        try:
            value = Value(op.of(**attrs), inputs, self._scope(), weights=weights or None)
        except OpError as problem:
            raise self.error(str(problem)) from None
        self._made += 1
        absent = [item in self._absent for item in inputs]
        if op is Zero or (inputs and all(absent)):
            self._absent.add(value)
        if any(absent) and op not in (Add, Concat):
            # NOTE: normalisation takes a layer of zeros for zeros; with trained biases it is not.
            raise self.error("reads constant zeros; those are understood in sums and cat alone")
        if tensors:
            self._tie(value, tensors)
        return value

    def module(self, node: fx.Node) -> nn.Module:
        """Return the module that a step calls."""
        return self._modules[str(node.target)]

    def owner(self, tensor: Tensor) -> Value | None:
        """Return the value that holds a tensor as a parameter, if one does."""
        return self._owners.get(id(tensor))

    def named(self, role: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a translator (or :meth:`make`) for one of several values that a step makes."""
        self._role = role
        try:
            if function == self.make:
                return function(*args, **options)
            return function(self, *args, **options)
        finally:
            self._role = ""

    def _scope(self) -> str:
        place = scope_of(self.node)
        if not self._role:
            return place
        outer = place if self.node.op == "call_module" else place.rpartition("/")[0]
        return f"{outer}/{self._role}" if outer else self._role

    def sizes(self, shape: Shape, *size: Any) -> Shape | None:
        """Return what a view of a tensor has as sizes, without the batch's; None if that changes.

        Args:
            shape: of the tensor, without the batch axis.
            size: as given to ``view``, in one tuple or several arguments; with one -1 perhaps.
        """
        batch, *rest = size[0] if size and isinstance(size[0], tuple | list) else size
        if not all(isinstance(item, int) for item in rest):
            return None
        elements = math.prod(shape)
        known = math.prod(item for item in rest if item != -1)
        free = rest.count(-1)
        if free == 1 and known and elements % known == 0:
            rest = [elements // known if item == -1 else item for item in rest]
        fits = math.prod(rest) == elements and (self.is_batch(batch) or (batch == -1 and not free))
        return tuple(rest) if fits and free <= 1 else None

    def is_batch(self, size: object) -> bool:
        """Tell whether a size is that of the batch axis."""
        return size is BATCH_SIZE or (self._batch is not None and size == self._batch)

    def tensor(self, x: object, *, channels: int = 0, features: int = 0) -> Value:
        """Check that an argument is a tensor of the network, and its first or last axis."""
        if not isinstance(x, Value):
            raise self.error(f"expected a tensor that depends on the input, got {x!r}")
        if (channels and x.shape[0] != channels) or (features and x.shape[-1] != features):
            raise self.error(f"was made for {channels or features} channels, got {x.shape}")
        return x

    def _tie(self, value: Value, tensors: dict[str, Tensor]) -> None:
        """Share parameters where a module, or another one that holds its tensors, came before."""
        partner = next((self._owners.get(id(tensor)) for tensor in tensors.values()), None)
        before = self._tensors[partner] if partner else {}
        taken = [id(tensor) in self._owners for tensor in tensors.values()]
        same = all(tensors[role] is before.get(role) for role in tensors)
        if any(taken) and not (same and before.keys() == tensors.keys()):
            raise self.error("shares some of its tensors, but not all, with another module")
        if partner is None:
            self._tensors[value] = tensors
            self._owners.update((id(tensor), value) for tensor in tensors.values())
            return
        try:
            share_parameters(value, partner)
        except ArchitectureError:
            now, then = value.inputs[0].shape, partner.inputs[0].shape
            raise self.error(
                f"is called twice, as {value.op} on {now} and as {partner.op} on {then}; "
                "parameters can be shared at one input shape only"
            ) from None

    def _looked_up(self, tree: Any) -> Any:
        def result(node: fx.Node) -> object:
            found = self._results[node]
            if isinstance(found, _Stale):
                raise self.error(f"reads {node.name!r}, whose memory {found.by} changed in place")
            return found

        return fx.node.map_arg(tree, result)  # type: ignore[arg-type]

    def _call(self, step: Step) -> None:
        args, kwargs = self._looked_up(step.args), dict(self._looked_up(step.kwargs))
        first = [kwargs.pop("input")] if "input" in kwargs else []  # torch's name for what is first
        unpacks = step.node.target is operator.getitem and isinstance(args[0], tuple)
        if not unpacks and any(isinstance(item, Partial) for item in leaves((args, kwargs, first))):
            self._follow(step, [*first, *args], kwargs)
            return
        translate, *leading = self._translation()
        leading += first
        try:
            bound = inspect.signature(translate).bind(self, *leading, *args, **kwargs)
            for name, argument in bound.arguments.items():
                if argument is WHILE_TRAINING and name != "training":
                    raise self.error(f"{name} differs between training and evaluation")
            result = translate(*bound.args, **bound.kwargs)
        except (TypeError, ValueError, IndexError) as problem:
            raise self.error(f"these arguments are not supported: {problem}") from problem
        self._results[step.node] = result
        if isinstance(result, Value):
            source = next(iter(step.node.all_input_nodes))
            if self._in_place(bound.arguments):
                self._overwrite(source, result)
                shared = True
            else:
                same = result is self._results[source] or isinstance(result.op, _VIEWS)
                shared = same and translate not in self._tables.copies
            self._memory[step.node] = group = self._memory[source] if shared else []
            group.append(step.node)

    def _follow(self, step: Step, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Have what is no value yet say what the step makes of it."""
        partial = next(item for item in leaves((args, kwargs)) if isinstance(item, Partial))
        try:
            result = partial.follow(self, step.node, args, kwargs)
        except (TypeError, ValueError, IndexError, KeyError) as problem:
            raise self.error(f"these arguments are not supported: {problem}") from problem
        self._results[step.node] = result
        if isinstance(result, Value):
            self._memory[step.node] = [step.node]

    def _translation(self) -> tuple[Any, ...]:
        """Return the translator of the step at hand, and the module that it takes, if any."""
        node = self.node
        if node.op == "call_module":
            module = self._modules[str(node.target)]
            translate = self._tables.translator_of(module)
            if translate is None:
                known = (name_of(key).rpartition(".")[2] for key in self._tables.modules)
                raise self.error(_unsupported("module", known))
            hooks = module._forward_hooks or module._forward_pre_hooks
            if hooks or "forward" in vars(module):
                raise self.error(
                    "its forward pass is changed by hooks (such as those of weight_norm and "
                    "pruning); remove them first"
                )
            return translate, module
        if node.op == "get_attr":
            raise self.error("uses a parameter or buffer directly; only layers may hold tensors")
        tables = self._tables
        table = tables.methods if node.op == "call_method" else tables.functions
        found = table.get(node.target)
        if found is None:
            kind = "method" if node.op == "call_method" else "function"
            raise self.error(_unsupported(kind, map(name_of, table)))
        return (found,)

    def _in_place(self, arguments: dict[str, Any]) -> bool:
        target = self.node.target
        if self.node.op == "call_module":
            return bool(getattr(self._modules[str(target)], "inplace", False))
        written = target in (operator.iadd, operator.imul) or name_of(target).endswith("_")
        return written or bool(arguments.get("inplace"))

    def _overwrite(self, source: fx.Node, result: Value) -> None:
        """Let all other names of the memory of ``source`` see an in-place result."""
        old = self._results[source]
        if not isinstance(old, Value) or old.shape != result.shape:
            raise self.error("an in-place operation cannot change the shape")
        for node in self._memory[source]:
            known = self._results[node] is old
            self._results[node] = result if known else _Stale(scope_of(self.node))


def leaves(tree: Any) -> Iterator[Any]:
    """Yield what lists, tuples and dictionaries hold, however deep."""
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from leaves(item)
    elif isinstance(tree, dict):
        yield from leaves(list(tree.values()))
    else:
        yield tree


def vars_of(op: Op) -> dict[str, Any]:
    """Return the attributes of an operator."""
    return {field.name: getattr(op, field.name) for field in fields(op)}


def _unsupported(kind: str, known: Iterable[str]) -> str:
    return f"this {kind} is not supported. Supported {kind}s: {', '.join(sorted(set(known)))}."
