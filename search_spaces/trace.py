"""Reads an ordinary ``nn.Module`` into an architecture, weights included.

torch.fx records the forward pass; each recorded step is translated by one entry of the tables at
the end of this file, or refused. Steps are read in the order they run, so that what an in-place
operation does to other names of the same memory is followed, where torch.fx alone would lose it.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product, zip_longest
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from kernels.errors import NasError
from kernels.sliding_channel.windows import Order, Rule, window_starts
from search_spaces.architecture import Architecture
from search_spaces.errors import ArchitectureError, OpError
from search_spaces.graph import Value, share_parameters
from search_spaces.ops import (
    Activation,
    AdaptivePool,
    Add,
    Attention,
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Input,
    Linear,
    MaxPool,
    Multiply,
    Norm,
    Op,
    Shape,
    SlidingChannel,
    Zero,
    layers,
)

_Translator = Callable[..., object]
_BATCH = object()  # the size of the batch axis
_WHILE_TRAINING = object()  # an argument that is True in training mode and False in evaluation


def trace(module: nn.Module, input_shape: Shape) -> Architecture:
    """Return the architecture of a module, with its weights.

    The module is called with one tensor (b, *input_shape); its other arguments need defaults. It is
    left as it is, and its weights are taken by reference, not copied. What cannot be translated
    exactly is refused, as is a forward pass that differs between training and evaluation in more
    than dropout.

    Args:
        module: the network, in any mode.
        input_shape: of one sample, without the batch axis.

    Raises:
        ArchitectureError: a step has no translation, or control flow depends on the data; names the
            module or function at fault.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        >>> trace(net, (1, 8, 8)).text
        'input 1x8x8; conv 4 k3 p0 bias bn relu; flatten'
    """
    network = _Network(module)
    output = _Reader(network, tuple(input_shape)).run(_record(network))
    architecture = Architecture.freeze(output)
    kept = {
        number: weights
        for number, weights in (architecture.weights or {}).items()
        if architecture.nodes[number].tie is None
    }
    return Architecture(architecture.nodes, architecture.regions, kept or None)


# Recording.


class _Network(nn.Module):
    """Calls the module as a user does: defaults are filled in, and it may itself be a leaf."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.module(x)
        return result


class _Proxy(fx.Proxy):
    """NOTE: torch.fx records ``x += y`` as a sum and so forgets that ``x`` has changed."""

    def __iadd__(self, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __imul__(self, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})


class _Tracer(fx.Tracer):
    """Stops at modules that have a translation; remembers where tracing failed."""

    failed = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _translator_of(m) is not None or super().is_leaf_module(m, module_qualified_name)

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


class _Step(NamedTuple):
    """A recorded call; arguments that follow the mode are replaced by ``_WHILE_TRAINING``."""

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _record(network: _Network) -> list[_Step]:
    modes = {module: module.training for module in network.modules()}
    graphs = []
    tracer = _Tracer()
    try:
        for mode in (True, False):
            for module in modes:
                module.training = mode
            tracer = _Tracer()
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


def _step(first: fx.Node | None, second: fx.Node | None) -> _Step:
    """Join the records of one step in training and in evaluation."""
    if first and second and (first.op, first.target) == (second.op, second.target):
        try:
            kwargs = _joined(dict(first.kwargs), dict(second.kwargs))
            return _Step(first, _joined(first.args, second.args), kwargs)
        except _DiffersError:
            pass
    node = first or second
    assert node is not None
    raise ArchitectureError(
        f"{_scope(node) or 'network'} (node {node.name!r}): the forward pass differs between "
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
        return _WHILE_TRAINING
    # Slices of nodes compare by identity, hence the names.
    if type(a) is not type(b) or (a != b and str(a) != str(b)):
        raise _DiffersError
    return a


def _slashed(path: str) -> str:
    return path.removeprefix("module").lstrip(".").replace(".", "/")


def _scope(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    path = _slashed(list(stack.values())[-1][0]) if stack else ""
    if node.op == "call_module":
        return _slashed(str(node.target))
    name = "input" if node.op == "placeholder" else _name(node.target)
    name = name[1:] if name in ("iadd", "imul") else name
    return f"{path}/{name}" if path else name


# Translating.


class _Stale(NamedTuple):
    """What stands for a tensor whose memory an in-place operation has changed."""

    by: str


class _Reader:
    """Translates recorded steps one after the other.

    Attributes:
        node: the step at hand.
        sums: steps that made a sum in memory of its own.
    """

    def __init__(self, network: _Network, input_shape: Shape) -> None:
        self._modules = dict(network.named_modules())
        self._input_shape = input_shape
        self._results: dict[fx.Node, object] = {}
        self._memory: dict[fx.Node, list[fx.Node]] = {}
        self._owners: dict[int, Value] = {}
        self._tensors: dict[Value, dict[str, Tensor]] = {}
        self._absent: set[Value] = set()
        self.node: fx.Node
        self.sums: set[fx.Node] = set()

    def run(self, steps: Sequence[_Step]) -> Value:
        """Return the output."""
        for step in steps:
            self.node = step.node
            if step.node.op == "placeholder":
                self._results[step.node] = self.make(Input, shape=self._input_shape)
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
        return ArchitectureError(f"{_scope(node) or 'network'} ({what}): {problem}")

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
            value = Value(op.of(**attrs), inputs, _scope(self.node), weights=weights or None)
        except OpError as problem:
            raise self.error(str(problem)) from None
        absent = [item in self._absent for item in inputs]
        if op is Zero or (inputs and all(absent)):
            self._absent.add(value)
        if any(absent) and op not in (Add, Concat):
            # NOTE: normalisation takes a layer of zeros for zeros; with trained biases it is not.
            raise self.error("reads constant zeros; those are understood in sums and cat alone")
        if tensors:
            self._tie(value, tensors)
        return value

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

    def _call(self, step: _Step) -> None:
        translate, *leading = self._translation()
        args, kwargs = self._looked_up(step.args), self._looked_up(step.kwargs)
        if "input" in kwargs:  # torch's name for what comes first
            leading.append(kwargs.pop("input"))
        try:
            bound = inspect.signature(translate).bind(self, *leading, *args, **kwargs)
            for name, argument in bound.arguments.items():
                if argument is _WHILE_TRAINING and name != "training":
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
                shared = same and translate not in _COPIES
            self._memory[step.node] = group = self._memory[source] if shared else []
            group.append(step.node)

    def _translation(self) -> tuple[Any, ...]:
        """Return the translator of the step at hand, and the module that it takes, if any."""
        node = self.node
        if node.op == "call_module":
            module = self._modules[str(node.target)]
            translate = _translator_of(module)
            if translate is None:
                known = (_name(key).rpartition(".")[2] for key in _MODULES)
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
        table = _METHODS if node.op == "call_method" else _FUNCTIONS
        found = table.get(node.target)
        if found is None:
            kind = "method" if node.op == "call_method" else "function"
            raise self.error(_unsupported(kind, map(_name, table)))
        return (found,)

    def _in_place(self, arguments: dict[str, Any]) -> bool:
        target = self.node.target
        if self.node.op == "call_module":
            return bool(getattr(self._modules[str(target)], "inplace", False))
        written = target in (operator.iadd, operator.imul) or _name(target).endswith("_")
        return written or bool(arguments.get("inplace"))

    def _overwrite(self, source: fx.Node, result: Value) -> None:
        """Let all other names of the memory of ``source`` see an in-place result."""
        old = self._results[source]
        if not isinstance(old, Value) or old.shape != result.shape:
            raise self.error("an in-place operation cannot change the shape")
        for node in self._memory[source]:
            known = self._results[node] is old
            self._results[node] = result if known else _Stale(_scope(self.node))


def _name(target: object) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def _unsupported(kind: str, known: Any) -> str:
    return f"this {kind} is not supported. Supported {kind}s: {', '.join(sorted(set(known)))}."


# Layers: translators take the reader, the module and its inputs.


def _pair(size: Any) -> tuple[Any, ...]:
    values = tuple(size) if isinstance(size, tuple | list) else (size,)
    return values * 2 if len(values) == 1 else values


def _held(module: nn.Module, role: str, *names: str) -> dict[str, Tensor]:
    """Return the tensors of a module by role; absent ones are left out."""
    found = {f"{role}.{name}": getattr(module, name) for name in names}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _conv(reader: _Reader, module: nn.Conv2d, x: Value) -> Value:
    reader.tensor(x, channels=module.in_channels)
    padding = module.padding
    if module.padding_mode != "zeros":
        raise reader.error(f"padding_mode {module.padding_mode!r} is not supported; use 'zeros'")
    if isinstance(padding, str):
        total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        total = [0, 0] if padding == "valid" else total
        if any(item % 2 for item in total):
            raise reader.error("padding 'same' of an even kernel pads unevenly; not supported")
        padding = (total[0] // 2, total[1] // 2)
    return reader.make(
        Conv,
        x,
        tensors=_held(module, "conv", "weight", "bias"),
        out_channels=module.out_channels,
        kernel=module.kernel_size,
        stride=module.stride,
        padding=padding,
        dilation=module.dilation,
        groups=module.groups,
        bias=module.bias is not None,
    )


def _linear(reader: _Reader, module: nn.Linear, x: Value) -> Value:
    reader.tensor(x, features=module.in_features)
    held = _held(module, "linear", "weight", "bias")
    no_bias = module.bias is None
    return reader.make(Linear, x, tensors=held, out_features=module.out_features, no_bias=no_bias)


def _batch_norm(reader: _Reader, module: nn.BatchNorm2d, x: Value) -> Value:
    reader.tensor(x, channels=module.num_features)
    if not (module.affine and module.track_running_stats) or module.momentum is None:
        raise reader.error(
            "batch norm needs affine=True, track_running_stats=True and a momentum, got "
            f"{module.affine}, {module.track_running_stats} and {module.momentum}"
        )
    stats = ("running_mean", "running_var", "num_batches_tracked")
    held = _held(module, "norm", "weight", "bias", *stats)
    return reader.make(Norm, x, tensors=held, norm="bn", eps=module.eps, momentum=module.momentum)


def _layer_norm(reader: _Reader, module: nn.LayerNorm, x: Value) -> Value:
    held = _held(module, "norm", "weight", "bias")
    if len(module.normalized_shape) != 1 or len(held) != 2:
        raise reader.error("layer norm needs one normalised axis, a weight and a bias")
    reader.tensor(x, features=module.normalized_shape[0])
    return reader.make(Norm, x, tensors=held, norm="ln", eps=module.eps)


def _sliding(reader: _Reader, module: Any, x: Value) -> Value:
    channels = reader.tensor(x).shape[0]
    settings = {name: getattr(module, name, None) for name in ("cg", "co", "rule", "order")}
    if settings["cg"] is None:  # the plain form keeps the windows alone
        settings = _settings(reader, module, channels)
    reader.tensor(x, channels=settings["cg"] * module.weight.shape[1])
    return reader.make(
        SlidingChannel,
        x,
        tensors=_held(module, "conv", "weight", "bias"),
        out_channels=module.weight.shape[0],
        bias=module.bias is not None,
        **{**settings, "co": Fraction(str(settings["co"]))},
    )


def _settings(reader: _Reader, module: Any, channels: int) -> dict[str, Any]:
    """Return the simplest settings that give the windows of a sliding-channel convolution."""
    out, width = module.weight.shape
    cg, starts = max(1, channels // width), module.starts.tolist()
    overlaps = {Fraction(n, d) for d in (width, 100) for n in range(d)}
    simplest = sorted(overlaps, key=lambda co: (co.denominator, co))
    for order, rule, co in product(get_args(Order), get_args(Rule), simplest):
        try:
            found = window_starts(channels, out, cg, co, rule, order)
        except NasError:
            continue
        if list(found) == starts:
            return {"cg": cg, "co": co, "rule": rule, "order": order}
    raise reader.error("its windows are those of no setting of cg, co, rule and order")


def _attention(reader: _Reader, module: layers.Attention, *inputs: Value) -> Value:
    grouped = 0 if module.kv_heads == module.heads else module.kv_heads
    return reader.make(
        Attention, *inputs, heads=module.heads, kv_heads=grouped, causal=module.causal
    )


def _stochastic_depth(reader: _Reader, module: Any, x: Value) -> Value:
    if getattr(module, "mode", "row") != "row" and module.p:
        raise reader.error(f"mode {module.mode!r} is not supported; use 'row'")
    return reader.make(Dropout, x, p=module.p, path=True)


# Functions and methods: translators take the reader and torch's arguments by torch's names.


def _act(act: str) -> _Translator:
    def translate(reader: _Reader, x: Value, inplace: object = False) -> Value:
        return reader.make(Activation, x, act=act)

    return translate


def _act_layer(act: str) -> _Translator:
    return lambda reader, module, x: reader.make(Activation, x, act=act)


def _gelu(reader: _Reader, x: Value, approximate: str = "none") -> Value:
    if approximate != "none":
        raise reader.error(f"GELU with approximate={approximate!r} is not supported; use 'none'")
    return reader.make(Activation, x, act="gelu")


def _dropout(
    reader: _Reader, x: Value, p: float = 0.5, training: object = True, inplace: object = False
) -> Value:
    if training is True and p:
        raise reader.error("drops in evaluation too; pass training=self.training")
    return x if training is False else reader.make(Dropout, x, p=p)


def _max_pool(
    reader: _Reader,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: object = False,
    return_indices: object = False,
) -> Value:
    if _pair(dilation) != (1, 1) or return_indices:
        raise reader.error("max pooling with dilation or return_indices is not supported")
    kernel = _pair(kernel_size)
    return reader.make(
        MaxPool,
        x,
        kernel=kernel,
        stride=_pair(stride or kernel),
        padding=_pair(padding),
        ceil=ceil_mode,
    )


def _avg_pool(
    reader: _Reader,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: object = False,
    count_include_pad: object = True,
    divisor_override: object = None,
) -> Value:
    if divisor_override is not None:
        raise reader.error("average pooling with divisor_override is not supported")
    kernel, edge = _pair(kernel_size), _pair(padding)
    counted = bool(count_include_pad) and edge != (0, 0)
    return reader.make(
        AvgPool,
        x,
        kernel=kernel,
        stride=_pair(stride or kernel),
        padding=edge,
        ceil=ceil_mode,
        count_padding=counted,
    )


def _adaptive_pool(reader: _Reader, x: Value, output_size: Any) -> Value:
    shape = reader.tensor(x).shape
    size = zip(_pair(output_size), shape[1:], strict=False)
    return reader.make(AdaptivePool, x, size=tuple(n if k is None else k for k, n in size))


def _mean(reader: _Reader, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    axes = len(reader.tensor(x).shape) + 1
    dims = dim if isinstance(dim, tuple | list) else [dim]
    if axes != 4 or {item % axes if isinstance(item, int) else item for item in dims} != {2, 3}:
        raise reader.error(f"only means over both axes of a feature map, [2, 3]; got {dim}")
    pooled = reader.make(AdaptivePool, x)
    return pooled if keepdim else reader.make(Flatten, pooled)


def _flatten(reader: _Reader, x: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    axes = len(reader.tensor(x).shape) + 1
    if (start_dim % axes, end_dim % axes) != (1, axes - 1):
        raise reader.error(f"only axes 1 to {axes - 1} as one; got {start_dim} to {end_dim}")
    return reader.make(Flatten, x)


def _view(reader: _Reader, x: Value, *size: Any) -> Value:
    """Translate a view that flattens, ``x.view(x.size(0), -1)``, or changes nothing."""
    own = reader.tensor(x).shape
    elements = math.prod(own)
    batch, *rest = size[0] if size and isinstance(size[0], tuple | list) else size
    known = [item for item in rest if isinstance(item, int) and item > 0]
    free = len(rest) - len(known)
    fits = free == 0 or (free == 1 and -1 in rest and batch is _BATCH)
    if (batch is _BATCH or batch == -1) and fits and elements % math.prod(known) == 0:
        shape = tuple(elements // math.prod(known) if item == -1 else item for item in rest)
        if shape in (own, (elements,)):
            return x if shape == own else reader.make(Flatten, x)
    raise reader.error("only views that flatten all axes but the batch, as view(x.size(0), -1)")


def _add(reader: _Reader, first: Any, other: Any, *, alpha: object = 1) -> object:
    if isinstance(first, int) and isinstance(other, int):
        return first + other
    if alpha != 1:
        raise reader.error("a sum with alpha is not supported")
    for number, value in ((first, other), (other, first)):
        if isinstance(number, int) and number == 0:  # how ``sum`` begins
            return reader.tensor(value)
    inner = reader.node.args[0]
    in_place = reader.node.target is operator.iadd or _name(reader.node.target).endswith("_")
    # ``a + b + c`` is one sum, as it is written; a sum that is a variable stands for itself.
    joins = inner in reader.sums and inner is reader.node.prev and first is not other
    terms = first.inputs if joins and len(reader.node.prev.users) == 1 else (first,)
    if not in_place:
        reader.sums.add(reader.node)
    return reader.make(Add, *terms, other)


def _multiply(reader: _Reader, first: Any, other: Any) -> object:
    if isinstance(first, int) and isinstance(other, int):
        return first * other
    return reader.make(Multiply, first, other)


def _arithmetic(function: Callable[[Any, Any], Any]) -> _Translator:
    def translate(reader: _Reader, first: Any, other: Any) -> object:
        if isinstance(first, int) and isinstance(other, int):
            return function(first, other)
        raise reader.error("is understood for sizes only, not for tensors")

    return translate


def _cat(reader: _Reader, tensors: Any, dim: int = 0) -> Value:
    axes = len(reader.tensor(tensors[0]).shape) + 1
    if dim % axes != 1:
        raise reader.error(f"only cat along channels, dim=1; got {dim}")
    return reader.make(Concat, *tensors)


def _zeros(reader: _Reader, like: Value, *size: Any) -> Value:
    batch, *shape = size[0] if isinstance(size[0], tuple | list) else size
    if batch is not _BATCH:
        raise reader.error("only zeros of the batch's size, x.new_zeros((x.shape[0], ...))")
    return reader.make(Zero, shape=tuple(shape))


def _size(reader: _Reader, x: Value, dim: int | None = None) -> object:
    shape = (_BATCH, *reader.tensor(x).shape)
    return shape if dim is None else shape[dim]


def _axes(reader: _Reader, x: Value) -> int:
    return len(reader.tensor(x).shape) + 1


def _attribute(reader: _Reader, x: Value, name: str) -> object:
    if name not in ("shape", "ndim"):
        raise reader.error(f"the attribute {name!r} of a tensor is not supported; shape, ndim are")
    return _size(reader, x) if name == "shape" else _axes(reader, x)


def _item(reader: _Reader, x: Any, index: Any) -> object:
    if not isinstance(x, tuple) or not isinstance(index, int | slice):
        raise reader.error("indexing is understood for shapes only, not for tensors")
    return x[index]


def _same(reader: _Reader, x: Value) -> Value:
    return reader.tensor(x)


def _clone(reader: _Reader, x: Value) -> Value:
    return reader.tensor(x)


_VIEWS = (Flatten, Dropout, ChannelShuffle)
"""Operators whose result may stand in the memory of their input."""
_COPIES: tuple[_Translator, ...] = (_clone, _add, _mean)
"""Translators whose result never does."""

_HARMLESS = {
    *("__init__", "__repr__", "extra_repr", "reset_parameters"),
    *("__module__", "__doc__", "__qualname__", "__annotations__", "__annotate__"),
    *("__constants__", "__static_attributes__", "__firstlineno__"),
}
"""What a subclass of a layer may define and still be that layer."""

_MODULES: dict[type[nn.Module] | str, _Translator] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.ReLU: _act_layer("relu"),
    nn.ReLU6: _act_layer("relu6"),
    nn.Hardswish: _act_layer("hardswish"),
    nn.Hardsigmoid: _act_layer("hardsigmoid"),
    nn.SiLU: _act_layer("silu"),
    nn.Sigmoid: _act_layer("sigmoid"),
    nn.Tanh: _act_layer("tanh"),
    nn.GELU: lambda reader, module, x: _gelu(reader, x, module.approximate),
    nn.MaxPool2d: lambda reader, m, x: _max_pool(
        reader, x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool2d: lambda reader, m, x: _avg_pool(
        reader,
        x,
        m.kernel_size,
        m.stride,
        m.padding,
        m.ceil_mode,
        m.count_include_pad,
        m.divisor_override,
    ),
    nn.AdaptiveAvgPool2d: lambda reader, m, x: _adaptive_pool(reader, x, m.output_size),
    nn.Dropout: lambda reader, module, x: reader.make(Dropout, x, p=module.p),
    nn.Identity: lambda reader, _, x: reader.tensor(x),
    nn.Flatten: lambda reader, module, x: _flatten(reader, x, module.start_dim, module.end_dim),
    nn.ChannelShuffle: lambda reader, module, x: reader.make(
        ChannelShuffle, x, groups=module.groups
    ),
    layers.Attention: _attention,
    layers.StochasticDepth: _stochastic_depth,
    "torchvision.ops.stochastic_depth.StochasticDepth": _stochastic_depth,
    "kernels.sliding_channel.module.SlidingChannelConv2d": _sliding,
    "kernels.sliding_channel.plain.SlidingChannelConv2d": _sliding,
}
"""By class, or by the name of one that is not imported here."""

_ACTS = ("relu", "relu6", "hardswish", "hardsigmoid", "silu", "sigmoid", "tanh")
_ACT_FUNCTIONS: dict[Any, _Translator] = {
    getattr(home, name + end): _act(name)
    for home in (F, torch)
    for name in _ACTS
    for end in ("", "_")
    if hasattr(home, name + end)
}

_FUNCTIONS: dict[Any, _Translator] = {
    **_ACT_FUNCTIONS,
    F.gelu: _gelu,
    F.dropout: _dropout,
    F.max_pool2d: _max_pool,
    F.avg_pool2d: _avg_pool,
    F.adaptive_avg_pool2d: _adaptive_pool,
    F.channel_shuffle: lambda reader, x, groups: reader.make(ChannelShuffle, x, groups=groups),
    torch.max_pool2d: _max_pool,
    torch.mean: _mean,
    torch.flatten: _flatten,
    torch.reshape: _view,
    torch.add: _add,
    torch.mul: _multiply,
    torch.multiply: _multiply,
    torch.cat: _cat,
    torch.concat: _cat,
    torch.concatenate: _cat,
    torch.clone: _clone,
    torch.zeros_like: lambda reader, x: reader.make(Zero, shape=reader.tensor(x).shape),
    operator.add: _add,
    operator.iadd: _add,
    operator.mul: _multiply,
    operator.imul: _multiply,
    operator.sub: _arithmetic(operator.sub),
    operator.floordiv: _arithmetic(operator.floordiv),
    operator.getitem: _item,
    getattr: _attribute,
}

_METHODS: dict[Any, _Translator] = {
    **{f"{name}{end}": _act(name) for name in ("relu", "sigmoid", "tanh") for end in ("", "_")},
    "mean": _mean,
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
    "add": _add,
    "add_": _add,
    "mul": _multiply,
    "mul_": _multiply,
    "contiguous": _same,
    "clone": _clone,
    "new_zeros": _zeros,
    "size": _size,
    "dim": _axes,
}


def _translator_of(module: nn.Module) -> _Translator | None:
    """Return the translator of a layer, also of a subclass that computes the same."""
    for cls in type(module).__mro__:
        found = _MODULES.get(cls) or _MODULES.get(f"{cls.__module__}.{cls.__qualname__}")
        if found is not None:
            return found
        if not vars(cls).keys() <= _HARMLESS:
            break
    return None
