r"""Accuracy of MobileNet on CIFAR-10 with pointwise and with sliding-channel layers, one recipe.

MobileNet v1 for 32x32 images; its surgery puts a sliding-channel layer in place of every pointwise
one (cg 2, co 0.5 by default). All trainings run side by side on one device, one process each.

    python examples/sliding_cifar.py cifar10_jpeg.npz --epochs 30 --seeds 3 --out sliding.json
    python examples/sliding_cifar.py cifar10_jpeg.npz --latency --out sliding.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import torch
from prune_cifar import Data, accuracy, one_thread, say
from torch import nn
from torch.nn import functional as F

from kernels.sliding_channel.bench_network import mobilenet
from kernels.sliding_channel.fused import fuse
from kernels.sliding_channel.module import SlidingChannelConv2d
from kernels.sliding_channel.surgery import to_sliding_channel
from kernels.timing import TimingPolicy, time_interleaved

KINDS = ("DW+PW", "DW+SCC")
BATCH = 256
RATE = 0.4
WARM_UP = 3
Row = dict[str, object]


def network(kind: str, cg: int, co: float) -> nn.Module:
    """Return the network with pointwise layers, or after the surgery."""
    made = mobilenet(sliding=False)
    return made if kind == "DW+PW" else to_sliding_channel(made, cg, co)


def sizes(model: nn.Module) -> tuple[int, int]:
    """Return parameters, and multiply-accumulates of one image."""
    macs = 0

    def count(layer: nn.Module, _: object, y: torch.Tensor) -> None:
        nonlocal macs
        macs += y.numel() * next(layer.parameters())[0].numel()

    kinds = (nn.Conv2d, nn.Linear, SlidingChannelConv2d)
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return sum(p.numel() for p in model.parameters()), macs


class Step:
    """Forward and backward pass of a batch in bfloat16; on a GPU one CUDA graph."""

    def __init__(self, model: nn.Module, device: str) -> None:
        self.model, self.device = model, device
        self.graph: torch.cuda.CUDAGraph | None = None
        self.steps = 0

    def _run(self, x: torch.Tensor, y: torch.Tensor) -> None:
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, cache_enabled=False):
            loss = F.cross_entropy(self.model(x), y, label_smoothing=0.1)
        torch.autograd.backward(loss)

    def _clear(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Leave the gradients of a batch in the parameters."""
        self.steps += 1
        if self.device == "cpu" or self.steps <= WARM_UP:
            self._clear()
            if self.device != "cpu":  # capture needs the passes before it on a stream beside
                side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    self._run(x, y)
                torch.cuda.current_stream().wait_stream(side)
            else:
                self._run(x, y)
            return
        if self.graph is None:
            self._clear()
            self.x, self.y = x.clone(), y.clone()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._run(self.x, self.y)
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()


def train(kind: str, seed: int, given: argparse.Namespace) -> Row:
    """Train with SGD and a one-cycle schedule; return what the last epoch reached."""
    one_thread()
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = Data(given.data, device, given.train, given.test)
    model = network(kind, given.cg, given.co)
    model = model.to(device).to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=RATE, momentum=0.9, nesterov=True)
    size = min(BATCH, len(data.x))
    steps = given.epochs * (len(data.x) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps + 1, pct_start=0.2)
    generator = torch.Generator().manual_seed(seed)
    begin, step = time.perf_counter(), Step(model, device)
    model.train()
    for _ in range(given.epochs):
        for x, y in data.batches(size, generator):
            step(x, y)
            optimiser.step()
            schedule.step()
    found = accuracy(model, data)
    seconds = time.perf_counter() - begin
    return {"kind": kind, "seed": seed, "accuracy": found, "seconds": seconds}


def fused(model: nn.Module) -> nn.Module:
    """Return the network in evaluation mode with every DW + SCC pair as one kernel."""
    layers, made = list(model), []  # type: ignore[call-overload]
    while layers:
        depthwise = layers[0]
        if len(layers) > 5 and isinstance(layers[3], SlidingChannelConv2d):
            _, norm, _, sliding, last_norm, _ = (layers.pop(0) for _ in range(6))
            made.append(
                fuse(depthwise, sliding, first_norm=norm, first="relu", norm=last_norm, last="relu")
            )
        else:
            made.append(layers.pop(0))
    return nn.Sequential(*made)


def latencies(given: argparse.Namespace, batch: int) -> dict[str, float]:
    """Return microseconds a forward pass, bfloat16 channels-last, side by side."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(batch, 3, 32, 32, device=device, dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last)

    def call(model: nn.Module) -> Callable[[], object]:
        placed = model.eval().to(device, torch.bfloat16).to(memory_format=torch.channels_last)
        return lambda: placed(x)

    with torch.no_grad():
        sliding = network("DW+SCC", given.cg, given.co).to(device, torch.bfloat16).eval()
        calls = {
            "DW+PW": call(network("DW+PW", given.cg, given.co)),
            "DW+SCC": call(sliding),
            "DW+SCC, each pair fused": call(fused(sliding)),
        }
        policy = TimingPolicy(cache="warm", max_seconds=2.0)
        if device == "cuda":
            policy = replace(policy, mode="graph")
        timings = time_interleaved(calls, device=device, policy=policy)
    return {name: timing.median_us for name, timing in timings.items()}


def trainings(given: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for each training as it ends."""
    spawned = multiprocessing.get_context("spawn")
    wanted = [(kind, seed) for seed in range(given.seeds) for kind in given.kinds]
    with ProcessPoolExecutor(given.processes or len(wanted), mp_context=spawned) as pool:
        jobs = [pool.submit(train, kind, seed, given) for kind, seed in wanted]
        for job in as_completed(jobs):
            yield job.result()


def main() -> None:
    """Train all, or time both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--cg", type=int, default=2)
    parser.add_argument("--co", type=float, default=0.5)
    parser.add_argument("--processes", type=int, help="at once; by default all")
    parser.add_argument("--train", type=int, help="training images")
    parser.add_argument("--test", type=int, help="test images")
    parser.add_argument("--latency", action="store_true", help="time instead of training")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, object] = {"epochs": given.epochs}
    if given.out is not None and given.out.exists():
        found = json.loads(given.out.read_text())
    for kind in KINDS:
        params, macs = sizes(network(kind, given.cg, given.co))
        found[kind] = {"params": params, "macs": macs}
        say(f"{kind:<7} {params:,} parameters, {macs:,} multiply-accumulates")
    if given.latency:
        for batch in (1, 128):
            found[f"batch {batch}, us"] = times = latencies(given, batch)
            say(f"batch {batch}: " + ", ".join(f"{k} {v:.1f} us" for k, v in times.items()))
    else:
        rows: list[Row] = []
        for row in trainings(given):
            rows.append(row)
            say(f"{row['kind']:<7} seed {row['seed']}  {row['accuracy']:.2f} %")
            found["rows"] = rows
            if given.out is not None:
                given.out.write_text(json.dumps(found, indent=1))
        for kind in given.kinds:
            reached = [float(str(row["accuracy"])) for row in rows if row["kind"] == kind]
            say(f"{kind:<7} mean {statistics.fmean(reached):.2f} %")
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
