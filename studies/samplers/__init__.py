"""Who proposes candidates: one small protocol, and a factory by name."""

from search_spaces.space import DataSpec, Space
from studies.config import StudyConfig
from studies.samplers.optuna_sampler import OptunaDecider, OptunaSampler
from studies.samplers.protocol import Sampler
from studies.samplers.random_sampler import RandomSampler

__all__ = ["OptunaDecider", "OptunaSampler", "RandomSampler", "Sampler", "make_sampler"]


def make_sampler(config: StudyConfig, space: Space, data: DataSpec) -> Sampler:
    """Return the sampler that a study asks for, with nothing told yet."""
    if config.sampler == "random":
        return RandomSampler(space, data, config.seed)
    return OptunaSampler(
        config.sampler,
        space,
        data,
        directions=[target.direction for target in config.targets],
        seed=config.seed,
    )
