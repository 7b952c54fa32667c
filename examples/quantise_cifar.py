r"""Accuracy of CIFAR-10 networks of few bits: one recipe of training for all precisions.

A ResNet is fine-tuned in float32 from given weights. From there it is trained further with each
precision, all with the same recipe, float32 among them: labels and the answers of the float32
network count half each, and first and last layer keep float32. The packed network, which runs on
codes, is then judged beside the one that was trained.

    python examples/quantise_cifar.py cifar10_jpeg.npz --weights cifar10_resnet20.npz \
        --layers 20 --out resnet20.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from cifar import Data, ResNet, accuracy, guesses, load, say
from torch import nn
from torch.nn import functional as F

from evaluators.accuracy.graphed import GraphedGradients
from kernels.arbitrary_precision.convert import calibrate, pack, to_arbitrary_precision

State = dict[str, torch.Tensor]
Row = dict[str, float | str]

BATCH = 256
SOFTNESS = 2.0  # of the answers that a network learns from
REAL = "fp32"


def loss_of(y: torch.Tensor, labels: torch.Tensor, taught: torch.Tensor | None) -> torch.Tensor:
    """Return the loss of outputs, from labels and from what a teacher put out."""
    hard = F.cross_entropy(y, labels)
    if taught is None:
        return hard
    soft = F.cross_entropy(y / SOFTNESS, (taught / SOFTNESS).softmax(1))
    return (hard + SOFTNESS**2 * soft) / 2


def train(
    model: nn.Module,
    data: Data,
    epochs: int,
    rate: float,
    name: str,
    teacher: nn.Module | None = None,
) -> None:
    """Train with Adam and one cycle of the rate; steps move a fiftieth as far as weights."""
    named = dict(model.named_parameters())
    steps = [p for key, p in named.items() if key.endswith("_step")]
    plain = [p for key, p in named.items() if p.dim() <= 1 and not key.endswith("_step")]
    weights = [p for key, p in named.items() if p.dim() > 1 and not key.endswith("_step")]
    groups = [
        {"params": weights, "weight_decay": 1e-2},
        {"params": plain, "weight_decay": 0.0},
        {"params": steps, "weight_decay": 0.0},
    ]
    device = torch.device(data.device)
    optimiser = torch.optim.AdamW(groups, fused=device.type == "cuda")
    size = min(BATCH, len(data.x))
    count = epochs * (len(data.x) // size)
    rates = [rate, rate, rate / 50]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, count + 1, pct_start=0.1)

    def gradients(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                taught = None if teacher is None else teacher(x).float()
            loss = loss_of(model(x).float(), y, taught)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        return loss.detach()

    fill = GraphedGradients(gradients, device) if device.type == "cuda" else gradients
    generator = torch.Generator().manual_seed(0)
    start = time.perf_counter()
    for epoch in range(epochs):
        model.train()
        for x, y in data.batches(size, generator):
            loss = fill(x, y)
            optimiser.step()
            schedule.step()
        seconds = time.perf_counter() - start
        say(f"{name} epoch {epoch + 1}: loss {float(loss):.3f}, {seconds:.0f} s")


def network(layers: int, state: State | None, device: str) -> nn.Module:
    """Return a network on a device, with weights where they are given."""
    made = ResNet(layers)
    if state is not None:
        made.load_state_dict(state)
    return made.to(device, memory_format=torch.channels_last)


def trained(bits: str, given: argparse.Namespace, state: State) -> Row:
    """Train a copy of the network with a precision; return its row of the table."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # whole numbers stay whole
    data = Data(given.data, given.device, given.train, given.test)
    model = network(given.layers, state, given.device)
    row: Row = {"bits": bits}
    if bits != REAL:
        to_arbitrary_precision(model, bits)
        sample = data.normal(data.x[:1024])
        calibrate(model, sample.split(256))
        row["calibrated"] = accuracy(model, data)
    teacher = network(given.layers, state, given.device).eval()
    train(model, data, given.epochs, given.rate, bits, teacher)
    row["trained"] = accuracy(model, data)
    if bits != REAL:
        before = guesses(model, data)
        packed = pack(model)
        row["packed"] = accuracy(packed, data)
        row["same answers"] = 100 * float((guesses(packed, data) == before).double().mean())
        if given.device == "cuda":  # kernels on planes of bits read 16-bit numbers
            found = guesses(packed.half(), data, torch.float16)
            row["packed, fp16"] = 100 * float((found == data.test[1]).double().mean())
    return row


def main() -> None:
    """Tune the network in float32, train it with each precision, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--bits", nargs="+", default=["w4a4", "w2a2", REAL, "w1a2", "w8a8"])
    parser.add_argument("--together", type=int, default=2, help="trainings at a time")
    parser.add_argument("--tune", type=int, default=10, help="epochs in float32 before")
    parser.add_argument("--epochs", type=int, default=25, help="with rounding")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--train", type=int, help="training images")
    parser.add_argument("--test", type=int, help="test images")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    given.device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    start = time.perf_counter()
    data = Data(given.data, given.device, given.train, given.test)
    model = ResNet(given.layers)
    load(model, given.weights)
    model = model.to(given.device, memory_format=torch.channels_last)
    rows: list[Row] = [{"bits": "as given", "trained": accuracy(model, data)}]
    train(model, data, given.tune, given.rate, "tuning")
    rows.append({"bits": "fp32, tuned", "trained": accuracy(model, data)})
    state = {key: value.cpu() for key, value in model.state_dict().items()}
    say("\n".join(map(str, rows)))
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.together, mp_context=spawned) as pool:
        jobs = [pool.submit(trained, bits, given, state) for bits in given.bits]
        for job in as_completed(jobs):
            rows.append(job.result())
            say(f"{rows[-1]}  ({time.perf_counter() - start:.0f} s)")
            if given.out is not None:
                given.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
