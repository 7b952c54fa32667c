"""He et al.'s network for CIFAR-10 most of whose convolutions have a little module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from kernels.dual_module.conv import DualModuleConv2d, fold_batch_norm
from kernels.dual_module.little import Estimator
from kernels.dual_module.projection import unpack_signs

_PACE = 0.5  # at which thresholds follow shares, in standard deviations of the estimates


class DualConv(nn.Module):
    """A convolution, batch norm and ReLU whose outputs are computed where an estimate says so.

    The little module is not trained: it is fitted anew by least squares while the layer changes.
    Trained with the layer, at a rate that suits the layer, it diverges. Where an output keeps its
    estimate, the gradient goes on to the layer's input and to what is added.

    Buffer ``threshold`` follows the share of outputs that is to be kept while it is trained.
    """

    kernel: torch.Tensor
    offset: torch.Tensor
    threshold: torch.Tensor
    share: torch.Tensor

    def __init__(self, before: int, width: int, stride: int, bits: int, part: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.bits, self.projected = bits, max(2, before // part)
        self.register_buffer("kernel", torch.zeros(width, before, 3, 3))
        self.register_buffer("offset", torch.zeros(width))
        self.register_buffer("threshold", torch.tensor(-torch.inf))
        self.register_buffer("share", torch.zeros(()))  # of the outputs that keep the estimate
        self.begin = self.goal = 0.0  # of the share, when training begins and when it ends
        self.macs = 0  # of the convolution, for one image
        self.fitted: Estimator | None = None

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        """Map x (b, before, h, w), and what is added, to (b, width, h', w')."""
        y = self.norm(self.conv(x))
        if skip is not None:
            y = y + skip
        if self.fitted is None:
            return F.relu(y)
        estimate = self.estimate(x, skip)
        kept = estimate < self.threshold
        if self.training:
            some = slice(None, None, 4)  # images suffice
            missing = self.share - kept[some].float().mean()
            self.threshold.add_(_PACE * missing * estimate[some].detach().float().std())
        return F.relu(torch.where(kept, estimate, y))

    def estimate(self, x: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        """Return what the little module says of the normalised convolution, and what is added."""
        found = F.conv2d(x, self.kernel.to(x.dtype), self.offset.to(x.dtype), self.conv.stride, 1)
        return found if skip is None else found + skip

    @torch.no_grad()
    def fit(self, x: torch.Tensor) -> None:
        """Fit the little module to what the layer makes of x."""
        self.macs = self.conv.weight.numel() * x[0, 0].numel() // self.conv.stride[0] ** 2
        layer = self.finished()
        equations = layer.estimator.equations()
        layer.observe([equations], x.float())
        layer.estimator.fit(equations)
        self.fitted = layer.estimator
        signs = unpack_signs(layer.projection.signs, x.shape[1]).float()
        weights = self.fitted.codes * self.fitted.scale[:, None] * (3 / self.projected) ** 0.5
        little = weights.view(len(weights), -1, 3, 3)
        self.kernel.copy_(torch.einsum("okhw,kc->ochw", little, signs))
        self.offset.copy_(self.fitted.bias)

    @torch.no_grad()
    def finished(self) -> DualModuleConv2d:
        """Return the layer that runs."""
        big = fold_batch_norm(self.conv, self.norm)
        layer = DualModuleConv2d(big, bits=self.bits, projected=self.projected)
        if self.fitted is not None:
            layer.estimator.load_state_dict(self.fitted.state_dict())
            layer.switch.threshold.copy_(self.threshold)
        return layer


class Block(nn.Module):
    """Two convolutions and a shortcut that subsamples and pads with zero channels."""

    def __init__(self, before: int, width: int, stride: int, bits: int, part: int) -> None:
        super().__init__()
        self.first: nn.Module = DualConv(before, width, stride, bits, part)
        self.second: nn.Module = DualConv(width, width, 1, bits, part)
        self.stride, self.more = stride, width - before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, before, h, w) to (b, width, h / stride, w / stride)."""
        half = self.more // 2
        short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.more - half))
        y: torch.Tensor = self.second(self.first(x), short)
        return y


class Network(nn.Module):
    """He et al.'s network for CIFAR, with parameter-free shortcuts; may be wider.

    Args:
        blocks: of a stage; 3, 5 and 9 make the networks of 20, 32 and 56 layers.
        wide: times the usual width.
        bits: of a little weight.
        part: channels over their projection.
    """

    def __init__(self, blocks: int, wide: int, bits: int, part: int) -> None:
        super().__init__()
        widths = [16 * wide, 32 * wide, 64 * wide]
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        made, before = [], widths[0]
        for number, width in enumerate(widths):
            for i in range(blocks):
                made.append(Block(before, width, 2 if i == 0 and number else 1, bits, part))
                before = width
        self.blocks = nn.Sequential(*made)
        self.linear = nn.Linear(before, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, 3, 32, 32) to (b, 10)."""
        y: torch.Tensor = self.linear(
            self.blocks(F.relu(self.bn1(self.conv1(x)))).float().mean((2, 3))
        )
        return y

    def convolutions(self) -> list[DualConv]:
        """Return the layers that have a little module."""
        return [m for m in self.modules() if isinstance(m, DualConv)]

    def load(self, path: Path) -> None:
        """Take the shipped weights."""
        with np.load(path) as file:
            given = {key: torch.from_numpy(file[key]) for key in file.files}
        parts = {"conv1": "first.conv", "bn1": "first.norm", "conv2": "second.conv"}
        parts["bn2"] = "second.norm"
        count = len(self.blocks) // 3
        state = {}
        for key, value in given.items():
            if key.startswith("layer"):
                stage, block, part, rest = key[5:].split(".", 3)
                key = f"blocks.{(int(stage) - 1) * count + int(block)}.{parts[part]}.{rest}"
            state[key] = value
        wrong = self.load_state_dict(state, strict=False)
        assert not wrong.unexpected_keys, wrong.unexpected_keys
        assert not [k for k in wrong.missing_keys if "conv" in k or "linear" in k], wrong
