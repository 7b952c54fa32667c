"""The examples do what they say, and as well as scikit-learn does it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, load_sample_image
from sklearn.neighbors import KNeighborsClassifier

from kernels.extended_precision.nearest import kmeans

EXAMPLES = Path(__file__).parents[3] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("implementation", ["torch", "reference"])
def test_digits_by_their_neighbours(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        monkeypatch.setenv("NAS_KERNEL_EXTENDED_PRECISION", implementation)
    data, labels = load_digits(return_X_y=True)
    theirs = KNeighborsClassifier(5).fit(data[:-500], labels[:-500])
    score = theirs.score(data[-500:], labels[-500:])
    assert example("nearest_neighbours").main() == pytest.approx(score, abs=0.003)


def test_a_photograph_in_16_colours() -> None:
    pixels = load_sample_image("china.jpg")[::3, ::3].reshape(-1, 3) / 255
    theirs = KMeans(16, n_init=1, random_state=0).fit(pixels)
    error = (theirs.inertia_ / pixels.size) ** 0.5
    assert error / 2 < example("kmeans").main() < 1.2 * error


def test_rounds_of_k_means_are_those_of_scikit_learn() -> None:
    data = load_digits().data.astype("float32")
    x = torch.from_numpy(data)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    theirs = KMeans(10, init=data[order[:10]], n_init=1, max_iter=100, tol=0).fit(data)
    ours = kmeans(x, 10, rounds=101)
    assert ours.inertia[-1] == pytest.approx(theirs.inertia_, rel=1e-5)
    assert torch.equal(ours.labels, torch.from_numpy(theirs.labels_).long())
