"""Tables of what pays at each layer: for whose trials, and how they are timed."""

from __future__ import annotations

import pytest

from kernels.errors import NasError
from studies.storage import Repository
from studies.variant_tables import _evaluator, measure_trial_variants
from tests.unit.studies.fakes import cheap_config


def test_layers_are_timed_as_the_studys_first_latency_is():
    objectives = ["params", "latency_ms[batch=8,dtype=bfloat16,mode=compile]", "latency_ms"]
    evaluator = _evaluator(cheap_config(objectives=objectives))
    assert (evaluator.batch, evaluator.dtype) == (8, "bfloat16")
    assert evaluator.mode != "compile"
    assert _evaluator(cheap_config(objectives=["params", "macs"])).batch == 1


def test_an_unknown_study_and_trial_are_named(tmp_path):
    with Repository.open(tmp_path / "record.db") as repository:
        repository.add_study("s", cheap_config(name="s").to_json(), conditions={}, versions={})
    with pytest.raises(NasError, match="Unknown study"):
        measure_trial_variants(tmp_path, "t", 0)
    with pytest.raises(NasError, match="no trial 3"):
        measure_trial_variants(tmp_path, "s", 3)
