r"""Accuracy of pruned CIFAR-10 networks: Shfl-BW beside other patterns, one recipe for all.

A ResNet-18 (64 to 512 channels) is trained dense, a ResNet-56 (16 to 64) fine-tuned from given
weights. From there every pattern is trained further by the same recipe, the dense network ("none")
among them: labels and the answers of the dense network count half each (--teach), the density falls
step by step during the first half of the steps (--ramp), with masks chosen anew by magnitude from
the weights as they then are (rows of Shfl-BW are grouped anew, too), and the last masks stay for
the rest. A recipe is to be chosen with --validate, which judges by images taken from training.

    python examples/prune_cifar.py cifar10_jpeg.npz --network resnet18 --out resnet18.json
    python examples/prune_cifar.py cifar10_jpeg.npz --network resnet56 \
        --weights cifar10_resnet56.npz --epochs 6 --out resnet56.json

Rows are trained side by side, on all GPUs there are, the most telling first, and each is written
as it ends.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product
from multiprocessing import util
from pathlib import Path
from typing import Any

import torch
from cifar import Data, ResNet, accuracy, load, say
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18

from evaluators.accuracy.graphed import GraphedGradients
from kernels.shfl_bw.pattern import as_matrix, like_weight
from kernels.shfl_bw.prune import prune
from kernels.shfl_bw.schedules import falling_density

VECTORS = {"resnet18": (32, 64), "resnet56": (8, 16)}
BATCH = 256
SOFTNESS = 2.0  # of the answers that a network learns from
PRUNINGS = 6  # times that masks are chosen while the density falls
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is kept of every layer, and how.

    Attributes:
        pattern: see :func:`mask_of`; ``"none"`` prunes nothing.
        v: rows of a vector, side of a block.
        density: share of the weights.
    """

    pattern: str
    v: int
    density: float


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


def prunable(model: nn.Module, v: int) -> dict[str, nn.Parameter]:
    """Return the filters of all convolutions but the first, of two groups of V rows or more."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)][1:]
    return {name: layer.weight for name, layer in layers if len(layer.weight) >= 2 * v}


def mask_of(setting: Setting, density: float, weight: torch.Tensor) -> torch.Tensor:
    """Return which weights a pattern keeps at a density, by magnitude."""
    pattern, v = setting.pattern, setting.v
    matrix = as_matrix(weight).abs()
    rows, columns = matrix.shape
    if pattern in ("shfl-bw", "vector-wise"):
        grouping = "exchange" if pattern == "shfl-bw" else "none"
        return like_weight(prune(weight, v, density, grouping=grouping).mask, weight.shape)
    if pattern == "2:4":  # on the way there 3:4
        fours = matrix.view(rows, -1, 4)
        best = fours.topk(max(2, round(4 * density)), 2).indices
        mask = torch.zeros_like(fours).scatter_(2, best, 1.0).view_as(matrix)
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


class Masks:
    """Masks of a model's filters during a training, chosen side by side in other processes.

    Args:
        model: whose filters; on its device.
        setting: what is kept at the end.
        helpers: choose masks.
        steps: in which the density falls; 0 prunes in one shot.
    """

    def __init__(self, model: nn.Module, setting: Setting, helpers: Executor, steps: int) -> None:
        pruned = {} if setting.pattern == "none" else prunable(model, setting.v)
        self.weights = [weight.detach() for weight in pruned.values()]
        self.masks: list[torch.Tensor] = []
        self._setting, self._helpers = setting, helpers
        self._due = {steps * i // PRUNINGS: i / PRUNINGS for i in range(1, PRUNINGS + 1)}
        self.step(0)

    def step(self, number: int) -> None:
        """Choose masks after a step if it is time to, and set pruned weights to zero."""
        done = self._due.get(number)
        if done is not None:
            density = falling_density(done, self._setting.density)
            choose = partial(mask_of, self._setting, density)
            found = self._helpers.map(choose, [weight.cpu() for weight in self.weights])
            self.masks = [
                torch.empty_like(weight).copy_(mask)
                for weight, mask in zip(self.weights, found, strict=True)
            ]
        self.hold(self.weights)

    def hold(self, tensors: list[torch.Tensor]) -> None:
        """Set what is pruned to zero in tensors like the filters, in place."""
        if self.masks:
            torch._foreach_mul_(tensors, self.masks)

    def density(self) -> float:
        """Return the share of the filters' weights that is kept."""
        kept = sum(float(mask.sum()) for mask in self.masks)
        return kept / sum(mask.numel() for mask in self.masks) if self.masks else 1.0


@dataclass(frozen=True, slots=True)
class Taught:
    """A loss from labels and from the answers of a teacher.

    Attributes:
        share: how much the teacher counts, 0 to 1.
        teacher: in evaluation mode.
    """

    share: float
    teacher: nn.Module

    def __call__(self, x: torch.Tensor, y: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of outputs y of images x."""
        with torch.no_grad():
            answers = (self.teacher(x).float() / SOFTNESS).softmax(1)
        soft = SOFTNESS**2 * F.cross_entropy(y / SOFTNESS, answers)
        return (1 - self.share) * F.cross_entropy(y, labels) + self.share * soft


def train(
    model: nn.Module,
    data: Data,
    epochs: int,
    rate: float,
    *,
    taught: Taught | None = None,
    masked: Callable[[int], Masks] | None = None,
) -> Masks | None:
    """Train with SGD, bfloat16 and one cycle of the rate.

    Args:
        model: on the data's device.
        data: of the training.
        epochs: passes over the data.
        rate: the highest learning rate.
        taught: the loss; None takes that of the labels.
        masked: makes the masks for a number of steps.

    Returns:
        The masks at the end.
    """
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    generator = torch.Generator().manual_seed(0)
    size = min(BATCH, len(data.x))
    steps = epochs * (len(data.x) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps + 1, pct_start=0.15)
    device = torch.device(data.device)
    masks = None if masked is None else masked(steps)

    def gradients(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            found = model(x).float()
            loss = F.cross_entropy(found, y) if taught is None else taught(x, found, y)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        return loss.detach()

    fill = GraphedGradients(gradients, device) if device.type == "cuda" else gradients
    model.train()
    number = 0
    for _ in range(epochs):
        for x, y in data.batches(size, generator):
            fill(x, y)
            optimiser.step()  # pruned weights' gradients do no harm: the masks undo their steps
            schedule.step()
            number += 1
            if masks is not None:
                masks.step(number)
    return masks


def one_thread() -> None:
    """Leave the other processors to the other processes."""
    torch.set_num_threads(1)


def settings(name: str) -> list[Setting]:
    """Return all settings, the most telling first."""
    vs = VECTORS[name]

    def of(density: float, *patterns: str) -> list[Setting]:
        return [Setting(p, v, density) for p, v in product(patterns, vs)]

    found = []
    for density in (0.25, 0.15, 0.5):
        found += [Setting("unstructured", 1, density), *of(density, "shfl-bw")]
        found += [Setting("none", 1, 1.0)] if density == 0.25 else []
        found += [Setting("2:4", 1, 0.5)] if density == 0.5 else []
        found += of(density, "block-wise", "vector-wise")
    return found


@cache
def images_of(path: Path, device: str, train: int | None, test: int | None, validate: int) -> Data:
    """Return the images, which each process decodes once."""
    data = Data(path, device, train, 1 if validate else test)
    if validate:
        data.test = data.x[-validate:], data.y[-validate:]
        data.x, data.y = data.x[:-validate], data.y[:-validate]
    return data


def data_of(given: argparse.Namespace) -> Data:
    """Return the images that the command line names."""
    return images_of(given.data, given.device, given.train, given.test, given.validate)


@cache
def helpers_of(count: int) -> ProcessPoolExecutor:
    """Return processes that choose masks, which each training process starts once."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    spawned = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=spawned, initializer=one_thread)
    util.Finalize(None, pool.shutdown, exitpriority=99)  # before its queues end: they are at 10
    return pool


def begin(numbers: Any, given: argparse.Namespace) -> None:
    """Take one of the GPUs in turn and read the images, at the start of a training process."""
    number = numbers.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    one_thread()
    data_of(given)


def placed(given: argparse.Namespace, state: Weights | None) -> nn.Module:
    """Return the network on the device, with weights where they are given."""
    made = network(given.network, given.weights if state is None else None)
    if state is not None:
        made.load_state_dict(state)
    return made.to(given.device, memory_format=torch.channels_last)


def row_of(setting: Setting, given: argparse.Namespace, state: Weights) -> dict[str, Any]:
    """Train the dense network further with a pattern; return its row of the table."""
    torch.manual_seed(0)
    data = data_of(given)
    start = time.perf_counter()
    model, teacher = placed(given, state), placed(given, state).eval()
    helpers = helpers_of(max(1, (os.cpu_count() or 1) // given.together - 1))
    taught = Taught(given.teach, teacher) if given.teach else None

    def masked(steps: int) -> Masks:
        return Masks(model, setting, helpers, int(given.ramp * steps))

    masks = train(model, data, given.tune, given.rate, taught=taught, masked=masked)
    assert masks is not None
    seconds = time.perf_counter() - start
    found = {"kept": masks.density(), "accuracy": accuracy(model, data), "seconds": seconds}
    return {**asdict(setting), **found}


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", choices=[*VECTORS], default="resnet18")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--epochs", type=int, default=24, help="dense")
    parser.add_argument("--tune", type=int, default=12, help="epochs of every pattern")
    parser.add_argument("--rate", type=float, default=0.1, help="highest, of every pattern")
    parser.add_argument("--teach", type=float, default=0.5, help="weight of the dense answers")
    parser.add_argument("--ramp", type=float, default=0.5, help="share of steps; 0: one shot")
    parser.add_argument("--rows", type=int, help="train only the first so many")
    parser.add_argument("--dense", type=Path, help="file that keeps the dense network")
    parser.add_argument("--together", type=int, default=2, help="trainings at a time")
    parser.add_argument("--train", type=int, help="training images")
    parser.add_argument("--test", type=int, help="test images")
    parser.add_argument("--validate", type=int, default=0, help="judge by so many of training")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    given.device = "cuda" if torch.cuda.is_available() else "cpu"
    return given


def dense(given: argparse.Namespace) -> tuple[Weights, float]:
    """Train the dense network, or read it; return its weights and its accuracy."""
    model, data = placed(given, None), data_of(given)
    if given.dense is not None and given.dense.exists():
        model.load_state_dict(torch.load(given.dense))
    else:
        train(model, data, given.epochs, 0.05 if given.weights else 0.4)
    state = {key: value.cpu() for key, value in model.state_dict().items()}
    if given.dense is not None:
        torch.save(state, given.dense)
    return state, accuracy(model, data)


def main() -> None:
    """Train the dense network, then all patterns from it; print a row for each."""
    given = arguments()
    torch.manual_seed(0)
    start = time.perf_counter()
    wanted = settings(given.network)[: given.rows]
    spawned = multiprocessing.get_context("spawn")
    numbers = spawned.Queue()
    for number in range(given.together):
        numbers.put(number)
    count, first = min(given.together, len(wanted)), (numbers, given)
    with ProcessPoolExecutor(count, spawned, begin, first) as pool:
        pool.submit(one_thread)  # starts all processes: they read the images meanwhile
        state, reached = dense(given)
        rows: list[dict[str, Any]] = [{"pattern": "dense", "accuracy": reached}]
        say(f"dense {reached:.2f} %, {time.perf_counter() - start:.0f} s")
        jobs = [pool.submit(row_of, setting, given, state) for setting in wanted]
        for job in as_completed(jobs):
            rows.append(job.result())
            row = rows[-1]
            say(
                f"{row['pattern']:<13} V={row['v']:<3} kept {row['kept']:.3f}  "
                f"{row['accuracy']:.2f} %  ({row['seconds']:.0f} s, "
                f"{time.perf_counter() - start:.0f} s in all)"
            )
            if given.out is not None:
                given.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
