r"""Accuracy of a CIFAR-10 network most of whose convolutions' outputs are skipped by an estimate.

The shipped weights are fine-tuned on the images first: that is the baseline, and it is trained on
for as long as the dual network is. The dual network is trained as it will run: outputs whose
estimate lies below a layer's threshold are not computed. Its estimates come from a random
projection of the channels and weights of a few bits; their error is part of the loss. In the end
everything is put into `DualModuleConv2d` layers, which are what is measured.

    python examples/dual_cifar.py cifar10_jpeg.npz --blocks 3 --weights cifar10_resnet20.npz \
        --out resnet20.json
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from prune_cifar import Data, accuracy, say
from torch import nn
from torch.nn import functional as F

from kernels.dual_module.conv import DualModuleConv2d, fold_batch_norm
from kernels.dual_module.fit import quantise
from kernels.dual_module.projection import unpack_signs
from kernels.dual_module.report import report

_SAMPLE = 8192  # estimates of a layer and batch that its threshold follows


class DualConv(nn.Module):
    """A convolution, batch norm and ReLU whose outputs are computed where an estimate says so.

    Buffer ``threshold`` follows the share of outputs that is to be kept while it is trained.
    """

    def __init__(self, before: int, width: int, stride: int, bits: int, part: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.bits, self.projected = bits, max(2, before // part)
        self.little = nn.Parameter(torch.zeros(width, 9 * self.projected))
        self.offset = nn.Parameter(torch.zeros(width))
        self.register_buffer("signs", torch.zeros(self.projected, before))
        self.register_buffer("threshold", torch.tensor(-torch.inf))
        self.ratio = 0.0  # of the outputs that keep the estimate
        self.loss = torch.zeros(())

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        """Map x (b, before, h, w), and what is added, to (b, width, h', w')."""
        y = self.norm(self.conv(x))
        if skip is not None:
            y = y + skip
        if self.ratio == 0.0:
            return F.relu(y)
        estimate = self.estimate(x)
        if skip is not None:
            estimate = estimate + skip
        if self.training:
            some = slice(None, max(8, len(y) // 8))
            wanted = y[some].float().detach()
            self.loss = (estimate[some].float() - wanted).square().mean() / wanted.var()
            flat = estimate.detach().float().flatten()
            flat = flat[:: max(1, len(flat) // _SAMPLE) | 1]  # odd: meets pixels of all places
            edge = flat.kthvalue(max(1, round(self.ratio * len(flat)))).values
            known = torch.isfinite(self.threshold)
            self.threshold.copy_(torch.where(known, self.threshold.lerp(edge, 0.05), edge))
        return F.relu(torch.where(estimate < self.threshold, estimate.to(y.dtype), y))

    def estimate(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the little module says of the normalised convolution."""
        projection = self.signs[:, :, None, None] * (3 / self.projected) ** 0.5
        codes, scale = quantise(self.little.detach(), self.bits, per_row=True)
        rounded = self.little + (codes * scale - self.little).detach()  # gradients pass through
        kernel = rounded.view(len(rounded), -1, 3, 3)
        u = F.conv2d(x, projection.to(x.dtype))
        return F.conv2d(u, kernel, self.offset, self.conv.stride, 1)

    @torch.no_grad()
    def finished(self) -> DualModuleConv2d:
        """Return the layer that runs."""
        big = fold_batch_norm(self.conv, self.norm)
        layer = DualModuleConv2d(big, bits=self.bits, projected=self.projected)
        codes, scale = quantise(self.little, self.bits, per_row=True)
        layer.estimator.codes.copy_(codes)
        layer.estimator.scale.copy_(scale.squeeze(1))
        layer.estimator.bias.copy_(self.offset)
        layer.switch.threshold.copy_(self.threshold if self.ratio else torch.tensor(-torch.inf))
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


class Sgd:
    """SGD with Nesterov's momentum whose rate is a tensor, so that a CUDA graph can hold a step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.rate = torch.zeros((), device=next(model.parameters()).device)
        self.parameters = [*model.parameters()]
        self.momenta = [torch.zeros_like(p) for p in self.parameters]
        names = [name for name, _ in model.named_parameters()]
        self.decays = [
            decay if p.dim() > 1 and "little" not in name else 0.0
            for name, p in zip(names, self.parameters, strict=True)
        ]

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters by their gradients, whose norm is cut to 5."""
        nn.utils.clip_grad_norm_(self.parameters, 5.0, foreach=True)
        used = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        moved, momenta = ([of[i] for i in used] for of in (self.parameters, self.momenta))
        gradients = [p.grad for p in moved]
        decays = torch._foreach_mul(moved, [self.decays[i] for i in used])
        torch._foreach_add_(gradients, decays)
        torch._foreach_mul_(momenta, 0.9)
        torch._foreach_add_(momenta, gradients)
        torch._foreach_add_(gradients, momenta, alpha=0.9)
        torch._foreach_mul_(gradients, self.rate)
        torch._foreach_sub_(moved, gradients)


def train(
    model: Network, data: Data, epochs: int, rate: float, teacher: Network | None, decay: float
) -> None:
    """Train with SGD, bfloat16 and a cosine schedule, in place; on a GPU a step is a CUDA graph."""
    model.train()
    optimiser = Sgd(model, decay)
    generator = torch.Generator().manual_seed(0)
    size = min(512, len(data.x))
    steps = max(1, epochs * (len(data.x) // size))
    layers = [layer for layer in model.convolutions() if layer.ratio]
    kind = torch.device(data.device).type
    x, y = (part.clone() for part in next(data.batches(size, generator)))

    def step() -> None:
        with torch.autocast(kind, torch.bfloat16, cache_enabled=False):
            found = model(x)
            loss = F.cross_entropy(found, y)
            if teacher is not None:
                with torch.no_grad():
                    wanted = teacher(x).float().softmax(1)
                loss = 0.3 * loss + 0.7 * F.cross_entropy(found, wanted)
        if layers:
            loss = loss + 0.3 * sum(layer.loss for layer in layers) / len(layers)
        for parameter in optimiser.parameters:
            parameter.grad = None
        loss.backward()
        optimiser.step()

    replay = _captured(step) if kind == "cuda" else step
    done = 0
    for _ in range(epochs):
        for images, labels in data.batches(size, generator):
            x.copy_(images)
            y.copy_(labels)
            share = done / steps
            warm = min(1.0, share / 0.1)
            optimiser.rate.fill_(rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))
            replay()
            done += 1
    for layer in layers:
        layer.loss = torch.zeros(())


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return the replay of a step that has run a few times, at a rate of zero."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@torch.no_grad()
def begin_estimates(model: Network, data: Data, target: float) -> None:
    """Fit little modules to the layers' inputs, and say which share each layer shall keep.

    Each keeps what is zero anyway and the same part of the rest, so that all together keep the
    target, by multiply-accumulates.
    """
    model.eval()
    x = data.normal(data.x[:: max(1, len(data.x) // 256)])
    zeros, macs = [], []
    for layer in model.convolutions():
        finished = layer.finished()
        layer.signs.copy_(unpack_signs(finished.projection.signs, layer.conv.in_channels).float())
        seen: list[torch.Tensor] = []
        keep = lambda _, given, y, seen=seen: seen.extend((given[0], y))  # noqa: E731
        handle = layer.register_forward_hook(keep)
        model(x)
        handle.remove()
        given, y = seen
        (equations,) = [e.equations() for e in finished.estimators()]
        finished.observe([equations], given)
        weights, bias = equations.solve()
        layer.little.copy_(weights)
        layer.offset.copy_(bias)
        zeros.append(float((y == 0).float().mean()))
        macs.append(layer.conv.weight.numel() * y[0, 0].numel())
    shares, sizes = torch.tensor(zeros), torch.tensor(macs, dtype=torch.float)
    natural = float((shares * sizes).sum() / sizes.sum())
    more = (target - natural) / (1 - natural)
    for layer, share in zip(model.convolutions(), shares.tolist(), strict=True):
        layer.ratio = min(0.97, max(0.05, share + (1 - share) * more))
    say(f"zero anyway {natural:.3f}, by layer {min(zeros):.2f} to {max(zeros):.2f}")


def finish(model: Network) -> Network:
    """Return the network of layers that run."""
    made = copy.deepcopy(model).eval()
    for block in made.blocks:
        block.first, block.second = block.first.finished(), block.second.finished()
    return made


@torch.no_grad()
def measured(model: Network, data: Data) -> dict[str, object]:
    """Return accuracy, and multiply-accumulates over the dense network's, of finished layers."""
    found = accuracy(model, data)
    x = data.normal(data.test[0][:1000])
    sizes: dict[str, int] = {}
    for name, item in model.named_modules():
        if isinstance(item, nn.Conv2d):
            item.register_forward_hook(
                lambda m, _, y, name=name: sizes.__setitem__(
                    name, m.weight.numel() * y[0, 0].numel()
                )
            )
    reports = report(model, lambda: model(x))
    dense = sum(sizes.values()) + model.linear.weight.numel()
    ratios = {}
    for rule in ("free", "weighted", "full"):
        saved = sum(sizes[f"{r.name}.conv"] * (1 - r.operation_ratios[rule]) for r in reports)
        ratios[rule] = (dense - saved) / dense
    return {
        "accuracy": found,
        "fewer": {rule: 1 / ratio for rule, ratio in ratios.items()},
        "kept": [round(r.ratio, 4) for r in reports],
        "false_skips": [round(r.false_skips, 4) for r in reports],
    }


def main() -> None:
    """Fine-tune, train the dual network, and print what each is worth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--wide", type=int, default=1)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--epochs", type=int, default=10, help="dense, before the dual network")
    parser.add_argument("--tune", type=int, default=20, help="of the dual network and the baseline")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.72])
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--part", type=int, default=4, help="channels over their projection")
    parser.add_argument("--train", type=int, help="training images")
    parser.add_argument("--test", type=int, help="test images")
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = Data(given.data, device, given.train, given.test)
    model = Network(given.blocks, given.wide, given.bits, given.part)
    if given.weights is not None:
        model.load(given.weights)
    model = model.to(device, memory_format=torch.channels_last)
    start = time.perf_counter()
    train(model, data, given.epochs, given.rate if given.weights else 0.4, None, 5e-4)
    rows: list[dict[str, object]] = [{"what": "dense", "accuracy": accuracy(model, data)}]

    def write(row: dict[str, object]) -> None:
        rows.append(row)
        say(f"{time.perf_counter() - start:.0f} s: {json.dumps(row)}")
        if given.out is not None:
            given.out.write_text(json.dumps(rows, indent=1))

    say(f"dense {rows[0]['accuracy']:.2f} %, {time.perf_counter() - start:.0f} s")
    teacher = copy.deepcopy(model).eval()
    for target in given.targets:
        dual = copy.deepcopy(model)
        begin_estimates(dual, data, target)
        train(dual, data, given.tune, given.rate, teacher, 5e-4)
        row = {"what": "dual", "target": target, "bits": given.bits, "part": given.part}
        write({**row, "trained": accuracy(dual, data), **measured(finish(dual), data)})
    train(model, data, given.tune, given.rate, teacher, 5e-4)
    write({"what": "dense, trained on", "accuracy": accuracy(model, data)})


if __name__ == "__main__":
    main()
