"""How much of a trained network's magnitude each way of grouping rows keeps.

    python examples/retained_importance.py model.safetensors --v 32 --density 0.25
    python examples/retained_importance.py 4096x1024 --v 64

Every matrix and filter of a safetensors or npz file that has two groups of V rows or more is
pruned with rows grouped by exchanges, by the published K-means, and left as they are (vector-wise).
Sizes in place of a file stand for one matrix of N(0, 1).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from kernels.shfl_bw.pattern import as_matrix
from kernels.shfl_bw.prune import GROUPINGS, prune


def weights(path: Path, v: int, skip: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of a file that can be pruned."""
    if not path.suffix:
        rows, columns = map(int, path.name.split("x"))
        generator = torch.Generator().manual_seed(0)
        state = {"N(0, 1)": torch.randn(rows, columns, generator=generator)}
    elif path.suffix == ".npz":
        with np.load(path) as file:
            state = {name: torch.from_numpy(file[name]) for name in file.files}
    else:
        state = load_file(path)
    for name, weight in state.items():
        if weight.dim() in (2, 4) and len(weight) >= 2 * v and (not skip or skip not in name):
            yield name, weight.float()


def main() -> None:
    """Print a row for each weight, and the whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--v", type=int, default=32)
    parser.add_argument("--density", type=float, default=0.25)
    parser.add_argument("--skip", default="embeddings", help="leave out names that contain this")
    parser.add_argument("--every", type=int, default=1, help="take every n-th weight")
    given = parser.parse_args()
    total, kept = 0.0, dict.fromkeys(GROUPINGS, 0.0)
    seconds, worse = dict.fromkeys(GROUPINGS, 0.0), 0
    found = list(weights(given.file, given.v, given.skip))[:: given.every]
    for name, weight in found:
        matrix = as_matrix(weight).abs().double()
        total += float(matrix.sum())
        row = {}
        for grouping in GROUPINGS:
            start = time.perf_counter()
            pattern = prune(weight, given.v, given.density, grouping=grouping)
            seconds[grouping] += time.perf_counter() - start
            row[grouping] = float((matrix * pattern.mask).sum())
            kept[grouping] += row[grouping]
        worse += row["exchange"] < row["kmeans"]
        shares = ", ".join(f"{g} {share / float(matrix.sum()):.4f}" for g, share in row.items())
        sys.stdout.write(f"{name:<60} {tuple(matrix.shape)!s:<14} {shares}\n")
        sys.stdout.flush()
    shares = ", ".join(f"{g} {kept[g] / total:.4f} ({seconds[g]:.2f} s)" for g in GROUPINGS)
    sys.stdout.write(f"all {len(found)}: {shares}; exchange below K-means in {worse}\n")


if __name__ == "__main__":
    main()
