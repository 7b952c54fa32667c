"""Loading: official splits, subsets, users' functions, and the way to another process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.accuracy.data import load_dataset, make_dataset, make_split_dataset
from evaluators.accuracy.data.reference import parse_reference
from kernels.errors import NasError, UnknownNameError

ROOT = Path(__file__).parents[3]


def pixels(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def rows(*parts: torch.Tensor) -> list[bytes]:
    return sorted(image.numpy().tobytes() for part in parts for image in part)


# --- official splits and subsets


def test_own_test_split_stays_and_a_tenth_of_each_class_validates() -> None:
    train, test = pixels(100, 1, 4, 4), pixels(30, 1, 4, 4, seed=1)
    data = make_split_dataset("d", (train, np.arange(100) % 2), (test, np.arange(30) % 2))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [90, 10, 30]
    assert data.validation.labels.bincount().tolist() == [5, 5]
    assert np.array_equal(data.test.images.numpy(), test)
    assert rows(data.train.images, data.validation.images) == rows(torch.from_numpy(train))


def test_own_validation_split_stays() -> None:
    parts = [(pixels(n, 1, 4, 4, seed=n), np.arange(n) % 2) for n in (20, 8, 6)]
    data = make_split_dataset("d", *parts)
    kept = (data.train, data.test, data.validation)
    assert [len(split) for split in kept] == [20, 8, 6]
    for split, (images, _) in zip(kept, parts, strict=True):
        assert np.array_equal(split.images.numpy(), images)


@pytest.mark.parametrize(
    "test", [pixels(30, 1, 5, 4), pixels(30, 3, 4, 4), np.zeros((30, 1, 4, 4))]
)
def test_splits_of_unlike_images_are_an_error(test: np.ndarray) -> None:
    with pytest.raises(NasError, match="every split needs images like the training images'"):
        make_split_dataset("d", (pixels(30, 1, 4, 4), np.arange(30) % 2), (test, np.arange(30) % 2))


def test_statistics_of_bytes_are_those_of_the_training_images() -> None:
    data = make_dataset("d", pixels(60, 3, 4, 4), np.arange(60) % 2)
    train = data.train.images.numpy() / 255
    assert data.mean == pytest.approx(train.mean((0, 2, 3)))
    assert data.std == pytest.approx(train.std((0, 2, 3)))
    seen = data.train.batch(torch.arange(len(data.train)))
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert data.black == pytest.approx(
        [float((0 - m) / s) for m, s in zip(data.mean, data.std, strict=True)]
    )


def test_bytes_and_floats_of_equal_pixels_have_fingerprints_of_their_own() -> None:
    x = pixels(60, 1, 4, 4)
    prints = {make_dataset("d", images, np.arange(60) % 2).fingerprint for images in (x, x / 255)}
    assert len(prints) == 2


def test_a_subset_keeps_proportions_and_is_the_same_each_time(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], [120, 60, 20])
    np.savez(tmp_path / "d.npz", x=pixels(200, 4, 4), y=labels)
    whole = load_dataset(f"npz:{tmp_path}/d.npz")
    name = f"npz:{tmp_path}/d.npz?train=30&validation=10"
    part = load_dataset(name)
    load_dataset.cache_clear()
    assert load_dataset(name).fingerprint == part.fingerprint != whole.fingerprint
    assert part.name == name
    assert [len(s) for s in (part.train, part.validation, part.test)] == [30, 10, 40]
    assert part.train.labels.bincount().tolist() == [18, 9, 3]
    assert part.validation.labels.bincount().tolist() == [6, 3, 1]
    for mine, all_of_it in ((part.train, whole.train), (part.validation, whole.validation)):
        assert set(rows(mine.images)) <= set(rows(all_of_it.images))
    assert part.mean == pytest.approx(part.train.images.numpy().mean((0, 2, 3)) / 255)


def test_a_subset_has_the_size_asked_for_whatever_the_rounding() -> None:
    for count in (10, 11, 537, 1000):
        data = load_dataset(f"digits?train={count}")
        shares = load_dataset("digits").train.labels.bincount() * (count / 1079)
        assert len(data.train) == count
        assert (data.train.labels.bincount() - shares).abs().max() <= 1.5
        assert data.train.labels.bincount().min() >= 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits?train=1080", "a subset of 1080 training images .* has 1079 of 10 classes"),
        ("digits?test=9", "a subset of 9 test images"),
        ("digits?train=0", "positive whole number"),
        ("digits?train=ten", "positive whole number"),
        ("digits?train=20&train=30", "give train once"),
        ("digits?trian=20", "Unknown data option 'trian'.*Did you mean 'train'"),
        ("digits?", "Unknown data option ''"),
        ("digits?size=16", "size is for folder:PATH only"),
    ],
)
def test_bad_options_are_one_clear_error(name: str, message: str) -> None:
    with pytest.raises(NasError, match=message):
        load_dataset(name)


def test_a_reference_without_options_keeps_everything() -> None:
    place, options = parse_reference("npz:a/b.npz")
    assert (place, options.subset, options.size) == ("npz:a/b.npz", (None, None, None), None)


# --- functions


FUNCTIONS = """
import numpy as np
from evaluators.accuracy.data import make_dataset

def arrays():
    return np.arange(480, dtype=np.uint8).reshape(30, 4, 4), np.arange(30) % 2

def dataset():
    return make_dataset("inner", *[a[:, None] if a.ndim == 3 else a for a in arrays()])

def one():
    return arrays()[0]

def uneven():
    return [np.zeros((4, 4)), np.zeros((5, 4))], [0, 1]

def broken():
    raise KeyError("disk")

constant = 3
"""


@pytest.fixture
def functions(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    return str(tmp_path / "mine.py")


def test_a_function_gives_arrays_or_a_data_set(functions: str) -> None:
    by_arrays = load_dataset(f"{functions}:arrays")
    by_set = load_dataset(f"{functions}:dataset")
    assert by_arrays.fingerprint == by_set.fingerprint
    assert by_set.name == f"{functions}:dataset"
    assert len(load_dataset(f"{functions}:arrays?train=4").train) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one", "must return .images, labels. or a Dataset, got ndarray"),
        ("uneven", "arrays of one size"),
        ("broken", "raised KeyError: 'disk'"),
        ("constant", "constant raised TypeError"),
        ("nothing", "Unknown data set in .*'nothing'"),
        ("dataset?train=4", "returns a Dataset, which is taken as it is"),
    ],
)
def test_a_function_that_gives_no_data(functions: str, name: str, message: str) -> None:
    with pytest.raises(NasError, match=message):
        load_dataset(f"{functions}:{name}")


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(NasError, match="Cannot import 'no_such_module'"):
        load_dataset("no_such_module:data")
    with pytest.raises(UnknownNameError, match=r"cifar10.*digits"):
        load_dataset("cifar")


# --- pickling


def test_a_data_set_of_a_name_travels_as_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=pixels(60, 16, 16), y=np.arange(60) % 2)
    for name in ("digits?train=50", f"npz:{tmp_path}/d.npz"):
        data = load_dataset(name)
        sent = pickle.dumps(data)
        assert len(sent) < 1000
        load_dataset.cache_clear()
        again = pickle.loads(sent)
        assert (again.name, again.fingerprint) == (name, data.fingerprint)
        assert torch.equal(again.train.images, data.train.images)


def test_a_relative_path_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "d.npz", x=pixels(60, 16, 16), y=np.arange(60) % 2)
    monkeypatch.chdir(tmp_path)
    data = load_dataset("npz:d.npz?train=20")
    code = (
        "import pickle, sys; sys.path.insert(0, sys.argv[1]);"
        "data = pickle.load(sys.stdin.buffer); print(data.name, data.fingerprint)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)],
        input=pickle.dumps(data),
        check=True,
        cwd="/",
        stdout=subprocess.PIPE,
    ).stdout.decode()
    assert out.split() == ["npz:d.npz?train=20", data.fingerprint]


def test_a_file_that_changed_is_a_clear_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=pixels(60, 8, 8), y=np.arange(60) % 2)
    sent = pickle.dumps(load_dataset(f"npz:{tmp_path}/d.npz"))
    np.savez(tmp_path / "d.npz", x=pixels(60, 8, 8, seed=1), y=np.arange(60) % 2)
    load_dataset.cache_clear()
    with pytest.raises(NasError, match=r"d\.npz' has changed: its fingerprint was"):
        pickle.loads(sent)


@pytest.mark.parametrize("images", [pixels(60, 1, 8, 8), pixels(60, 1, 8, 8) / 255])
def test_a_data_set_of_no_name_travels_as_arrays(images: np.ndarray) -> None:
    data = make_dataset("digits", images, np.arange(60) % 2)
    again = pickle.loads(pickle.dumps(data))
    assert (again.fingerprint, again.mean) == (data.fingerprint, data.mean)
    assert torch.equal(again.train.batch(slice(9)), data.train.batch(slice(9)))
