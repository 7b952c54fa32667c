import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from evaluators.keys import accuracy_key, dense_key, measure_key
from kernels.device import detect
from search_spaces.architecture import Architecture

NET = Architecture.parse("input 1x8x8; conv 4 k3 bn relu; gap; flatten; linear 10")
WIDER = Architecture.parse("input 1x8x8; conv 5 k3 bn relu; gap; flatten; linear 10")
VARIANT = NET.with_variant([1], "w1a2")
CPU = detect("cpu")
DENSE = {"recipe_digest": "r", "data_fingerprint": "d", "seed": 0}
MEASURE = {"batch": 1, "threads": 1, "versions": {"torch": "2.15.0"}}


def test_keys_are_32_hexadecimal_digits_and_repeat():
    keys = [
        dense_key(NET, **DENSE),
        accuracy_key(NET, dense_key(NET, **DENSE)),
        measure_key(NET, CPU, **MEASURE),
    ]
    assert all(re.fullmatch("[0-9a-f]{32}", key) for key in keys)
    assert len(set(keys)) == 3


def test_a_key_is_the_same_in_a_year():
    named = SimpleNamespace(topology_key="t")
    assert dense_key(named, **DENSE) == "e9c9ea49e2d4f185c85c34807054fbc2"


def test_variants_share_dense_weights_and_nothing_else():
    dense = dense_key(NET, **DENSE)
    assert dense_key(VARIANT, **DENSE) == dense
    assert accuracy_key(VARIANT, dense) != accuracy_key(NET, dense)
    assert accuracy_key(VARIANT, dense, variant_recipe="v") != accuracy_key(VARIANT, dense)
    assert measure_key(VARIANT, CPU, **MEASURE) != measure_key(NET, CPU, **MEASURE)


@pytest.mark.parametrize("change", [{"recipe_digest": "s"}, {"data_fingerprint": "e"}, {"seed": 1}])
def test_everything_that_changes_weights_changes_their_key(change):
    assert dense_key(NET, **{**DENSE, **change}) != dense_key(NET, **DENSE)
    assert dense_key(WIDER, **DENSE) != dense_key(NET, **DENSE)


@pytest.mark.parametrize(
    "change",
    [
        {"batch": 2},
        {"threads": 2},
        {"threads": None},
        {"dtype": "float16"},
        {"layout": "channels_last"},
        {"cache": "cold"},
        {"mode": "graph"},
        {"versions": {"torch": "2.16.0"}},
        {"versions": {"torch": "2.15.0", "cudnn": "9.1"}},
    ],
)
def test_every_condition_of_a_measurement_counts(change):
    assert measure_key(NET, CPU, **{**MEASURE, **change}) != measure_key(NET, CPU, **MEASURE)


def test_patch_releases_and_the_number_of_the_device_do_not_count():
    patched = {**MEASURE, "versions": {"torch": "2.15.1+cpu"}}
    assert measure_key(NET, CPU, **patched) == measure_key(NET, CPU, **MEASURE)
    assert measure_key(NET, replace(CPU, index=3), **MEASURE) == measure_key(NET, CPU, **MEASURE)
    other = replace(CPU, name="another processor")
    assert measure_key(NET, other, **MEASURE) != measure_key(NET, CPU, **MEASURE)
