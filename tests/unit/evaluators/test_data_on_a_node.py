"""One copy of a data set for all processes of a machine."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from evaluators.accuracy.data import AnyDataset, Dataset, Split, TextSplit, load_dataset, node
from evaluators.accuracy.data.node import kept, node_name, packed, shared, size_of
from kernels.shared_arrays import publish

LICENCE = Path(__file__).parents[3] / "LICENSE"
NAMES = ["digits?train=100", f"text:{LICENCE}?context=16"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.shared_arrays.cache_dir", lambda: tmp_path)
    monkeypatch.setattr(node, "_mapped", {})


def equal(one: AnyDataset, two: AnyDataset) -> bool:
    for entry in fields(one):
        mine, theirs = getattr(one, entry.name), getattr(two, entry.name)
        if isinstance(mine, Split):
            same = torch.equal(mine.images, theirs.images)
            same &= torch.equal(mine.labels, theirs.labels)
        elif isinstance(mine, TextSplit):
            same = torch.equal(mine.ids, theirs.ids) and mine.context == theirs.context
        else:
            same = mine == theirs
        if not same:
            return False
    return type(one) is type(two)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_published_is_the_same_data_set(name: str) -> None:
    dataset = load_dataset(name)
    assert kept(dataset.fingerprint) is None
    publish(node_name(dataset.fingerprint), *packed(dataset))
    found = kept(dataset.fingerprint)
    assert found is not None
    assert equal(found, dataset)
    assert found is kept(dataset.fingerprint), "mapped once"
    assert size_of(dataset) > 1000
    again = pickle.loads(pickle.dumps(dataset))
    assert again.train is found.train, "a process that gets it takes the machine's copy"


@pytest.mark.parametrize("name", NAMES)
def test_a_large_set_is_loaded_by_one_process_of_a_machine(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(name)
    loads: list[str] = []

    def load() -> AnyDataset:
        loads.append(name)
        return dataset

    found = [shared(dataset.fingerprint, load) for _ in range(2)]
    assert loads == [name]
    assert all(equal(item, dataset) for item in found)
    monkeypatch.setattr(node, "_mapped", {})  # as in another process
    assert equal(shared(dataset.fingerprint, load), dataset)
    assert loads == [name]


def test_another_data_set_than_was_asked_for_is_not_kept() -> None:
    dataset = load_dataset(NAMES[0])
    assert isinstance(dataset, Dataset)
    other = replace(dataset, fingerprint="0" * 32)
    assert shared("1" * 32, lambda: other) is other
    assert kept("1" * 32) is None
