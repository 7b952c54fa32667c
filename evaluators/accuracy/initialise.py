"""Fresh weights from a seed alone, and the one place where a global RNG is borrowed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from kernels.errors import NasError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_EMBEDDING_STD = 0.02
"""As in GPT-2: with torch's deviation of 1, logits of tied embeddings would begin far apart."""


def initialise(module: nn.Module, seed: int) -> None:
    """Give every parameter a value that depends on ``seed`` and the module's structure only.

    Convolutions get Kaiming normal weights (fan-out within a group, ReLU gain) and zero biases,
    token embeddings small normal ones.
    Any other module that holds parameters is asked to ``reset_parameters()``: norms become 1 and
    0 with fresh statistics. Submodules are visited in registration order, their names play no
    part. No global RNG is changed.

    Args:
        module: initialised in place, on its own device.
        seed: a non-negative integer.

    Raises:
        NasError: a submodule holds parameters and cannot reset them.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with seeded(seed, device):
        for name, child in module.named_modules():
            _initialise_one(name, child)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of the CPU and ``device``, and give back their states on exit."""
    index: int | None = None
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
    with torch.random.fork_rng(devices=[] if index is None else [index]):
        # NOTE: torch.manual_seed would also seed every other device, which nothing restores.
        torch.default_generator.manual_seed(seed)
        if index is not None:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def _initialise_one(name: str, module: nn.Module) -> None:
    if isinstance(module, _CONVOLUTIONS):
        # PyTorch's own fan-out forgets the groups: a depthwise filter would start far too small.
        fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        return
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=_EMBEDDING_STD)
        return
    # MultiheadAttention spells it with an underscore.
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if callable(reset):
        reset()
    elif next(module.parameters(recurse=False), None) is not None:
        raise NasError(
            f"Cannot initialise {name or 'the module'} ({type(module).__name__}): it holds "
            "parameters but has no reset_parameters(); add one."
        )
