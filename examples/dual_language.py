r"""Perplexity of an LSTM whose gates' rows are computed where an estimate says they matter.

A language model is trained on text of characters or words. Its LSTM is then given little modules,
fitted to its own inputs; shares of rows that keep the estimate move from gate to gate while the
validation text gets no worse, half of all rows in the mean. The test text is read once.

    python examples/dual_language.py tinyshakespeare.txt.gz --out shakespeare.json
    python examples/dual_language.py wikitext2_valid.txt.gz wikitext2_test.txt.gz --unit word \
        --epochs 12 --dropout 0.65 --out wikitext.json
"""

from __future__ import annotations

import argparse
import copy
import gzip
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from kernels.dual_module.calibrate import (
    compute_everything,
    everything_computed,
    fit,
    some_of,
    watch,
)
from kernels.dual_module.recurrent import LSTM_GATES, DualModuleLSTM

STREAMS = 128  # that are read side by side when nothing is trained
_SAMPLE = 512  # estimates of a switch that are kept of one time step


def corpus(paths: Sequence[Path], unit: str) -> tuple[list[torch.Tensor], int]:
    """Return training, validation and test text as numbers (8 : 1 : 1), and the vocabulary."""
    text = "".join(gzip.decompress(path.read_bytes()).decode() for path in paths)
    symbols = list(text) if unit == "char" else text.replace("\n", " <eos> ").split()
    cuts = [0, len(symbols) * 8 // 10, len(symbols) * 9 // 10, len(symbols)]
    seen = Counter(symbols[: cuts[1]])
    least = 1 if unit == "char" else 2
    known = {s: i + 1 for i, s in enumerate(s for s, n in seen.items() if n >= least)}
    numbers = torch.tensor([known.get(s, 0) for s in symbols])
    return [numbers[a:b] for a, b in itertools.pairwise(cuts)], len(known) + 1


class Model(nn.Module):
    """An embedding, an LSTM, and the embedding again."""

    def __init__(self, vocabulary: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True, dropout=dropout)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.drop = nn.Dropout(dropout)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)

    def embed(self, text: torch.Tensor) -> torch.Tensor:
        """Map text (b, t) to the LSTM's input (b, t, h)."""
        embedded: torch.Tensor = self.drop(self.embedding(text))
        return embedded

    def logits(self, h: torch.Tensor) -> torch.Tensor:
        """Map the LSTM's output (b, t, h) to logits (b, t, vocabulary)."""
        return F.linear(self.drop(h), self.embedding.weight, self.bias)


def pieces(text: torch.Tensor, streams: int, length: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield text (streams, length) and what follows each symbol, piece by piece."""
    whole = (len(text) - 1) // streams * streams
    given, wanted = (text[i : i + whole].view(streams, -1) for i in (0, 1))
    yield from zip(given.split(length, 1), wanted.split(length, 1), strict=True)


Read = Callable[[torch.Tensor, object], tuple[torch.Tensor, object]]
"""Maps an LSTM's input and state to its output and next state."""


@torch.no_grad()
def perplexity(model: Model, read: Read, text: torch.Tensor) -> float:
    """Return the perplexity of a text with the model's LSTM or one in its place."""
    model.eval()
    state: object = None
    total, count = 0.0, 0
    for given, wanted in pieces(text, STREAMS, 64):
        h, state = read(model.embed(given), state)
        total += float(F.cross_entropy(model.logits(h).flatten(0, 1), wanted.flatten())) * (
            wanted.numel()
        )
        count += wanted.numel()
    return float(torch.tensor(total / count).exp())


def train(model: Model, text: torch.Tensor, valid: torch.Tensor, given: argparse.Namespace) -> None:
    """Train with Adam and a cosine schedule, and keep the best on the validation text, in place."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=given.rate, weight_decay=0.01)
    length = 96 if given.unit == "char" else 48
    per_epoch = len([*pieces(text, given.batch, length)])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, given.rate, given.epochs * per_epoch + 1, pct_start=0.1
    )
    best, kept = float("inf"), copy.deepcopy(model.state_dict())
    begin = time.perf_counter()
    for epoch in range(given.epochs):
        model.train()
        state = None
        for symbols, wanted in pieces(text, given.batch, length):
            h, (a, b) = model.lstm(model.embed(symbols), state)
            state = (a.detach(), b.detach())
            loss = F.cross_entropy(model.logits(h).flatten(0, 1), wanted.flatten())
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        found = perplexity(model, model.lstm, valid)
        if found < best:
            best, kept = found, copy.deepcopy(model.state_dict())
        seconds = time.perf_counter() - begin
        say(f"epoch {epoch + 1}: validation {found:.3f}, {seconds:.0f} s")
        if seconds > given.seconds:
            break
    model.load_state_dict(kept)


class Shares:
    """The share of rows of each gate that keep the estimate.

    Args:
        model: the language model.
        dual: its LSTM with fitted little modules.
        calibration: text on which thresholds are chosen.
    """

    def __init__(self, model: Model, dual: DualModuleLSTM, calibration: torch.Tensor) -> None:
        self.model, self.dual = model, dual
        self.switches = [s for cell in dual.cells for s in cell.switches()]  # type: ignore[operator]
        self.names = [
            f"{layer}.{i}.{gate}"
            for layer in range(len(dual.cells))
            for i, gate in enumerate(LSTM_GATES)
        ]
        self.shares = [0.5] * len(self.switches)
        seen: dict[str, list[torch.Tensor]] = {name: [] for name in self.names}

        def take(name: str, what: tuple[torch.Tensor, ...]) -> None:
            seen[name].append(some_of(what[0], _SAMPLE))

        with everything_computed(dual.cells):  # type: ignore[arg-type]
            named = dict(zip(self.names, self.switches, strict=True))
            watch(named, take, lambda: perplexity(model, dual, calibration))
        self.estimates = [torch.cat(seen[name]) for name in self.names]

    def score(self, text: torch.Tensor, shares: Sequence[float]) -> tuple[float, float]:
        """Set shares; return the perplexity of a text, and the share of rows that was kept."""
        for switch, estimates, share in zip(self.switches, self.estimates, shares, strict=True):
            switch.set_ratio(estimates, share)
            switch.reset()
        found = perplexity(self.model, self.dual, text)
        return found, sum(s.kept for s in self.switches) / sum(s.decided for s in self.switches)

    def search(self, text: torch.Tensor, seconds: float) -> None:
        """Move shares from switch to switch while the perplexity of a text falls."""
        end = time.perf_counter() + seconds
        best = self.score(text, self.shares)[0]
        step = 0.1
        while step > 0.02 and time.perf_counter() < end:
            gains = []
            for i in range(len(self.shares)):
                for sign in (1, -1):
                    moved = [
                        share + sign * step * (1.0 if j == i else -1 / (len(self.shares) - 1))
                        for j, share in enumerate(self.shares)
                    ]
                    if time.perf_counter() < end and min(moved) > 0.05 and max(moved) < 0.95:
                        gains.append((self.score(text, moved)[0], moved))
            if gains and min(gains)[0] < best:
                best, self.shares = min(gains)
                say(f"  step {step:.2f}: validation {best:.4f}")
            else:
                step /= 2

    def correct(self, text: torch.Tensor, ratio: float) -> None:
        """Shift all shares until a share of rows is kept of a text."""
        for _ in range(3):
            kept = self.score(text, self.shares)[1]
            self.shares = [min(0.98, max(0.02, s + ratio - kept)) for s in self.shares]


def run(given: argparse.Namespace, device: str) -> list[dict[str, object]]:
    """Train, fit, search, and return a row for each number of bits."""
    texts, vocabulary = corpus(given.text, given.unit)
    text, valid, test = (part.to(device) for part in texts)
    model = Model(vocabulary, given.hidden, given.layers, given.dropout).to(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    train(model, text, valid, given)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model.requires_grad_(False)
    calibration = text[: STREAMS * given.steps + 1]
    rows = []
    for bits in given.bits:
        dual = DualModuleLSTM.of(model.lstm, bits=bits).to(device)
        fit(dual, lambda dual=dual: perplexity(model, dual, calibration))  # type: ignore[misc]
        for cell in dual.cells:
            compute_everything(cell)  # type: ignore[arg-type]
        dense = perplexity(model, dual, test)
        shares = Shares(model, dual, calibration)
        equal = shares.score(test, shares.shares)
        if given.search:
            shares.search(valid[: STREAMS * given.steps + 1], given.search)
        shares.correct(valid, given.ratio)
        found, kept = shares.score(test, shares.shares)
        rows.append(
            {
                "text": [path.name for path in given.text],
                "unit": given.unit,
                "vocabulary": vocabulary,
                "hidden": given.hidden,
                "layers": given.layers,
                "bits": bits,
                "dense": dense,
                "dual": found,
                "loss_percent": 100 * (found / dense - 1),
                "kept": kept,
                "equal_shares": {"dual": equal[0], "kept": equal[1]},
                "shares": dict(zip(shares.names, shares.shares, strict=True)),
            }
        )
        say(
            f"{bits} bits: test {dense:.4f} -> {found:.4f} ({rows[-1]['loss_percent']:+.2f} %) at "
            f"{kept:.3f} kept; equal shares {equal[0]:.4f} at {equal[1]:.3f}"
        )
        if given.out is not None:
            given.out.write_text(json.dumps(rows, indent=1))
    return rows


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--unit", choices=["char", "word"], default="char")
    parser.add_argument("--hidden", type=int, default=650)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=1e9, help="of training, at most")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4])
    parser.add_argument("--steps", type=int, default=512, help="of calibration, a stream")
    parser.add_argument("--search", type=float, default=60.0, help="seconds; 0 keeps equal shares")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    run(given, "cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main()
