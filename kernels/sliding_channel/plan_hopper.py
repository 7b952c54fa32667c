"""Which shapes the Hopper kernels take, and the stages they run with; imports no torch.

Their products are of a whole warpgroup (``wgmma``), 64 pixels each; weights lie in shared memory.
"""

from __future__ import annotations

from kernels.sliding_channel.plan import Plan, Structure, constants, shared_limit

CAPABILITY = (9, 0)
"""The one that has these instructions."""

TILE = 64
"""Pixels of a tile."""

_WARPGROUPS = 2
_PRODUCTS = (16, 32, 64, 128)  # columns of the products that instructions.cuh has
_MOST_SUMS = 256  # of a pixel in one block: half the registers
_MOST_STAGES = 12
_BESIDE = 2048  # bytes of barriers, and what alignment may cost


def refuses_forward(s: Structure) -> str | None:
    """Return why the forward kernel does not take these windows, None if it does."""
    if s.c_in % 64 or s.width % 16 or s.shift % 16:
        return (
            "windows must start at multiples of 16 channels and be multiples of 16 wide, of a "
            f"multiple of 64 input channels, not {s.c_in} in windows of {s.width} shifted by "
            f"{s.shift}"
        )
    if s.period > 8 or s.period & (s.period - 1):
        return f"windows must repeat after 1, 2, 4 or 8 outputs, not {s.period}"
    split = _forward_split(s)
    if s.c_out not in [q * s.period * split for q in _PRODUCTS] or s.c_out % 32:
        return f"output channels must be {_PRODUCTS} times {s.period * split}, not {s.c_out}"
    if s.period * s.width % 64:
        return f"{s.period} windows of {s.width} channels are no multiple of 64"
    return _refuses_weights(2 * s.c_out * s.width // split, s.c_in, _channels(s.c_in))


def refuses_input_gradient(s: Structure) -> str | None:
    """Return why the kernel of the input's gradient does not take these windows."""
    if s.period not in (2, 4, 8):
        return f"windows must repeat after 2, 4 or 8 outputs, not {s.period}"
    if s.width % s.chunk or s.chunk not in (32, 64, 128):
        return f"windows must share 32, 64 or 128 channels, not {s.chunk} of {s.width}"
    split = _gradient_split(s)
    if split > 2 or s.period % split:
        return f"at most 512 input channels, not {s.c_in}"
    least = max(16, 64 // s.members) * s.period
    if s.c_out % least or s.c_out % 64:
        return f"output channels must be a multiple of {max(least, 64)}, not {s.c_out}"
    return _refuses_weights(_gradient_bytes(s), s.c_out, _gradient_channels(s))


def forward_plan(s: Structure, *, bias: bool = False, **chosen: int) -> Plan:
    """Return the plan of the forward product.

    Args:
        s: the windows; :func:`refuses_forward` must take them.
        bias: whether one is added.
        chosen: constants to use instead of the rule's own.
    """
    split = _forward_split(s)
    return _plan(
        "forward_hopper.cu",
        constants(s) | {"SPLIT": split, "BIAS": int(bias)},
        2 * s.c_out * s.width // split,
        {"CHANNELS": _channels(s.c_in)} | chosen,
    )


def input_gradient_plan(s: Structure, **chosen: int) -> Plan:
    """Return the plan of the input's gradient; see :func:`forward_plan`."""
    inverse = pow(s.shift // s.chunk, -1, s.period)
    return _plan(
        "input_gradient_hopper.cu",
        constants(s) | {"SPLIT": _gradient_split(s), "CHUNK": s.chunk, "INVERSE": inverse},
        _gradient_bytes(s),
        {"CHANNELS": _gradient_channels(s)} | chosen,
    )


def _plan(file: str, defines: dict[str, int], weights: int, chosen: dict[str, int]) -> Plan:
    """Return a plan whose stages take the memory that bytes of weights leave."""
    stage = 2 * TILE * chosen["CHANNELS"]
    room = shared_limit(CAPABILITY) - _BESIDE - weights
    stages = chosen.get("STAGES", min(_MOST_STAGES, room // stage))
    rest = {
        "WARPGROUPS": _WARPGROUPS,
        "WARPS": 4 * (_WARPGROUPS + 1),
        "STAGES": stages,
        "BLOCKS_PER_SM": 1,
        "PIXELS": TILE,
    }
    shared = weights + stages * stage + _BESIDE
    return Plan(file, tuple(sorted((defines | rest | chosen).items())), shared)


def _refuses_weights(weights: int, total: int, channels: int) -> str | None:
    room = shared_limit(CAPABILITY) - _BESIDE - weights
    # Warpgroups take tiles in turn, and may wait for the next round of a stage, not the one after.
    if room < 2 * TILE * channels * max(4, total // channels + 1):
        return f"{weights} bytes of weights do not fit in shared memory beside {total} channels"
    return None


def _channels(count: int) -> int:
    """Return how many channels a stage takes."""
    return min(128, count & -count)


def _forward_split(s: Structure) -> int:
    return -(-s.c_out // _MOST_SUMS)


def _gradient_split(s: Structure) -> int:
    return -(-s.c_in // _MOST_SUMS)


def _gradient_bytes(s: Structure) -> int:
    return 2 * s.c_in * s.members * s.per_window // _gradient_split(s)


def _gradient_channels(s: Structure) -> int:
    return max(16 * s.period, _channels(s.c_out))
