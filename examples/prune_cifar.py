r"""Accuracy of pruned CIFAR-10 networks: Shfl-BW beside other patterns, one recipe for all.

A ResNet-18 (64 to 512 channels) is trained dense, a ResNet-56 (16 to 64) fine-tuned from given
weights; from each, every pattern is pruned in one shot by magnitude and fine-tuned on its mask.

    python examples/prune_cifar.py cifar10_jpeg.npz --network resnet18 --out resnet18.json
    python examples/prune_cifar.py cifar10_jpeg.npz --network resnet56 \
        --weights cifar10_resnet56.npz --epochs 10 --out resnet56.json
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import torch
from cifar import Data, ResNet, accuracy, load, say
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18

from kernels.shfl_bw.pattern import as_matrix, like_weight
from kernels.shfl_bw.prune import prune

DENSITIES = (0.5, 0.25, 0.15)
VECTORS = {"resnet18": (32, 64), "resnet56": (8, 16)}
Weights = dict[str, torch.Tensor]


def network(name: str, weights: Path | None) -> nn.Module:
    """Return a network, with its weights where they are given."""
    if name == "resnet56":
        made: nn.Module = ResNet(56)
    else:
        made = resnet18(num_classes=10)
        made.conv1, made.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    if weights is not None:
        load(made, weights)
    return made


def prunable(model: nn.Module, v: int) -> Weights:
    """Return the filters of all convolutions but the first, of two groups of V rows or more."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)][1:]
    return {n: m.weight.detach().cpu() for n, m in layers if len(m.weight) >= 2 * v}


def mask_of(pattern: str, v: int, density: float, weight: torch.Tensor) -> torch.Tensor:
    """Return which weights a pattern keeps, by magnitude."""
    matrix = as_matrix(weight).abs()
    rows, columns = matrix.shape
    if pattern in ("shfl-bw", "vector-wise"):
        grouping = "exchange" if pattern == "shfl-bw" else "none"
        return like_weight(prune(weight, v, density, grouping=grouping).mask, weight.shape)
    if pattern == "2:4":
        fours = matrix.view(rows, -1, 4)
        mask = torch.zeros_like(fours).scatter_(2, fours.topk(2, 2).indices, 1.0).view_as(matrix)
    elif pattern == "block-wise":
        filled = F.pad(matrix, (0, -columns % v)).view(rows // v, v, -1, v)
        scores = filled.sum((1, 3))
        kept = torch.zeros(scores.numel())
        kept[scores.flatten().topk(round(density * scores.numel())).indices] = 1.0
        blocks = kept.view_as(scores)[:, None, :, None].expand_as(filled)
        mask = blocks.reshape(rows, -1)[:, :columns]
    else:
        mask = torch.zeros(matrix.numel())
        mask[matrix.flatten().topk(round(density * matrix.numel())).indices] = 1.0
        mask = mask.view_as(matrix)
    return like_weight(mask.bool(), weight.shape)


def train(model: nn.Module, masks: Weights, data: Data, epochs: int, rate: float) -> float:
    """Train with SGD, bfloat16 and a cosine schedule on masks; return the accuracy on the test."""
    model = model.to(data.device, memory_format=torch.channels_last)
    held = [model.get_submodule(name).weight for name in masks]
    last = torch.channels_last
    kept = [mask.to(data.device, torch.float32, memory_format=last) for mask in masks.values()]
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    generator = torch.Generator().manual_seed(0)
    size = min(256, len(data.x))
    steps = max(1, epochs * (len(data.x) // size))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps + 1, pct_start=0.15)
    kind = torch.device(data.device).type

    def hold(tensors: list[torch.Tensor]) -> None:
        if tensors:
            with torch.no_grad():
                torch._foreach_mul_(tensors, kept)

    hold(held)
    model.train()
    graphed = kind == "cuda"
    if graphed:
        capture(model, data.normal(data.x[:size]))
    for _ in range(epochs):
        for x, y in data.batches(size, generator):
            with torch.autocast(kind, torch.bfloat16, cache_enabled=not graphed):
                loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            hold([weight.grad for weight in held])
            optimiser.step()
            hold(held)
            schedule.step()
    if graphed:
        del model.forward
    return accuracy(model, data)


def capture(model: nn.Module, sample: torch.Tensor) -> None:
    """Have a network run as CUDA graphs until its ``forward`` is deleted."""
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        torch.cuda.make_graphed_callables(model, (sample,))


def one_thread() -> None:
    """Leave the other processors to the other processes."""
    torch.set_num_threads(1)


def settings(name: str) -> list[tuple[str, int, float]]:
    """Return patterns, V and densities, the most telling first."""
    found = []
    for density in (0.25, 0.5, 0.15):
        found.append(("unstructured", VECTORS[name][0], density))
        patterns = ("shfl-bw", "block-wise", "vector-wise")
        found += [(p, v, density) for p, v in product(patterns, VECTORS[name])]
    return [*found, ("2:4", VECTORS[name][0], 0.5)]


def main() -> None:
    """Train, prune, fine-tune, and print a row for each pattern."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", choices=[*VECTORS], default="resnet18")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--epochs", type=int, default=24, help="dense")
    parser.add_argument("--tune", type=int, default=5, help="epochs on a mask")
    parser.add_argument("--train", type=int, help="training images")
    parser.add_argument("--test", type=int, help="test images")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = Data(given.data, device, given.train, given.test)
    model = network(given.network, given.weights)
    start = time.perf_counter()
    dense = train(model, {}, data, given.epochs, 0.05 if given.weights else 0.4)
    rows = [{"pattern": "dense", "v": 0, "density": 1.0, "accuracy": dense}]
    say(f"dense {dense:.2f} %, {time.perf_counter() - start:.0f} s")
    wanted = settings(given.network)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of the processes that prune
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=spawned, initializer=one_thread) as pool:
        jobs = []
        for pattern, v, density in wanted:
            make = partial(mask_of, pattern, v, density)
            layers = prunable(model, v)
            jobs.append({name: pool.submit(make, weight) for name, weight in layers.items()})
        for (pattern, v, _), made in zip(wanted, jobs, strict=True):
            masks = {name: job.result() for name, job in made.items()}
            share = sum(int(m.sum()) for m in masks.values()) / sum(
                m.numel() for m in masks.values()
            )
            found = train(copy.deepcopy(model), masks, data, given.tune, 0.1)
            rows.append({"pattern": pattern, "v": v, "density": share, "accuracy": found})
            seconds = time.perf_counter() - start
            say(f"{pattern:<13} V={v:<3} density {share:.3f}  {found:.2f} %  ({seconds:.0f} s)")
            if given.out is not None:
                given.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
