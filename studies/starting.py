"""A study of a trained model: the space of its variants, and the weights they begin from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

import torch

from evaluators.accuracy.evaluator import Start
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.build import build, weights_by_node
from search_spaces.models import load_model
from search_spaces.offers import variant_space
from search_spaces.space import DataSpec, Space
from search_spaces.trace import trace
from studies.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model as a study has it.

    Attributes:
        architecture: traced, with the model's weights.
        space: of its variants.
        start: its weights, kept in the workspace.
    """

    architecture: Architecture
    space: Space
    start: Start


def trained_model(
    reference: str, data: DataSpec, place: Workspace, kinds: Sequence[str] = ()
) -> Trained:
    """Trace a model, and keep its weights where every worker finds them.

    Args:
        reference: see :func:`search_spaces.models.load_model`.
        data: whose samples it reads.
        place: where the study is recorded.
        kinds: of variants to search; empty for all.

    Raises:
        NasError: it cannot be loaded or traced, a kind of variants is unknown, or none of its
            layers has a variant that can run here.
    """
    architecture = trace(load_model(reference), data.input_shape)
    space = variant_space(f"variants of {reference}", architecture, kinds)
    if not space.sample(Random(0), data).decisions:
        raise NasError(
            f"{reference} was read ({architecture.params:,} parameters), but no variant of its "
            "layers can run here, so there is nothing to search."
        )
    module = build(architecture)
    weights = {
        name: item.detach().cpu() for name, item in weights_by_node(module, architecture).items()
    }
    digest = blake2b(architecture.topology_key.encode(), digest_size=16)
    for name, item in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(item.contiguous().view(-1).view(torch.uint8).numpy().data)
    key = digest.hexdigest()
    place.weights.save(key, weights)
    return Trained(architecture, space, Start(key, place.weights.load))
