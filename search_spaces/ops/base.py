"""The one place that says what an operator is: attributes, shape, cost, reach, layer, export.

An operator is a frozen value. Each kind is one file in this folder and overrides the methods below;
everything else in the project (building, scoring, hashing, exporting) reads operators only through
them, so a new operator touches no other file.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from kernels.registry import Registry
from kernels.workload import Scalar
from search_spaces.errors import OpError
from search_spaces.ops.attributes import Json, checked, parse_token

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

Shape = tuple[int, ...]
"""A tensor's shape without the batch axis: (c, h, w), (tokens, features) or (features,)."""

SomeOp = TypeVar("SomeOp", bound="Op")


class Reach(NamedTuple):
    """What one operator adds to the receptive field.

    Attributes:
        span: growth of the field per axis in input pixels, ``dilation * (kernel - 1)``.
        stride: step per axis.
        channels: input channels that one output channel reads.
        taps: positions of a window, ``kernel height * kernel width``.
        weighted: whether the operator is a weight-carrying layer.
        everywhere: whether an output sees the whole map, as after global pooling or attention.
    """

    span: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (1, 1)
    channels: int = 1
    taps: int = 1
    weighted: bool = False
    everywhere: bool = False


class Part(NamedTuple):
    """One layer of an operator's module.

    Attributes:
        role: which weights it holds (``conv``, ``norm``, ...); names weights independently of
            their position in the module.
        source: the Python expression that makes it, with ``nn`` for ``torch.nn``.
        uses: names of layers outside torch that the expression needs.
    """

    role: str
    source: str
    uses: tuple[str, ...] = ()


class Facts(NamedTuple):
    """What an operator does at given input shapes; everything per sample.

    Attributes:
        shape: output shape.
        elements: output elements.
        read: input elements.
        params: trainable parameters.
        macs: multiply-accumulates of convolutions and matrix products; nothing else counts.
        reach: what it adds to the receptive field.
        identity: whether the output is always the (first) input.
        weights: elements of its parameters that a pass reads; fewer than it has where it looks up.
        cached: elements that a decoder keeps of it to go on behind these tokens (keys and values).
    """

    shape: Shape
    elements: int
    read: int
    params: int
    macs: int
    reach: Reach
    identity: bool
    weights: int
    cached: int


@dataclass(frozen=True)
class Op:
    """Base of all operators.

    Attributes:
        kind: name in text, JSON and the registry.
        commutative: whether the order of inputs is meaningless.
        plain: whether normalisation never rewrites it, whatever its neighbours.
        arity: number of inputs it takes, lowest and highest.
        placed: what a decoder hands to its layer beside the inputs, where its result for a token
            depends on those before: ``start`` (their number), ``cache`` (what is kept of them).
    """

    kind: ClassVar[str]
    commutative: ClassVar[bool] = False
    plain: ClassVar[bool] = False
    arity: ClassVar[tuple[int, int]] = (1, 1)
    placed: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            value = self.default(field) if value is None else value
            object.__setattr__(self, field.name, checked(field, value))
        for name, value in self.idle().items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "text", " ".join([self.kind, *self._tokens()]))
        object.__setattr__(self, "_facts", {})

    if TYPE_CHECKING:
        text: ClassVar[str]
        """The operator as one canonical piece of text: ``conv 16 k3 s2 bn relu``."""
        _facts: ClassVar[dict[tuple[Shape, ...], Facts]]

    def _tokens(self) -> list[str]:
        tokens = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != self.default(field):
                tokens.append(field.metadata["mark"] + field.metadata["codec"].encode(value))
        return tokens

    def default(self, field: dataclasses.Field[Any]) -> object:
        """Return what None stands for, and what the text form leaves out.

        It may depend on attributes declared before this one.
        """
        return field.default

    def idle(self) -> dict[str, object]:
        """Return the attributes that change nothing given the others, and how they are written."""
        return {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.of = lru_cache(maxsize=1 << 16, typed=True)(cls)  # type: ignore[method-assign]

    if TYPE_CHECKING:

        @classmethod
        def of(cls: type[SomeOp], *args: Any, **attrs: Any) -> SomeOp:
            """Make an operator, or return the one made before by the same call.

            Raises:
                OpError: an attribute is not valid.
            """
            ...

    def facts(self, inputs: tuple[Shape, ...]) -> Facts:
        """Return what the operator does at these input shapes; computed once per shape.

        Raises:
            OpError: it does not accept them.
        """
        found = self._facts.get(inputs)
        if found is None:
            least, most = self.arity
            if not least <= len(inputs) <= most:
                wanted = str(least) if least == most else f"{least} or more"
                raise OpError(f"{self.kind} takes {wanted} inputs, got {len(inputs)}")
            shape = self.infer(inputs)
            params = self.params(inputs)
            found = self._facts[inputs] = Facts(
                shape=shape,
                elements=_product(shape),
                read=sum(_product(item) for item in inputs),
                params=params,
                macs=self.macs(inputs, shape),
                reach=self.reach(inputs),
                identity=bool(inputs) and self.is_identity(inputs),
                weights=min(params, self.weights_read(inputs)) if params else 0,
                cached=self.cached(inputs),
            )
        return found

    # What a kind of operator says about itself.

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        """Return the output shape; raise :class:`OpError` where the inputs do not fit."""
        return inputs[0]

    def params(self, inputs: tuple[Shape, ...]) -> int:
        """Return the number of trainable parameters."""
        return 0

    def weights_read(self, inputs: tuple[Shape, ...]) -> int:
        """Return how many elements of the parameters one pass reads."""
        return self.params(inputs)

    def cached(self, inputs: tuple[Shape, ...]) -> int:
        """Return the elements that a decoder keeps, to add a token behind these."""
        return 0

    def shared(self, inputs: tuple[Shape, ...]) -> object:
        """Return what another operator must have too to use the same parameters."""
        return self.text, inputs

    def is_causal(self) -> bool:
        """Tell whether the result for a token depends on it and those before it alone."""
        return False

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        """Return the multiply-accumulates for one sample."""
        return 0

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        """Return what the operator adds to the receptive field."""
        return Reach()

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        """Return, per input, which of its channels (columns) each output channel (row) reads."""
        import numpy as np

        return tuple(np.eye(item[0], dtype=np.bool_) for item in inputs)

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        """Return the layers to construct, applied one after the other; none if it has none."""
        return ()

    def call(self, layer: str, args: tuple[str, ...]) -> str:
        """Return the Python expression of the output, given names of the layer and the inputs."""
        return f"{layer}({', '.join(args)})"

    def absorb(self, following: Op) -> Op | None:
        """Return the operator that does this and then ``following`` in one node, if any does."""
        return None

    def is_identity(self, inputs: tuple[Shape, ...]) -> bool:
        """Tell whether the output is always the (first) input."""
        return False

    def work(self) -> tuple[str, dict[str, Scalar]]:
        """Return the kernel operator that computes this, and its attributes.

        Normalisation and activation are no attributes of the work: they are fused behind it.
        """
        tail = ("norm", "act", "eps", "momentum")
        attrs = {name: value for name, value in self.to_json().items() if name not in tail}
        return self.kind, {
            name: "x".join(map(str, value)) if isinstance(value, list) else value
            for name, value in attrs.items()
        }

    def is_absent(self, absent: tuple[bool, ...]) -> bool:
        """Tell whether the output carries nothing, given which inputs (at least one) do not.

        Raises:
            OpError: the absent input would become a constant that lets the others through.
        """
        act = vars(self).get("act")
        if act in ("sigmoid", "hardsigmoid"):
            raise OpError(f"{act} of an absent value is a constant gate; leave the gate out")
        return any(absent)

    # Written forms.

    def to_json(self) -> dict[str, Json]:
        """Return all attributes, defaults included, so that a later default changes nothing."""
        return {
            field.name: (
                None
                if (value := getattr(self, field.name)) is None
                else field.metadata["codec"].to_json(value)
            )
            for field in dataclasses.fields(self)
        }

    def __str__(self) -> str:
        return self.text


OPS: Registry[type[Op]] = Registry("operator")


def register(cls: type[SomeOp]) -> type[SomeOp]:
    """Enrol a kind of operator under its ``kind``."""
    OPS.add(cls.kind, cls)
    return cls


def parse_op(text: str) -> Op:
    """Read the text form of an operator.

    Raises:
        OpError: an attribute cannot be read, is missing, given twice or not valid.
        UnknownNameError: there is no such operator.
    """
    kind, *tokens = text.split()
    cls = OPS.get(kind)
    fields = dataclasses.fields(cls)
    attrs: dict[str, object] = {}
    for token in tokens:
        name, value = parse_token(fields, token)
        if name in attrs:
            raise OpError(f"{kind}: {name} is given twice")
        attrs[name] = value
    return make_op(cls, attrs)


def make_op(cls: type[Op], attrs: dict[str, object]) -> Op:
    """Make an operator from attributes by name.

    Raises:
        OpError: an attribute is unknown, missing or not valid.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = attrs.keys() - fields.keys()
    missing = {n for n, f in fields.items() if f.default is dataclasses.MISSING} - attrs.keys()
    if unknown or missing:
        fault = f"no attribute {min(unknown)!r}" if unknown else f"needs {min(missing)!r}"
        raise OpError(f"{cls.kind} {'has ' if unknown else ''}{fault}")
    return cls.of(**{n: tuple(v) if isinstance(v, list) else v for n, v in attrs.items()})


def expression(function: str, *args: object, **options: tuple[object, object]) -> str:
    """Write a call; an option is given as (value, default) and left out where they are equal."""
    shown = [str(arg) for arg in args]
    shown += [f"{name}={value}" for name, (value, default) in options.items() if value != default]
    return f"{function}({', '.join(shown)})"


def short(pair: tuple[int, int]) -> int | tuple[int, int]:
    """Return one number for a pair of equal ones, as people write kernel sizes."""
    return pair[0] if pair[0] == pair[1] else pair


def _product(shape: Shape) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def image(inputs: tuple[Shape, ...], kind: str) -> tuple[int, int, int]:
    """Return (c, h, w) of the first input.

    Raises:
        OpError: it is not a feature map.
    """
    if len(inputs[0]) != 3:
        raise OpError(f"{kind} needs a feature map (c, h, w), got {inputs[0]}")
    c, h, w = inputs[0]
    return c, h, w


def sequence(inputs: tuple[Shape, ...], kind: str) -> tuple[int, int]:
    """Return (tokens, features) of the first input.

    Raises:
        OpError: it is no sequence.
    """
    if len(inputs[0]) != 2:
        raise OpError(f"{kind} needs a sequence (tokens, features), got {inputs[0]}")
    tokens, features = inputs[0]
    return tokens, features


def window_output(
    size: tuple[int, int],
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    ceil: bool = False,
) -> tuple[int, int]:
    """Return the (height, width) after a sliding window, by torch's rule.

    Raises:
        OpError: the window does not fit.
    """
    result = []
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        if room < 0:
            raise OpError(f"a window of {d * (k - 1) + 1} does not fit {n} pixels padded by {p}")
        steps = -(-room // s) if ceil else room // s
        if ceil and steps * s >= n + p:  # torch drops a window that starts in the padding
            steps -= 1
        result.append(steps + 1)
    return result[0], result[1]
