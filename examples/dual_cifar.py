r"""Accuracy of a CIFAR-10 network most of whose convolutions' outputs are skipped by an estimate.

Given weights are fine-tuned on the images first: that is the baseline, which is also trained on
for as long as the dual network is. How much each layer may skip follows from what that costs. The
dual network is then trained as it will run: outputs whose estimate lies below a layer's threshold
are not computed, and ever more of them. Little modules are fitted anew meanwhile. In the end
everything is put into `DualModuleConv2d` layers, which are what is measured.

    python examples/dual_cifar.py cifar10_jpeg.npz --blocks 9 --weights cifar10_resnet56.npz \
        --out resnet56.json
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from cifar import Data, accuracy, say
from dual_resnet import DualConv, Network
from torch import nn
from torch.nn import functional as F

from kernels.dual_module.report import report

_SHARES = torch.linspace(0.0, 0.98, 50)  # that a layer may be given


class Sgd:
    """SGD with Nesterov's momentum whose rate is a tensor, so that a CUDA graph can hold a step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.rate = torch.zeros((), device=next(model.parameters()).device)
        self.parameters = [*model.parameters()]
        self.momenta = [torch.zeros_like(p) for p in self.parameters]
        self.decays = [decay if p.dim() > 1 else 0.0 for p in self.parameters]

    def reset(self) -> None:
        """Forget what trial steps left behind."""
        torch._foreach_zero_(self.momenta)

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
    model: Network,
    data: Data,
    epochs: float,
    rate: float,
    teacher: Network | None,
    *,
    refits: int = 0,
    seconds: float = math.inf,
) -> None:
    """Train with SGD, bfloat16 and a cosine schedule, in place; on a GPU a step is a CUDA graph.

    Args:
        model: to be trained.
        data: to train on.
        epochs: passes over it.
        rate: the highest.
        teacher: whose outputs are to be reached too.
        refits: how often little modules are fitted anew, until a quarter of the steps is left. The
            shares that layers keep rise to their goals in the first half.
        seconds: fewer passes are made where they would take longer than this.
    """
    optimiser = Sgd(model, 5e-4)
    generator = torch.Generator().manual_seed(0)
    size = min(512 if data.device == "cuda" else 64, len(data.x))
    x, y = (part.clone() for part in next(data.batches(size, generator)))

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, data.device == "cuda", cache_enabled=False):
            found = model(x)
            loss = F.cross_entropy(found, y)
            if teacher is not None:
                with torch.no_grad():
                    wanted = teacher(x).float().softmax(1)
                loss = 0.3 * loss + 0.7 * F.cross_entropy(found, wanted)
        for parameter in optimiser.parameters:
            parameter.grad = None
        loss.backward()
        optimiser.step()

    model.train()
    replay = _captured(step) if data.device == "cuda" else step
    steps = max(1, round(epochs * (len(data.x) // size)))
    if seconds < math.inf:
        steps = min(steps, max(1, int(0.9 * seconds / _seconds_of(replay, optimiser))))
    optimiser.reset()
    say(f"{steps} steps of {size} images")
    batches = (batch for _ in range(steps) for batch in data.batches(size, generator))
    for done, (images, labels) in zip(range(steps), batches, strict=False):
        share = done / steps
        if int(share / 0.75 * refits) > int((done - 1) / steps / 0.75 * refits) and share <= 0.75:
            fit_estimates(model, images)
        for layer in model.convolutions():
            layer.share.fill_(layer.begin + (layer.goal - layer.begin) * min(1.0, 2 * share))
        x.copy_(images)
        y.copy_(labels)
        optimiser.rate.fill_(rate * min(1.0, 10 * share) * 0.5 * (1 + math.cos(math.pi * share)))
        replay()
        if done % max(1, steps // 10) == steps // 10 - 1:
            say(f"  step {done + 1}: {accuracy(model, data):.2f} %")
            model.train()


def _seconds_of(replay: Callable[[], None], optimiser: Sgd) -> float:
    """Return what a step takes, while its rate is zero."""
    start = time.perf_counter()
    for _ in range(10):
        replay()
    optimiser.rate.item()  # waits for the GPU
    return (time.perf_counter() - start) / 10


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
def fit_estimates(model: Network, x: torch.Tensor) -> None:
    """Fit little modules to what their layers see of normalised images, some of them mixed."""
    seen: list[torch.Tensor] = []
    layers, training = model.convolutions(), model.training
    handles = [c.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for c in layers]
    model.eval()
    model(x[:256])
    model.train(training)
    for handle, layer, given in zip(handles, layers, seen, strict=True):
        handle.remove()
        layer.fit(given)


def harm(model: Network, data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each share costs each layer (layers, shares), and thresholds of the shares.

    An output that keeps its estimate moves the loss by the change of its activation times the
    loss' gradient, to first order. Squares of that are added up, each layer by itself.
    """
    model.eval()
    layers = model.convolutions()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def take(layer: nn.Module, given: tuple[torch.Tensor, ...], z: torch.Tensor) -> None:
        assert isinstance(layer, DualConv)
        z.retain_grad()
        seen.append((layer.estimate(*given).detach(), z))

    handles = [layer.register_forward_hook(take) for layer in layers]
    rows = slice(None, None, max(1, len(data.x) // 256))
    F.cross_entropy(model(data.normal(data.x[rows])), data.y[rows], reduction="sum").backward()
    costs, thresholds = [], []
    for (estimate, z), handle in zip(seen, handles, strict=True):
        handle.remove()
        assert z.grad is not None
        cost = (z.grad * (F.relu(estimate) - z.detach())).square().flatten()
        ordered, order = estimate.flatten().sort()
        sums = F.pad(cost[order].double().cumsum(0), (1, 0))
        places = (_SHARES.to(sums.device) * len(ordered)).long()
        costs.append(sums[places])
        thresholds.append(ordered[places].float())
    return torch.stack(costs), torch.stack(thresholds)


def share_out(model: Network, data: Data, target: float) -> None:
    """Give each layer the share that it shall keep, so that they keep the target by operations.

    Shares cost least in all where one more operation saved costs every layer the same. Training
    begins where little is lost, at a part of the shares.

    Args:
        model: with fitted little modules and everything computed.
        data: to measure on.
        target: share of the layers' multiply-accumulates.
    """
    layers = model.convolutions()
    costs, thresholds = harm(model, data)
    macs = torch.tensor([layer.macs for layer in layers], dtype=torch.double, device=costs.device)
    shares = _SHARES.to(costs)
    low, high = -60.0, 60.0  # of a price of operations, by powers of two
    for _ in range(100):
        price = 2.0 ** ((low + high) / 2)
        best = (costs - price * macs[:, None] / macs.sum() * shares).argmin(1)
        found = float((shares[best] * macs).sum() / macs.sum())
        low, high = (low, (low + high) / 2) if found > target else ((low + high) / 2, high)
    for layer, of, place in zip(layers, thresholds, best.tolist(), strict=True):
        layer.goal, layer.begin = float(shares[place]), 0.8 * float(shares[place])
        layer.threshold.copy_(of[(shares <= layer.begin).sum() - 1])
    say(f"keep {found:.3f}: {' '.join(f'{layer.goal:.2f}' for layer in layers)}")


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
    parser.add_argument(
        "--tune", type=float, default=40, help="epochs of the dual network, at most"
    )
    parser.add_argument("--seconds", type=float, default=math.inf, help="of the dual network's")
    parser.add_argument("--target", type=float, default=0.74, help="share that is not computed")
    parser.add_argument("--bits", type=int, default=4, help="of a little weight")
    parser.add_argument("--part", type=int, default=2, help="channels over their projection")
    parser.add_argument("--train", type=int, help="training images")
    parser.add_argument("--test", type=int, help="test images")
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--refits", type=int, default=12)
    parser.add_argument("--out", type=Path, help="rows as JSON; networks are kept beside it")
    given = parser.parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = Data(given.data, device, given.train, given.test)
    model = Network(given.blocks, given.wide, given.bits, given.part)
    if given.weights is not None:
        model.load(given.weights)
    model = model.to(device, memory_format=torch.channels_last)
    start = time.perf_counter()
    rows: list[dict[str, object]] = []

    def write(what: str, made: Network, row: dict[str, object]) -> None:
        rows.append({"what": what, **row})
        say(f"{time.perf_counter() - start:.0f} s: {json.dumps(rows[-1])}")
        if given.out is not None:
            given.out.write_text(json.dumps(rows, indent=1))
            torch.save(made.state_dict(), given.out.with_suffix(f".{what.replace(' ', '-')}.pt"))

    train(model, data, given.epochs, given.rate if given.weights else 0.4, None)
    write("dense", model, {"accuracy": accuracy(model, data)})
    teacher, dual = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
    fit_estimates(dual, data.normal(data.x[:256]))
    share_out(dual, data, given.target)
    started = time.perf_counter()
    limits = {"refits": given.refits, "seconds": given.seconds}
    train(dual, data, given.tune, given.rate, teacher, **limits)
    took = time.perf_counter() - started
    row = {name: getattr(given, name) for name in ("target", "bits", "part", "tune", "rate")}
    row |= {"trained": accuracy(dual, data), "seconds": took, **measured(finish(dual), data)}
    write("dual", dual, row)
    train(model, data, given.tune, given.rate, teacher, seconds=min(given.seconds, took))
    write("dense, trained on", model, {"accuracy": accuracy(model, data)})


if __name__ == "__main__":
    main()
