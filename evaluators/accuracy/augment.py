"""Augmentation of a whole batch at once, by an explicit generator.

Random figures are drawn on the CPU, so that one seed gives one training on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from kernels.registry import Registry

if TYPE_CHECKING:
    import torch

Apply: TypeAlias = "Callable[[torch.Tensor, float, torch.Tensor, torch.Generator], torch.Tensor]"


@dataclass(frozen=True, slots=True)
class Operation:
    """One way to alter a batch.

    Args:
        apply: ``(images (b, c, h, w), strength, black (c, 1, 1), CPU generator)`` to new images
            of the same shape; ``black`` is the value of an empty pixel.
        most: the largest strength that makes sense; the smallest is above 0.
        whole: whether the strength is a whole number.
    """

    apply: Apply
    most: float
    whole: bool = False

    def accepts(self, strength: float) -> bool:
        """Tell whether ``strength`` is in range; NaN is not."""
        return 0 < strength <= self.most and not (self.whole and strength != int(strength))


AUGMENTATIONS: Registry[Operation] = Registry("augmentation")


def augment(
    images: torch.Tensor,
    operations: Sequence[tuple[str, float]],
    *,
    black: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Apply named operations in order.

    Args:
        images: ``(b, c, h, w)``; left as it is.
        operations: names from ``AUGMENTATIONS`` with their strengths.
        black: ``(c, 1, 1)``, the value of an empty pixel, on the images' device.
        generator: on the CPU.

    Returns:
        ``(b, c, h, w)``.
    """
    for name, strength in operations:
        images = AUGMENTATIONS.get(name).apply(images, strength, black, generator)
    return images


def _shift(
    images: torch.Tensor, pixels: float, black: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Move each image by up to ``pixels`` both ways: a random crop after padding with black."""
    import torch

    b, _, h, w = images.shape
    reach = int(pixels)
    padded = torch.nn.functional.pad(images - black, (reach,) * 4) + black
    offsets = torch.randint(0, 2 * reach + 1, (2, b, 1), generator=generator)
    offsets = offsets.to(images.device)
    rows = offsets[0] + torch.arange(h, device=images.device)
    columns = offsets[1] + torch.arange(w, device=images.device)
    batch = torch.arange(b, device=images.device)[:, None, None]
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _flip(
    images: torch.Tensor, probability: float, black: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Mirror each image left to right with ``probability``."""
    import torch

    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < probability
    return torch.where(chosen.to(images.device), images.flip(-1), images)


def _cutout(
    images: torch.Tensor, side: float, black: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Grey out a square of ``side`` pixels in each image; its centre is any pixel of the image.

    Grey is the mean of the training images: 0, as images are normalised.
    """
    import torch

    b, _, h, w = images.shape
    hidden = []
    for length in (h, w):
        start = torch.randint(0, length, (b, 1), generator=generator) - int(side) // 2
        pixel = torch.arange(length)
        hidden.append((pixel >= start) & (pixel < start + int(side)))
    square = (hidden[0][:, :, None] & hidden[1][:, None, :])[:, None]
    return images.masked_fill(square.to(images.device), 0.0)


AUGMENTATIONS.add("shift", Operation(_shift, most=64, whole=True))
AUGMENTATIONS.add("flip", Operation(_flip, most=1.0))
AUGMENTATIONS.add("cutout", Operation(_cutout, most=64, whole=True))
