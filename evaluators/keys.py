"""Names of results that are paid once: equal keys mean that paying again could only repeat.

Every key is blake2b over canonical JSON, 32 hexadecimal digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b

from kernels.device import Device
from search_spaces.architecture import Architecture


def dense_key(
    architecture: Architecture,
    recipe_digest: str,
    *,
    data_fingerprint: str,
    seed: int,
    start: str = "",
) -> str:
    """Name dense weights: topology, recipe, data and seed; variants share their dense weights.

    Args:
        architecture: the network.
        recipe_digest: how it is trained.
        data_fingerprint: what it is trained on.
        seed: of the training, and of its fresh weights.
        start: names the weights that it begins from instead; empty for fresh ones.
    """
    begun = {"start": start} if start else {}
    return _digest(
        "dense",
        topology=architecture.topology_key,
        recipe=recipe_digest,
        data=data_fingerprint,
        seed=seed,
        **begun,
    )


def accuracy_key(
    architecture: Architecture, dense: str, *, variant_recipe: str = "", metric: str = "accuracy"
) -> str:
    """Name a reported accuracy.

    Args:
        architecture: the network with its variants.
        dense: the :func:`dense_key` of the weights it starts from.
        variant_recipe: digest of how variants are fine-tuned; empty where there are none.
        metric: the name the figure is recorded under: a result is found by key and metrics.
    """
    named = {} if metric == "accuracy" else {"metric": metric}
    return _digest(
        "accuracy", network=architecture.key, dense=dense, variant=variant_recipe, **named
    )


def measure_key(
    architecture: Architecture,
    device: Device,
    *,
    batch: int,
    dtype: str = "float32",
    layout: str = "contiguous",
    cache: str = "warm",
    mode: str = "eager",
    threads: int | None = None,
    phase: str = "",
    tokens: int = 0,
    versions: Mapping[str, str],
) -> str:
    """Name a measurement.

    Args:
        architecture: the network with its variants.
        device: equal models of device with the same driver share measurements.
        batch: images or sequences a forward pass.
        dtype: element type, a torch name without the prefix.
        layout: ``"contiguous"`` or ``"channels_last"``.
        cache: state of the caches before each sample: ``"warm"`` or ``"cold"``.
        mode: ``"eager"``, ``"graph"`` or ``"compile"``.
        threads: CPU threads; None where they play no part.
        phase: of a decoder: ``"prefill"`` or ``"decode"``; empty for a whole pass.
        tokens: length of a decoder's sequence; 0 for that of its input.
        versions: library to version; only major.minor counts.
    """
    # Left out of keys that were made before there were phases.
    decoding = {"phase": phase, "tokens": tokens} if phase or tokens else {}
    return _digest(
        "measure",
        network=architecture.key,
        device=[device.kind, device.name, device.cores, device.driver],
        batch=batch,
        dtype=dtype,
        layout=layout,
        cache=cache,
        mode=mode,
        threads=threads,
        **decoding,
        versions={name: ".".join(text.split(".")[:2]) for name, text in versions.items()},
    )


def _digest(kind: str, **content: object) -> str:
    text = json.dumps({"kind": kind, **content}, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).hexdigest()
