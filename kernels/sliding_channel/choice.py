"""Which implementation runs a layer here, chosen once per device and input shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import cast

import torch

from kernels.device import detect
from kernels.environment import forced_kernel
from kernels.select import load, select
from kernels.sliding_channel.implementations import (
    OP,
    WHOLE_SHIFT,
    sliding_channel_workload,
)
from kernels.sliding_channel.plan import whole_shift
from kernels.sliding_channel.windows import Order, Rule

Product = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None],
    torch.Tensor,
]
Settings = tuple[int, int, int, str, Rule, Order]
"""Input and output channels, groups, overlap as text, rule and order of the windows."""


def product_for(x: torch.Tensor, settings: Settings) -> Product:
    """Return the function that runs a layer of these settings on an input like ``x``.

    Raises:
        NasError: the implementation that the environment forces cannot run.
    """
    forced = forced_kernel(OP)
    return chosen(settings, x.shape, element_type(x), layout_of(x), x.device, forced)[1]


def element_type(x: torch.Tensor) -> torch.dtype:
    """Return the type that a product with ``x`` is computed in: autocast's where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def layout_of(x: torch.Tensor) -> str:
    """Return how images lie in memory, by the names of ``Workload.layout``."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return "channels_last" if last else "contiguous"


@lru_cache(maxsize=4096)
def chosen(
    settings: Settings,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: str,
    device: torch.device,
    forced: str | None,
) -> tuple[str, Product]:
    """Return the name of the implementation that runs a layer, and its function."""
    channels, out_channels, cg, co, rule, order = settings
    workload = sliding_channel_workload(
        shape,
        out_channels,
        cg=cg,
        co=co,
        rule=rule,
        order=order,
        dtype=str(dtype).removeprefix("torch."),
        layout=layout,
    )
    implementation = select(workload, detect(str(device)), force=forced)
    shift = whole_shift(channels, cg, co, rule, order)
    product = cast("Product", load(implementation))
    return implementation.name, with_shift(implementation.name, product, shift)


def with_shift(name: str, product: Callable[..., torch.Tensor], shift: int | None) -> Product:
    """Spare the implementations that can be told the windows' shift a look at ``starts``."""
    return partial(product, shift=shift) if name in WHOLE_SHIFT else product
