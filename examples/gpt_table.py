"""A table and a space of one's own for ``nas bench search``: GPT-2-like language models.

The figures are what the surrogate networks of HW-GPT-Bench predict for its smallest space: they
are no measurements. Heads and MLP ratio are chosen for each third of the layers, so that the table
holds all of the space. Write the table, then let samplers search it::

    python examples/gpt_table.py hwgpt_surrogates.npz gpt.csv.gz
    nas bench search --table gpt.csv.gz --space examples/gpt_table.py --task=-perplexity,memory
"""

import csv
import gzip
import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from search_spaces.architecture.graph import Value
from search_spaces.builder import NetworkBuilder
from search_spaces.choose import Chooser, Option
from search_spaces.space import DataSpec, space

WIDTHS, DEPTHS, RATIOS, HEADS = (192, 384, 768), (10, 11, 12), (2, 3, 4), (4, 8, 12)
THIRDS = range(3)
TOKENS, VOCABULARY = 1024, 50_257


@space("gpt-thirds", version=1)
def gpt_thirds(choose: Chooser, data: DataSpec) -> Value:
    """GPT-2's blocks; heads and MLP ratio by third of the depth. What the data is plays no part."""
    width, depth = choose("width", WIDTHS), choose("depth", DEPTHS)
    bias = choose("bias", (True, False))
    ratios = [choose(f"third{third}/ratio", RATIOS) for third in THIRDS]
    heads = [choose(f"third{third}/heads", HEADS) for third in THIRDS]
    net = NetworkBuilder((TOKENS,), VOCABULARY)
    embedding = net.embedding(net.input, width)
    x = net.positions(embedding)
    for layer in range(depth):
        third = 3 * layer // depth
        y = net.self_attention(
            net.norm(x, "ln", name="norm1"),
            heads=heads[third],
            head_dim=width // heads[third],
            causal=True,
            bias=bias,
        )
        x = net.add(x, y)
        hidden = width * ratios[third]
        x = net.add(x, net.mlp(net.norm(x, "ln", name="norm2"), hidden, kind="gelu", bias=bias))
    return net.unembedding(net.norm(x, "ln"), embedding)


def every_member() -> Iterator[dict[str, Option]]:
    """Yield the answers that lead to each network."""
    names = ["width", "depth", "bias"]
    names += [f"third{third}/{what}" for what in ("ratio", "heads") for third in THIRDS]
    options = [WIDTHS, DEPTHS, (True, False), *[RATIOS] * 3, *[HEADS] * 3]
    for answers in itertools.product(*options):
        yield dict(zip(names, answers, strict=True))


def describe(answers: Mapping[str, Option]) -> tuple[list[float], list[float]]:
    """Return what the surrogates of perplexity and of memory read, 80 and 27 numbers."""
    depth = int(answers["depth"])
    of = {
        what: [int(answers[f"third{3 * layer // depth}/{what}"]) for layer in range(depth)]
        for what in ("ratio", "heads")
    }
    hot = [*_hot(answers["width"], WIDTHS), *_hot(depth, DEPTHS)]
    for what, options in (("ratio", RATIOS), ("heads", HEADS)):
        hot += [number for value in of[what] for number in _hot(value, options)]
        hot += [0.0] * 3 * (DEPTHS[-1] - depth)
    hot += _hot(answers["bias"], (True, False))
    scaled = [_share(int(answers["width"]), WIDTHS), _share(depth, DEPTHS)]
    for what, options in (("ratio", RATIOS), ("heads", HEADS)):
        scaled += [_share(value, options) for value in of[what]] + [-1.0] * (DEPTHS[-1] - depth)
    return hot, [*scaled, float(bool(answers["bias"]))]


def _hot(value: Option, options: tuple[Option, ...]) -> list[float]:
    return [float(value == option) for option in options]


def _share(value: int, options: tuple[int, ...]) -> float:
    return (value - options[0]) / (options[-1] - options[0])


def predict(
    weights: Mapping[str, npt.NDArray[np.float32]], name: str, rows: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return what a surrogate says, (n,): four hidden layers with ReLU, then one output."""
    for layer in range(1, 6):
        rows = rows @ weights[f"{name}.w{layer}"].T + weights[f"{name}.b{layer}"]
        rows = np.maximum(rows, 0.0) if layer < 5 else rows
    return rows[:, 0]


def main(surrogates: Path, table: Path) -> None:
    """Write the table."""
    members = list(every_member())
    hot, scaled = (np.array(column) for column in zip(*map(describe, members), strict=True))
    with np.load(surrogates) as weights:
        perplexity = predict(weights, "s.perplexity", hot)
        memory = predict(weights, "s.bfloat16_memory", scaled)
    with gzip.open(table, "wt", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(
            ["index", *(f"answer:{name}" for name in members[0]), "perplexity", "memory"]
        )
        for place, figures in enumerate(zip(perplexity, memory, strict=True)):
            lines.writerow([place, *members[place].values(), *(f"{x:.6g}" for x in figures)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
