"""Running the float32 products of any code in extended precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.extended_precision.functional import TORCH, implementation_of
from kernels.extended_precision.plan import pays
from kernels.extended_precision.routes import PRODUCTS

aten = torch.ops.aten
Result = torch.Tensor | tuple[torch.Tensor | None, ...]
Route = Callable[..., Result | None]


class ExtendedPrecision(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Has float32 matrix products and 1x1 convolutions run in extended precision.

    Within ``with ExtendedPrecision():`` whatever torch multiplies is routed, backward passes that
    run there included; there is no need to change the model. Other types, products in autocast,
    those that are estimated to be faster as they are, and operators that hide their products (fused
    attention) stay with torch. Where the chosen implementation is torch's own, on a CPU for one,
    nothing changes.

    Torch runs uncompiled within. For ``torch.compile``, change the model by
    ``to_extended_precision``.

    Args:
        always: route products however small they are.

    Attributes:
        routed: calls that were routed, by the operator's name.

    Example:
        >>> with ExtendedPrecision() as mode:
        ...     y = torch.randn(4, 8) @ torch.randn(8, 2)
        >>> y.shape, dict(mode.routed)
        (torch.Size([4, 2]), {})
    """

    def __init__(self, *, always: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.always = always
        self.routed: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operator of torch."""
        kwargs = kwargs or {}
        route = _ROUTES.get(func)
        if route is not None:
            result = route(self.always, *args, **kwargs)
            if result is not None:
                self.routed[str(func)] += 1
                return result
        elif _is_composite(func):  # in inference mode they come whole
            with self:
                return func.decompose(*args, **kwargs)
        return func(*args, **kwargs)


@cache
def _is_composite(func: Any) -> bool:
    return func.namespace == "aten" and bool(func._can_decompose())


def _product(
    always: bool,
    a: torch.Tensor,
    b: torch.Tensor,
    added: torch.Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> torch.Tensor | None:
    """Return a product in three dimensions, None where it is torch's."""
    operands = (a, b) if added is None else (a, b, added)
    if any(type(x) not in (torch.Tensor, torch.nn.Parameter) for x in operands):
        return None
    batch = max(a.shape[0], b.shape[0])
    if not (always or pays(batch, a.shape[1], a.shape[2], b.shape[2])):
        return None
    name = implementation_of(*operands)
    return None if name == TORCH else PRODUCTS[name](a, b, added, float(alpha), float(beta))


def _mm(always: bool, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor | None:
    product = _product(always, a[None], b[None])
    return None if product is None else product[0]


def _addmm(
    always: bool,
    added: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> torch.Tensor | None:
    product = _baddbmm(always, added, a[None], b[None], beta=beta, alpha=alpha)
    return None if product is None else product[0]


def _baddbmm(
    always: bool,
    added: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> torch.Tensor | None:
    added = added[(None,) * (3 - added.dim())]
    return _product(always, a, b, added if beta else None, alpha, beta)


def _is_pointwise(
    weight: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    transposed: bool,
    groups: int,
) -> bool:
    plain = weight.dim() == 4 and tuple(weight.shape[2:]) == (1, 1) and groups == 1
    return plain and not transposed and set(stride) == {1} and set(padding) == {0}


def _convolution(
    always: bool,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> torch.Tensor | None:
    if x.dim() != 4 or not _is_pointwise(weight, stride, padding, transposed, groups):
        return None
    matrix = weight[:, :, 0, 0]
    if _is_channels_last(x):
        added = None if bias is None else bias[None, None]
        y = _product(always, _pixels(x)[None], matrix.mT[None], added)
        return None if y is None else _images(y[0], x)
    added = None if bias is None else bias[None, :, None]
    y = _product(always, matrix[None], x.flatten(2), added)
    return None if y is None else y.view(x.shape[0], -1, *x.shape[2:])


def _convolution_backward(
    always: bool,
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, ...] | None:
    if x.dim() != 4 or not _is_pointwise(weight, stride, padding, transposed, groups):
        return None
    matrix = weight[:, :, 0, 0]
    dx: torch.Tensor | None
    dw: torch.Tensor | None
    if _is_channels_last(x):
        rows = _pixels(dy)
        dx = _product(always, rows[None], matrix[None])
        dx = None if dx is None else _images(dx[0], x)
        dw = _product(always, rows.mT[None], _pixels(x)[None])
    else:
        dx = _product(always, matrix.mT[None], dy.flatten(2))
        dx = None if dx is None else dx.view(x.shape)
        dw = _product(always, dy.flatten(2), x.flatten(2).mT)
    if dx is None or dw is None:
        return None
    found = (dx, dw.sum(0).view(weight.shape), dy.sum((0, 2, 3)))
    wanted = zip(found, output_mask, strict=True)
    return tuple(gradient if wants else None for gradient, wants in wanted)


def _is_channels_last(x: torch.Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _pixels(x: torch.Tensor) -> torch.Tensor:
    """Return images (b, c, h, w) as rows (b h w, c)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _images(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return rows (b h w, c) as channels-last images."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


_ROUTES: dict[Any, Route] = {
    aten.mm.default: _mm,
    aten.addmm.default: _addmm,
    aten.bmm.default: lambda always, a, b: _product(always, a, b),
    aten.baddbmm.default: _baddbmm,
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
}
