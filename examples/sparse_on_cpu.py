"""A linear layer at 75 % sparsity on a CPU: packed weights beside the dense product.

    python examples/sparse_on_cpu.py --threads 2

Both are the layers that a user would call, token-major, timed in turn with caches left cold.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import torch
from torch.nn import functional as F

from kernels.shfl_bw.module import ShflBWLinear, synthetic
from kernels.timing import TimingPolicy, time_interleaved

SIZES = (
    # tokens, in, out
    (512, 1024, 4096),
    (512, 4096, 4096),
    (64, 4096, 4096),
    (1, 4096, 4096),
)
DENSITY = 0.25


def main() -> None:
    """Print a row for each size and V."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--v", type=int, nargs="+", default=[32, 64, 128])
    given = parser.parse_args()
    policy = TimingPolicy(threads=given.threads, max_seconds=3.0, warmup_max_seconds=1.0)
    for tokens, features, out in SIZES:
        torch.manual_seed(0)
        x = torch.randn(tokens, features)
        for v in given.v:
            packed = synthetic(out, features, v, DENSITY)
            layer, weight = ShflBWLinear.from_packed(packed), packed.dense()
            with torch.no_grad():
                wrong = float((layer(x) - F.linear(x, weight)).norm() / F.linear(x, weight).norm())
                timings = time_interleaved(
                    {"packed": partial(layer, x), "dense": partial(F.linear, x, weight)},
                    policy=policy,
                )
            packed_us, dense_us = (timings[name].median_us for name in ("packed", "dense"))
            sys.stdout.write(
                f"{tokens:4} tokens {features}->{out} V{v:<4} packed {packed_us / 1e3:8.3f} ms  "
                f"dense {dense_us / 1e3:8.3f} ms  ratio {dense_us / packed_us:5.2f}  "
                f"error {wrong:.0e}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
