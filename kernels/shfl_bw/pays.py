"""Whether the Hopper kernel is expected to be faster than torch's dense product; imports no torch.

Estimates in microseconds, from measurements on one H100 (``docs/kernels.md``).
"""

from __future__ import annotations

from kernels.shfl_bw.plan import HEIGHTS, choose, estimate

_SMS = 132
_DENSE_FLOPS = 760e6  # a microsecond, of cuBLAS in half types; cuDNN's convolutions are slower
_DENSE_START = 4.0
_MARGIN = 0.95  # of the dense product's time, below which ours is expected to win
_MOVED_BYTES = 3.2e6  # a microsecond, read and written by a transposition beside a product
_MOVE_START = 1.0


def refuses_cost(
    groups: int,
    v: int,
    columns: int,
    density: float,
    tokens: int,
    *,
    turned: tuple[int, int] | None,
    convolution: bool = False,
) -> str | None:
    """Return why the dense product is expected to be as fast, None if it is not.

    Args:
        groups: of V rows.
        v: rows of a group.
        columns: of the weight: input features, times the window of a convolution.
        density: share of the vectors that is kept.
        tokens: columns of the input: tokens, or output pixels of all images.
        turned: elements of input and output where they must be transposed; None where they lie
            feature-major already.
        convolution: whether it gathers from images.
    """
    dense = _DENSE_START + 2.0 * groups * v * columns * tokens / _DENSE_FLOPS
    bundle = max(1, HEIGHTS[0] // v)  # groups that go together, and what they keep of the columns
    kept = columns * (1.0 - (1.0 - density) ** bundle)
    groups, v = -(-groups // bundle), max(v, HEIGHTS[0])
    plan = choose(v, groups, kept, tokens, sms=_SMS, convolution=convolution)
    ours = estimate(plan, groups, kept, tokens, sms=_SMS)
    for elements in turned or ():
        ours += _MOVE_START + 4.0 * elements / _MOVED_BYTES
    if ours < _MARGIN * dense:
        return None
    return f"expected to take {ours:.0f} us, the dense product {dense:.0f} us"
