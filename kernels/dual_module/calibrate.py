"""Little modules fitted to a model's own inputs, and thresholds chosen on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from kernels.dual_module.base import DualModule
from kernels.dual_module.conv import DualModuleConv2d
from kernels.dual_module.linear import DualModuleLinear
from kernels.dual_module.regions import region_threshold
from kernels.errors import NasError

Run = Callable[[], object]
"""Puts data through a model; what it returns is not looked at."""

_SAMPLE = 1 << 14  # estimates of one call that a threshold is chosen on


def dual_layers(model: nn.Module) -> dict[str, DualModule]:
    """Return the dual layers of a model by name, in order."""
    return {name: item for name, item in model.named_modules() if isinstance(item, DualModule)}


@torch.no_grad()
def fit(model: nn.Module, run: Run) -> None:
    """Fit every little module of a model to the inputs that its layer sees, in place.

    Args:
        model: whose dual layers compute everything meanwhile.
        run: puts the calibration data through the model.

    Raises:
        NasError: a layer saw nothing, or something that is not finite.
    """
    layers = dual_layers(model)
    equations = {
        name: [e.equations() for e in layer.estimators()] for name, layer in layers.items()
    }
    with everything_computed(layers.values()):
        watch(layers, lambda name, given: layers[name].observe(equations[name], *given), run)
    for name, layer in layers.items():
        for estimator, found in zip(layer.estimators(), equations[name], strict=True):
            if not found.count:
                raise NasError(f"The layer {name!r} saw no input to be fitted to.")
            estimator.fit(found)


@torch.no_grad()
def set_ratio(
    model: nn.Module, ratio: float, run: Run, *, only: Iterable[DualModule] | None = None
) -> None:
    """Set switches' thresholds so that a share of the rows they see keeps the estimate.

    Args:
        model: with fitted little modules.
        ratio: from 0 to 1.
        run: puts the calibration data through the model.
        only: the layers to set; None sets all.
    """
    layers = list(dual_layers(model).values() if only is None else only)
    switches = {str(i): s for i, s in enumerate(s for layer in layers for s in layer.switches())}
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in switches}

    def take(name: str, given: tuple[torch.Tensor, ...]) -> None:
        seen[name].append(some_of(given[0], _SAMPLE))

    with everything_computed(layers):
        watch(switches, take, run)
    for name, switch in switches.items():
        if seen[name]:
            switch.set_ratio(torch.cat(seen[name]), ratio)


@torch.no_grad()
def set_tolerance(model: nn.Module, tolerance: float, run: Run) -> None:
    """Set the thresholds of linear layers and convolutions from one tolerance.

    The size of an error is its mean in calibration, layer by layer.

    Args:
        model: with fitted little modules.
        tolerance: change of an activation that is allowed, to first order.
        run: puts the calibration data through the model.
    """
    layers = estimating_layers(model)
    errors: dict[str, list[float]] = {name: [] for name in layers}

    def take(name: str, given: tuple[torch.Tensor, ...]) -> None:
        difference = layers[name].estimate(*given) - layers[name].big(*given)
        errors[name].append(float(difference.abs().mean()))

    with everything_computed(layers.values()):
        watch(layers, take, run)
    for name, layer in layers.items():
        delta = max(sum(errors[name]) / max(len(errors[name]), 1), 1e-12)
        for switch in layer.switches():
            switch.threshold.fill_(region_threshold(switch.activation, delta, tolerance))


@torch.no_grad()
def search_thresholds(
    model: nn.Module,
    score: Callable[[], float],
    run: Run,
    *,
    allowed: float,
    ratios: Sequence[float] = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
) -> dict[str, float]:
    """Give each layer the largest share it can keep while a score stays near the dense model's.

    Layers are tried one after the other, from the output backwards; each keeps the first share at
    which the whole model's score is low by no more than what is allowed.

    Args:
        model: with fitted little modules.
        score: of the model as it is, larger is better.
        run: puts the calibration data through the model.
        allowed: how much the score may fall.
        ratios: shares to try, the largest first.

    Returns:
        the share of each layer by name, 0 where none was good enough.
    """
    layers = dual_layers(model)
    for layer in layers.values():
        compute_everything(layer)
    dense = score()
    chosen = {}
    for name, layer in reversed(layers.items()):
        chosen[name] = 0.0
        for ratio in ratios:
            set_ratio(model, ratio, run, only=[layer])
            if score() >= dense - allowed:
                chosen[name] = ratio
                break
            compute_everything(layer)
    return dict(reversed(chosen.items()))


Estimating = DualModuleLinear | DualModuleConv2d


def estimating_layers(model: nn.Module) -> dict[str, Estimating]:
    """Return the dual layers that tell estimate and truth of an input: all but recurrent ones."""
    return {
        name: layer
        for name, layer in dual_layers(model).items()
        if isinstance(layer, DualModuleLinear | DualModuleConv2d)
    }


def compute_everything(layer: DualModule) -> None:
    """Set a layer's thresholds so that no row keeps its estimate."""
    for switch in layer.switches():
        switch.threshold.fill_(-torch.inf if switch.activation == "relu" else torch.inf)


def some_of(values: torch.Tensor, count: int) -> torch.Tensor:
    """Return values drawn from all of a tensor, with equal seeds the same; all where there are few.

    Steps of a fixed width would meet the same rows of every vector.
    """
    flat = values.flatten()
    if len(flat) <= count:
        return flat.clone()
    places = torch.randint(len(flat), (count,), generator=torch.Generator().manual_seed(len(flat)))
    return flat[places.to(flat.device)]


@contextmanager
def everything_computed(layers: Iterable[DualModule]) -> Iterator[None]:
    """Have layers compute all rows meanwhile, thresholds and counts kept."""
    switches = [switch for layer in layers for switch in layer.switches()]
    before = [(s.threshold.clone(), s.count, s.decided, s.kept) for s in switches]
    try:
        for switch in switches:
            switch.count = None
            switch.threshold.fill_(-torch.inf if switch.activation == "relu" else torch.inf)
        yield
    finally:
        for switch, (threshold, count, decided, kept) in zip(switches, before, strict=True):
            switch.threshold.copy_(threshold)
            switch.count, switch.decided, switch.kept = count, decided, kept


def watch(
    modules: Mapping[str, nn.Module],
    take: Callable[[str, tuple[torch.Tensor, ...]], None],
    run: Run,
) -> None:
    """Run something, and tell what each module is given."""

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _, given: take(name, given)

    handles = [item.register_forward_pre_hook(hook(name)) for name, item in modules.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
