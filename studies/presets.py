"""What a study begins with: baselines, networks from files, and variants in all layers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels.errors import NasError, UnknownNameError
from search_spaces.architecture import Architecture
from search_spaces.offers import everywhere
from search_spaces.space import Candidate, DataSpec, Space
from search_spaces.trace import trace
from studies.config import StudyConfig

BASELINE = "baseline"
"""Who proposed a trial that is there to be compared with: on no front, told to no sampler."""
_ZOO = "torchvision:"


@dataclass(frozen=True, slots=True)
class Preset:
    """A candidate that the settings name.

    Attributes:
        candidate: without decisions where it need not be in the space.
        origin: ``{"by": "baseline", "name": ...}``, ``{"by": "enqueued", "file": ...}`` or
            ``{"by": "everywhere", "variant": ...}``.
    """

    candidate: Candidate
    origin: Mapping[str, Any]


def presets(config: StudyConfig, data: DataSpec, space: Space) -> tuple[Preset, ...]:
    """Return what a study evaluates first: baselines, what is enqueued, then variants everywhere.

    The latter only where the study is one of a trained model.

    Raises:
        NasError: one cannot be read, or does not fit the data.
    """
    named = list(_named(config, data))
    if config.from_model is None:
        return tuple(named)
    met = {item.candidate.architecture.key for item in named}
    return (
        *named,
        *(
            Preset(candidate, {"by": "everywhere", "variant": variant})
            for variant, candidate in everywhere(space, data)
            if candidate.architecture.key not in met
        ),
    )


def _named(config: StudyConfig, data: DataSpec) -> Iterator[Preset]:
    for name in config.baselines:
        yield Preset(Candidate(_baseline(name, data), {}), {"by": BASELINE, "name": name})
    for file in config.enqueue:
        architecture = read_architecture(file)
        shapes = [node.shape for node in architecture.inputs]
        if shapes != [data.input_shape]:
            raise NasError(f"{file} takes inputs {shapes}, the data gives {data.input_shape}.")
        yield Preset(Candidate(architecture, {}), {"by": "enqueued", "file": file})


def read_architecture(file: str | Path) -> Architecture:
    """Read an architecture's JSON.

    Raises:
        NasError: the file cannot be read or holds no architecture.
    """
    try:
        document = json.loads(Path(file).read_text(encoding="utf-8"))
        return Architecture.from_json(document)
    except (OSError, ValueError) as problem:
        raise NasError(f"Cannot read the architecture {file}: {problem}.") from None


def _baseline(name: str, data: DataSpec) -> Architecture:
    if not name.startswith(_ZOO):
        raise NasError(f"Expected a baseline torchvision:NAME, got {name!r}.")
    from torchvision import models

    model = name.removeprefix(_ZOO)
    if model not in models.list_models(module=models):
        raise UnknownNameError("torchvision model", model, models.list_models(module=models))
    network = models.get_model(model, weights=None, num_classes=data.classes)
    if data.input_shape[0] != 3:
        raise NasError(f"{name} takes images of 3 channels, the data has {data.input_shape[0]}.")
    return trace(network.eval(), data.input_shape)
