"""The sampler ``ehvi`` as an ordinary Optuna sampler: the contract that Optuna ships."""

import pytest
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from studies.samplers.ehvi.optuna_sampler import EhviSampler


class TestContract(BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return EhviSampler
