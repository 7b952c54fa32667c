"""Training with weights that stay on Shfl-BW masks: ordinary layers, some weights held at zero.

The model stays as it is: its parameters keep their names, so state dicts, optimisers, exports and
DistributedDataParallel see ordinary dense weights with zeros. Gradients of pruned weights are set
to zero before an optimiser reads them, and weights after it stepped: neither momentum nor decay
nor noise brings them back.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from kernels.errors import NasError
from kernels.shfl_bw.module import ShflBWConv2d, ShflBWLinear
from kernels.shfl_bw.pattern import Pattern, as_matrix, like_weight, refuses_mask
from kernels.shfl_bw.prune import prune


@dataclass(frozen=True, slots=True)
class Sparsity:
    """How a layer is to be pruned.

    Attributes:
        v: rows of a vector.
        density: share of the vectors that is kept.
    """

    v: int
    density: float


def prunable(model: nn.Module, v: int, density: float) -> dict[str, Sparsity]:
    """Return one sparsity for each fully connected layer and convolution of two groups or more.

    Args:
        model: whose layers; grouped convolutions are left out.
        v: rows of a vector.
        density: share of the vectors that is kept.
    """
    return {
        name: Sparsity(v, density)
        for name, layer in model.named_modules()
        if _refuses(layer) is None and len(_weight(layer)) >= 2 * v
    }


class SparseTraining:
    """Holds layers of a model on Shfl-BW masks while it is trained.

    Args:
        model: to be trained; its layers are not replaced.
        layers: name of a layer to its sparsity, as :func:`prunable` makes.
        grouping: see :func:`kernels.shfl_bw.prune.prune`.

    Raises:
        NasError: a layer does not exist, is of another kind, or shares its weight with another.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        >>> optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> sparse = SparseTraining(model, {"0": Sparsity(32, 0.25)})
        >>> sparse.attach(optimiser)
        >>> sparse.prune()
        >>> model(torch.randn(8, 64)).sum().backward()
        >>> optimiser.step()
        >>> round(float((model[0].weight != 0).float().mean()), 2)
        0.25
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, Sparsity],
        *,
        grouping: str = "exchange",
    ) -> None:
        known = dict(model.named_modules())
        for name in layers:
            if name not in known:
                raise NasError(f"The model has no layer {name!r}; it has {', '.join(known)}.")
            reason = _refuses(known[name])
            if reason is not None:
                raise NasError(f"The layer {name!r} cannot be pruned: {reason}.")
        self.layers = dict(layers)
        self.patterns: dict[str, Pattern] = {}
        self._grouping = grouping
        self._weights = {name: _weight(known[name]) for name in layers}
        if len({id(weight) for weight in self._weights.values()}) < len(layers):
            raise NasError("Two of the layers share one weight; name one of them.")
        self._masks: dict[str, torch.Tensor] = {}
        for name, weight in self._weights.items():
            if weight.requires_grad:
                weight.register_hook(partial(self._masked, name))  # type: ignore[no-untyped-call]

    def attach(self, optimiser: torch.optim.Optimizer) -> None:
        """Have an optimiser put pruned weights back to zero after each of its steps."""
        optimiser.register_step_post_hook(lambda *_: self.apply())

    def prune(self, density: float | None = None, *, names: Iterable[str] | None = None) -> None:
        """Choose groups and vectors anew from the weights as they are, and hold to them from now.

        Where processes train together, the first one's choice counts.

        Args:
            density: for all of them; None takes each layer's own.
            names: of layers; None takes all.
        """
        for name in self.layers if names is None else names:
            sparsity, weight = self.layers[name], self._weights[name]
            share = sparsity.density if density is None else density
            pattern = prune(weight, sparsity.v, share, grouping=self._grouping)
            self._hold(name, _agreed(pattern, weight.device))
        self.apply()

    def release(self, names: Iterable[str]) -> None:
        """Let layers grow dense: their pruned weights start again from zero."""
        for name in names:
            self.patterns.pop(name, None)
            self._masks.pop(name, None)

    @torch.no_grad()
    def apply(self) -> None:
        """Set pruned weights to zero."""
        for name, mask in self._masks.items():
            self._weights[name].mul_(self._on_device(name, mask))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return masks and orders of all pruned layers, to go on with later."""
        state = {}
        for name, pattern in self.patterns.items():
            state[f"{name}.mask"], state[f"{name}.order"] = pattern.mask, pattern.order
        return state

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Hold to the masks of a state that :meth:`state_dict` returned; layers without are dense.

        Raises:
            NasError: a mask is of another layer or has no Shfl-BW pattern.
        """
        names = {key.rpartition(".")[0] for key in state}
        for name in names:
            if name not in self.layers:
                raise NasError(f"The state holds a mask of {name!r}, which is not pruned here.")
            mask, order = state[f"{name}.mask"], state[f"{name}.order"]
            v = self.layers[name].v
            if mask.shape != as_matrix(self._weights[name]).shape:
                raise NasError(f"The mask of {name!r} is of another shape: {tuple(mask.shape)}.")
            reason = refuses_mask(mask, v)
            if reason is not None:
                raise NasError(f"The mask of {name!r} is not Shfl-BW: {reason}.")
            self._hold(name, Pattern(mask, order, v))
        self.release(self.layers.keys() - names)
        self.apply()

    def _hold(self, name: str, pattern: Pattern) -> None:
        self.patterns[name] = pattern
        self._masks[name] = like_weight(pattern.mask, self._weights[name].shape)

    def _masked(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        mask = self._masks.get(name)
        return gradient if mask is None else gradient * self._on_device(name, mask)

    def _on_device(self, name: str, mask: torch.Tensor) -> torch.Tensor:
        """Return a mask where its weight is: a model may be moved."""
        device = self._weights[name].device
        if mask.device != device:
            mask = self._masks[name] = mask.to(device)
        return mask


def packed_model(model: nn.Module, patterns: Mapping[str, Pattern]) -> nn.Module:
    """Return a copy of a model in which pruned layers run packed.

    Args:
        model: trained; left unchanged.
        patterns: of its layers by name, as :class:`SparseTraining` has them.

    Raises:
        NasError: a layer's convolution pads with something but zeros.
    """
    packed = copy.deepcopy(model)
    for name, pattern in patterns.items():
        layer = model.get_submodule(name)
        made = _packed_layer(layer, pattern)
        if not name:
            return made.train(model.training)
        parent, _, last = name.rpartition(".")
        setattr(packed.get_submodule(parent), last, made.train(layer.training))
    return packed


def _packed_layer(layer: nn.Module, pattern: Pattern) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return ShflBWLinear.from_dense(layer.weight, pattern, layer.bias)
    assert isinstance(layer, nn.Conv2d)
    return ShflBWConv2d.from_dense(
        layer.weight,
        pattern,
        layer.bias,
        stride=_two(layer.stride),
        padding=_two(layer.padding),
        dilation=_two(layer.dilation),
    )


def _two(sizes: str | tuple[int, ...]) -> tuple[int, int]:
    assert not isinstance(sizes, str)
    return sizes[0], sizes[1]


def _refuses(layer: nn.Module) -> str | None:
    if isinstance(layer, nn.Linear):
        return None
    if not isinstance(layer, nn.Conv2d):
        return f"only fully connected layers and convolutions are, not {type(layer).__name__}"
    if layer.groups != 1:
        return f"its convolution has {layer.groups} groups"
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return "its padding must be zeros, given in numbers"
    return None


def _weight(layer: nn.Module) -> nn.Parameter:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def _agreed(pattern: Pattern, device: torch.device) -> Pattern:
    """Return the first process's pattern in all that train together."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return pattern
    mask = pattern.mask.to(device, torch.uint8)
    order = pattern.order.to(device)
    distributed.broadcast(mask, 0)
    distributed.broadcast(order, 0)
    return Pattern(mask.bool(), order, pattern.v)
