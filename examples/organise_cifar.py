r"""Accuracy of three classics on CIFAR-10: as they are, organised, and with other kernels.

VGG-16, MobileNet and ResNet-18 for images of 32x32 are trained by one recipe, each also with the
depths that ``nas proxies organise`` chooses within its own parameters and multiply-accumulates, and
with the kernels that ``nas proxies kernels`` chooses within a share of its parameters, or several.

    python examples/organise_cifar.py cifar10_jpeg.npz organise.jsonl --keep 0.6 0.5 --together 3

Each training is a line of the file as it ends. What stands there is not trained again: the same
command goes on after a cut, and a second one may take the list from its end (--last-first). The
table is of what the file holds.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from cifar import Data, accuracy, say
from torch import nn
from torch.nn import functional as F

from evaluators.accuracy.graphed import GraphedGradients
from evaluators.accuracy.initialise import initialise
from evaluators.proxies.kernel_menu import choose_kernels
from evaluators.proxies.organise import Budget, budget_of, organise
from search_spaces.architecture import Architecture
from search_spaces.blocks import chain_of
from search_spaces.builder import NetworkBuilder
from search_spaces.source import generate

AS_IT_IS = "as it is"
BATCH = 256
RATE = 0.2


def vgg16() -> Architecture:
    """Return VGG-16 with batch normalisation and one linear layer."""
    net = NetworkBuilder((3, 32, 32))
    x = net.input
    for depth, width in zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512), strict=True):
        for _ in range(depth):
            x = net.conv(x, width, kernel=3)
        x = net.max_pool(x, kernel=2, stride=2)
    return net.freeze(net.classifier(x, 10))


def mobilenet() -> Architecture:
    """Return MobileNet v1 without the stride of its stem."""
    net = NetworkBuilder((3, 32, 32))
    x = net.conv(net.input, 32, kernel=3)
    strided = {64: 1, 128: 2, 256: 2, 512: 2, 1024: 2}
    for width, depth in ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2)):
        for block in range(depth):
            x = net.conv_block(x, width, kind="separable", stride=1 if block else strided[width])
    return net.freeze(net.classifier(x, 10))


def resnet18() -> Architecture:
    """Return ResNet-18 with a stem of 3x3 and no pooling behind it."""
    net = NetworkBuilder((3, 32, 32))
    x = net.conv(net.input, 64, kernel=3)
    for width in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if width > 64 and not block else 1
            y = net.conv(x, width, kernel=3, stride=stride)
            y = net.conv(y, width, kernel=3, act=None)
            same = y.shape == x.shape
            short = x if same else net.conv(x, width, stride=stride, act=None)
            x = net.activation(net.add(y, short))
    return net.freeze(net.classifier(x, 10))


class Job(NamedTuple):
    """A training.

    Attributes:
        network: name of the classic.
        kind: as it is, organised, or kernels and the share of parameters that they may keep.
        seed: of weights, order and shifts.
        about: depths or kernels that were chosen.
        text: what is trained.
    """

    network: str
    kind: str
    seed: int
    about: str
    text: str


def jobs(seeds: int, keep: Sequence[float]) -> list[Job]:
    """Return all trainings: a seed of all networks before the next."""
    made: list[tuple[str, str, str, str]] = []
    for make in (vgg16, mobilenet, resnet18):
        name, net = make.__name__, make()
        chain = chain_of(net)
        made.append((name, AS_IT_IS, f"depths {depths(chain.depths)}", net.text))
        for share in keep:
            cut = choose_kernels(net, Budget(params=share * net.params))
            swaps = Counter(kernel for kernel in cut.kernels.values() if kernel != AS_IT_IS)
            about = ", ".join(f"{count} x {kernel}" for kernel, count in swaps.items())
            made.append((name, f"kernels {share:g}", about, cut.architecture.text))
        best = organise(net, budget_of(net))[0].depths
        made.append((name, "organised", f"depths {depths(best)}", chain.with_depths(best).text))
    return [
        Job(name, kind, seed, about, text)
        for seed in range(seeds)
        for name, kind, about, text in made
    ]


def depths(chosen: tuple[int, ...]) -> str:
    """Write depths in short."""
    return "-".join(map(str, chosen))


def module(job: Job) -> nn.Module:
    """Return the network of torch's own layers, with fresh weights."""
    names: dict[str, Any] = {"__name__": "network"}
    exec(generate(Architecture.parse(job.text), form="plain"), names)
    made: nn.Module = names["Network"]()
    initialise(made, job.seed)
    return made


def train(model: nn.Module, data: Data, epochs: int, seed: int) -> float:
    """Train with SGD, bfloat16 and one cycle of the rate; return the last loss."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=RATE, momentum=0.9, nesterov=True)
    size = min(BATCH, len(data.x))
    steps = epochs * (len(data.x) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps + 1, pct_start=0.2)
    device, generator = torch.device(data.device), torch.Generator().manual_seed(seed)

    def gradients(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            loss = F.cross_entropy(model(x).float(), y)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        return loss.detach()

    fill = GraphedGradients(gradients, device) if device.type == "cuda" else gradients
    model.train()
    loss = torch.zeros(())
    for _ in range(epochs):
        for x, y in data.batches(size, generator):
            loss = fill(x, y)
            optimiser.step()
            schedule.step()
    return float(loss)


@cache
def images(path: Path, train: int | None, test: int | None) -> Data:
    """Return the images, which a process decodes once."""
    return Data(path, "cuda" if torch.cuda.is_available() else "cpu", train, test)


def begin(numbers: Any, given: argparse.Namespace) -> None:
    """Take one of the GPUs in turn and read the images, at the start of a process."""
    number = numbers.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    torch.set_num_threads(1)
    images(given.data, given.train, given.test)


def row_of(job: Job, given: argparse.Namespace, until: float) -> dict[str, Any] | None:
    """Train, or return nothing: it stands in the file, or the time is over."""
    if time.time() > until or job in standing(given.out, given.epochs):
        return None
    gc.collect()  # the graph of the training before holds memory that others may want
    torch.cuda.empty_cache()
    start = time.perf_counter()
    data, net = images(given.data, given.train, given.test), Architecture.parse(job.text)
    model = module(job).to(data.device).to(memory_format=torch.channels_last)
    loss = train(model, data, given.epochs, job.seed)
    row = {
        **job._asdict(),
        "epochs": given.epochs,
        "accuracy": accuracy(model, data),
        "loss": loss,
        "params": net.params,
        "macs": net.macs,
        "seconds": time.perf_counter() - start,
    }
    with given.out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def standing(out: Path, epochs: int) -> dict[Job, dict[str, Any]]:
    """Return the rows of the file that were trained so long; a line that was cut off is none."""
    found = {}
    for line in out.read_text().splitlines() if out.exists() else ():
        if line.endswith("}"):
            row = json.loads(line)
            if row["epochs"] == epochs:
                found[Job(*(row[field] for field in Job._fields))] = row
    return found


def table(out: Path, epochs: int) -> str:
    """Write what the file holds, and for every network how far it is from what it was."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    originals: dict[tuple[str, int], dict[str, Any]] = {}
    for job, row in sorted(standing(out, epochs).items()):
        groups.setdefault((job.network, job.kind, job.text), []).append(row)
        if job.kind == AS_IT_IS:
            originals[job.network, job.seed] = row
    lines = []
    for (network, kind, _), rows in groups.items():
        line = f"{network:<10}{kind:<13}{rows[0]['params']:>11,}{rows[0]['macs']:>13,}  "
        line += " ".join(f"{row['accuracy']:.2f}" for row in rows)
        line += f"  mean {fmean(row['accuracy'] for row in rows):.2f}"
        known = [(row, originals.get((network, row["seed"]))) for row in rows]
        pairs = [(row, before) for row, before in known if before is not None]
        if kind != AS_IT_IS and pairs:
            gained = fmean(row["accuracy"] - before["accuracy"] for row, before in pairs)
            fewer = (rows[0][cost] / pairs[0][1][cost] - 1 for cost in ("params", "macs"))
            line += f" ({gained:+.2f})  {' '.join(f'{share:+.1%}' for share in fewer)}"
        lines.append(f"{line}  {rows[0]['about']}")
    return "\n".join(lines)


def main() -> None:
    """Train what the file does not hold, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, help="file of rows")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--keep", type=float, nargs="*", default=[0.5], help="shares of parameters, for kernels"
    )
    parser.add_argument("--together", type=int, default=2, help="trainings at a time")
    parser.add_argument("--last-first", action="store_true", help="take the list from its end")
    parser.add_argument("--seconds", type=float, default=1e9, help="no training begins later")
    parser.add_argument("--train", type=int, help="training images")
    parser.add_argument("--test", type=int, help="test images")
    given = parser.parse_args()
    start = time.time()
    spawned = multiprocessing.get_context("spawn")
    numbers = spawned.Queue()
    for number in range(given.together):
        numbers.put(number)
    with ProcessPoolExecutor(given.together, spawned, begin, (numbers, given)) as pool:
        for _ in range(given.together):
            pool.submit(time.sleep, 0.1)  # starts all processes: they read the images meanwhile
        wanted = jobs(given.seeds, given.keep)[:: -1 if given.last_first else 1]
        until = start + given.seconds
        for job in as_completed([pool.submit(row_of, item, given, until) for item in wanted]):
            row = job.result()
            if row is not None:
                say(
                    f"{row['network']:<10} {row['kind']:<13} seed {row['seed']}  "
                    f"{row['accuracy']:.2f} %  loss {row['loss']:.3f}  {row['seconds']:.0f} s, "
                    f"{time.time() - start:.0f} s in all"
                )
    say(table(given.out, given.epochs))


if __name__ == "__main__":
    main()
