"""Tables of what pays at each layer: for whose trials, and how they are timed."""

from __future__ import annotations

import pytest

from kernels.errors import NasError
from nas.jobs.showing import show_trial
from nas.jobs.showing_text import trial_text
from studies.search import run_study
from studies.storage import Repository
from studies.variant_tables import layer_evaluator, measure_trial_variants
from tests.unit.studies.fakes import cheap_config, space_file


def test_layers_are_timed_as_the_studys_first_latency_is():
    objectives = ["params", "latency_ms[batch=8,dtype=bfloat16,mode=compile]", "latency_ms"]
    evaluator = layer_evaluator(cheap_config(objectives=objectives))
    assert evaluator is not None
    assert (evaluator.batch, evaluator.dtype) == (8, "bfloat16")
    assert evaluator.mode != "compile"
    assert layer_evaluator(cheap_config(objectives=["params", "macs"])) is None


def test_what_pays_at_each_layer_is_shown_with_the_reasons(tmp_path):
    """Real times of a recorded network, on this machine."""
    run_study(cheap_config(space=space_file(tmp_path, [4]), trials=1), tmp_path)
    assert show_trial(tmp_path, "cheap", "0")["variants"] == ""
    table = measure_trial_variants(tmp_path, "cheap", 0)
    shown = show_trial(tmp_path, "cheap", "0")
    assert shown["variants"] == str(table)
    text = trial_text(shown)
    assert "What pays at each layer\ndevice: cpu" in text
    left_out = [row for row in table.rows if not row.offered]
    assert left_out
    assert all(f"left out: {row.reason}" in text for row in left_out)
    for file in (tmp_path / "artifacts").glob("*.json"):
        file.write_text("[]")
    assert "Cannot read the table of variants" in show_trial(tmp_path, "cheap", "0")["variants"]


def test_an_unknown_study_and_trial_are_named(tmp_path):
    with Repository.open(tmp_path / "record.db") as repository:
        repository.add_study("s", cheap_config(name="s").to_json(), conditions={}, versions={})
    with pytest.raises(NasError, match="Unknown study"):
        measure_trial_variants(tmp_path, "t", 0)
    with pytest.raises(NasError, match="no trial 3"):
        measure_trial_variants(tmp_path, "s", 3)
