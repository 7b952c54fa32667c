"""What the CIFAR-10 examples share: images on a device, residual networks, accuracy."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F


def images(path: Path, split: str, count: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode a split: uint8 (n, 3, 32, 32) and labels."""
    with np.load(path) as file:
        header, data = file["header"].tobytes(), file[f"{split}_data"].tobytes()
        offsets, labels = file[f"{split}_offsets"], file[f"{split}_labels"]
    count = len(labels) if count is None else min(count, len(labels))
    decoded = [
        np.asarray(Image.open(io.BytesIO(header + data[offsets[i] : offsets[i + 1]])))
        for i in range(count)
    ]
    x = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()
    return x, torch.from_numpy(labels[:count].astype(np.int64))


class Data:
    """Images on a device, normalised and augmented there."""

    def __init__(self, path: Path, device: str, train: int | None, test: int | None) -> None:
        self.device = device
        self.x, self.y = (part.to(device) for part in images(path, "train", train))
        self.test = tuple(part.to(device) for part in images(path, "test", test))
        shape = (1, 3, 1, 1)
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(shape)
        self.scale = torch.tensor([0.229, 0.224, 0.225], device=device).view(shape)

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of a network."""
        y = (x.float() / 255 - self.mean) / self.scale
        return y.contiguous(memory_format=torch.channels_last)

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield shuffled batches, shifted by up to 4 pixels and mirrored."""
        padded = F.pad(self.x, (4, 4, 4, 4))
        order = torch.randperm(len(self.x), generator=generator)
        for begin in range(0, len(order) - size + 1, size):
            chosen = order[begin : begin + size].to(self.device)
            down, across = torch.randint(9, (2,), generator=generator).tolist()
            x = padded[chosen, :, down : down + 32, across : across + 32]
            mirrored = torch.rand(size, generator=generator).to(self.device) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
            yield self.normal(x), self.y[chosen]


class Block(nn.Module):
    """Two convolutions and a shortcut that subsamples and pads with zero channels."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.more = stride, width - before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, before, h, w) to (b, width, h / stride, w / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        half = self.more // 2
        short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.more - half))
        return F.relu(y + short)


class ResNet(nn.Module):
    """He et al.'s network for CIFAR with parameter-free shortcuts, of 6 n + 2 layers."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        before = 16
        for number, width in enumerate((16, 32, 64), 1):
            blocks = []
            for i in range((layers - 2) // 6):
                blocks.append(Block(before, width, 2 if i == 0 and number > 1 else 1))
                before = width
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, 3, 32, 32) to (b, 10)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def load(model: nn.Module, weights: Path) -> None:
    """Give a network the weights of a file of plain arrays, in place."""
    with np.load(weights) as file:
        state = {key: torch.from_numpy(file[key]) for key in file.files}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert all(key.endswith("num_batches_tracked") for key in missing), missing


@torch.no_grad()
def guesses(model: nn.Module, data: Data, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the class that a network gives each test image."""
    model.eval()
    parts = data.test[0].split(1000)
    return torch.cat([model(data.normal(x).to(dtype)).argmax(1) for x in parts])


def accuracy(model: nn.Module, data: Data) -> float:
    """Return the share of the test images that is right, in %."""
    return 100 * float((guesses(model, data) == data.test[1]).double().mean())


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
