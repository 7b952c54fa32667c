"""Who proposes candidates: one small protocol, and a factory by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kernels.errors import UnknownNameError
from search_spaces.space import Candidate, DataSpec, Space
from studies.metrics import Direction
from studies.samplers.drafts import Draft, Drafter, DraftingSampler, network_key
from studies.samplers.evolution import Evolution
from studies.samplers.protocol import Free, Lesson, Proposal, Sampler, ask_seed
from studies.samplers.random_sampler import RandomSearch

__all__ = [
    "SAMPLERS",
    "Draft",
    "Drafter",
    "DraftingSampler",
    "Free",
    "Lesson",
    "Proposal",
    "Sampler",
    "ask_seed",
    "make_sampler",
]

SAMPLERS = {
    "ehvi": "Gaussian processes of answers and graphs, expected hypervolume improvement",
    "evolution": "children of the best so far, by mutation and crossover within scopes",
    "tpe": "Optuna's tree-structured Parzen estimator",
    "nsga2": "Optuna's NSGA-II",
    "nsga3": "Optuna's NSGA-III, for three objectives and more",
    "gp": "Optuna's Gaussian processes, for few and expensive trials",
    "random": "uniformly at random over answers",
}
"""The samplers by name, with what each does in a line."""


def make_sampler(
    name: str,
    space: Space,
    data: DataSpec,
    *,
    directions: Sequence[Direction],
    constraints: Sequence[str],
    seed: int,
    identify: Callable[[Candidate], str] = network_key,
    free: Callable[[Candidate], Free] | None = None,
) -> Sampler:
    """Return a sampler that was told nothing yet.

    Args:
        name: one of :data:`SAMPLERS`; or ``module:Name`` or ``path/to/file.py:Name``, where
            ``Name`` is an ``optuna.samplers.BaseSampler`` or makes one when called with ``seed=``.
        space: what is searched.
        data: what the space must know of the data.
        directions: of the objectives.
        constraints: their texts, as lessons name them.
        seed: of the study.
        identify: what tells candidates apart; lessons must have keys of the same kind.
        free: says what is known of a candidate without payment; ``ehvi`` makes use of it.

    Raises:
        NasError: there is no such sampler, or it cannot be made.
    """
    if name not in SAMPLERS and ":" not in name:
        raise UnknownNameError("sampler", name, SAMPLERS)
    if name == "ehvi":
        from studies.samplers.ehvi.drafter import ExpectedImprovement

        drafter: Drafter = ExpectedImprovement(
            space,
            data,
            directions=directions,
            constraints=constraints,
            seed=seed,
            identify=identify,
            free=free,
        )
    else:
        drafter = _drafter(name, space, data, directions, constraints, seed)
    return DraftingSampler(drafter, space, data, seed, identify)


def _drafter(
    name: str,
    space: Space,
    data: DataSpec,
    directions: Sequence[Direction],
    constraints: Sequence[str],
    seed: int,
) -> Drafter:
    if name == "random":
        return RandomSearch(space, data)
    if name == "evolution":
        return Evolution(space, data, directions=directions, constraints=constraints)
    # Optuna is loaded only where it is asked for.
    from studies.samplers.guided import Problem
    from studies.samplers.models import make_model

    problem = Problem(space, data, tuple(directions), tuple(constraints), seed)
    return make_model(name, problem)
