"""Data sets: splits are disjoint and fixed, statistics come from training images only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.accuracy.data import Dataset, Split, load_dataset, make_dataset
from kernels.errors import NasError, UnknownNameError

BALANCED = np.arange(40) % 2


def _images(n: int = 40, *, c: int = 1) -> np.ndarray:
    return np.random.default_rng(0).random((n, c, 4, 4)).astype(np.float32)


def test_digits_is_split_60_20_20_in_every_class() -> None:
    digits = load_dataset("digits")
    assert len(digits.train) + len(digits.validation) + len(digits.test) == 1797
    assert (digits.input_shape, digits.classes) == ((1, 8, 8), 10)
    everything = torch.cat([s.labels for s in (digits.train, digits.validation, digits.test)])
    for split, share in ((digits.train, 0.6), (digits.validation, 0.2), (digits.test, 0.2)):
        wanted = everything.bincount() * share
        # Two of three parts are rounded, the third takes both errors.
        assert (split.labels.bincount() - wanted).abs().max() <= 1


def test_digits_splits_share_no_image() -> None:
    digits = load_dataset("digits")
    seen = [
        {image.numpy().tobytes() for image in split.images}
        for split in (digits.train, digits.validation, digits.test)
    ]
    assert len(seen[0] | seen[1] | seen[2]) == sum(map(len, seen)) == 1797


def test_digits_normalisation_reproduces_raw_images() -> None:
    digits = load_dataset("digits")
    raw = digits.test.images * digits.std[0] + digits.mean[0]
    sixteenths = raw * 16
    torch.testing.assert_close(sixteenths, sixteenths.round(), atol=1e-4, rtol=0)
    assert digits.black[0] == pytest.approx(float(digits.train.images.min()), abs=1e-6)


def test_each_image_lands_in_exactly_one_split() -> None:
    images = np.zeros((40, 1, 1, 1)) + np.arange(40)[:, None, None, None] / 40
    data = make_dataset("d", images, BALANCED)
    raw = [s.images.flatten() * data.std[0] + data.mean[0] for s in _splits(data)]
    assert sorted((torch.cat(raw) * 40).round().int().tolist()) == list(range(40))


def test_statistics_ignore_validation_and_test_images() -> None:
    images = _images(c=3)
    data = make_dataset("d", images, BALANCED)
    train = data.train.images.double()
    torch.testing.assert_close(train.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-6, rtol=0)
    ones = torch.ones(3).double()
    torch.testing.assert_close(train.std((0, 2, 3), correction=0), ones, atol=1e-6, rtol=0)
    in_train = {row.tobytes() for row in _raw(data.train, data)}
    changed = images.copy()
    for index, image in enumerate(images):
        if np.round(image, 4).tobytes() not in in_train:
            changed[index] = 1.0
    assert (changed == 1.0).all((1, 2, 3)).sum() == 16
    other = make_dataset("d", changed, BALANCED)
    assert (other.mean, other.std) == (data.mean, data.std)
    assert other.fingerprint != data.fingerprint


def test_same_seed_same_split_and_fingerprint() -> None:
    first, again = (make_dataset("d", _images(), BALANCED) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert torch.equal(first.train.images, again.train.images)
    other = make_dataset("d", _images(), BALANCED, split_seed=1)
    assert other.fingerprint != first.fingerprint
    assert other.split_seed == 1


def test_fingerprint_of_digits_is_what_stored_results_are_keyed_by() -> None:
    assert load_dataset("digits").fingerprint == "9815bf13d281e0597ee30e90ae18a4a3"


def test_fingerprint_sees_labels_and_class_names() -> None:
    base = make_dataset("d", _images(), BALANCED)
    swapped = make_dataset("d", _images(), 1 - BALANCED)
    named = make_dataset("d", _images(), BALANCED, class_names=["cat", "dog"])
    assert len({base.fingerprint, swapped.fingerprint, named.fingerprint}) == 3


def test_a_data_set_is_loaded_once() -> None:
    assert load_dataset("digits") is load_dataset("digits")


def test_unknown_name_lists_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown data set 'digit'.*digits.*Did you mean"):
        load_dataset("digit")


def test_importing_data_and_recipes_loads_no_torch() -> None:
    code = (
        "import sys, evaluators.accuracy.data, evaluators.accuracy.recipe;"
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (_images(0), BALANCED[:0], "none empty"),
        (_images()[:, 0], BALANCED, r"\(n, c, h, w\)"),
        (_images() * 16, BALANCED, r"0\.\.1"),
        (_images() * np.float32("nan"), BALANCED, "40 of 40 images have NaN pixels"),
        ((_images() * 255).astype(np.int32), BALANCED, "uint8 or float images, got int32"),
        (np.array([None] * 40), BALANCED, "array of objects"),
        ([np.zeros((1, 4, 4)), np.zeros((1, 5, 5))], [0, 1], "arrays of one size"),
        (_images(), BALANCED[:-1], "40 images but 39 labels"),
        (_images(), BALANCED * 0, "at least two classes"),
        (_images(), BALANCED - 1, r"labels 0, 1, .*got \[-1, 0\]"),
        (_images(), BALANCED + 0.5, "integer labels"),
        (_images(), BALANCED * 2, "from 0 to 2 without a gap, but no training image has label 1;"),
        (_images(), (np.arange(40) < 2).astype(int), "at least 3 images in each"),
        (_images() * 0, BALANCED, "must vary"),
    ],
)
def test_bad_arrays_give_one_clear_error(
    images: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(NasError, match=message):
        make_dataset("bad", images, labels)


def test_more_labels_than_names_is_an_error() -> None:
    with pytest.raises(NasError, match="names 2 classes but has label 2"):
        make_dataset("bad", _images(), np.arange(40) % 3, class_names=["a", "b"])


def test_split_refuses_unmatched_tensors() -> None:
    labels = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(NasError, match="A split needs"):
        Split(torch.zeros(3, 1, 2, 2), labels[:2])
    with pytest.raises(NasError, match=r"levels to normalise them by, got torch\.uint8"):
        Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), labels)


@pytest.mark.parametrize("layout", ["nhw", "nhwc", "nchw"])
def test_npz_layouts_and_uint8(tmp_path: Path, layout: str) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (40, 3, 5, 6), dtype=np.uint8)
    stored = {"nhw": raw[:, 0], "nhwc": raw.transpose(0, 2, 3, 1), "nchw": raw}[layout]
    np.savez(tmp_path / "x.npz", x=stored, y=BALANCED)
    loaded = load_dataset(f"npz:{tmp_path / 'x.npz'}")
    direct = raw[:, :1] if layout == "nhw" else raw
    expected = make_dataset("d", direct.astype(np.float32) / 255, BALANCED)
    assert loaded.test.images.dtype == torch.uint8
    assert (loaded.mean, loaded.std) == (pytest.approx(expected.mean), pytest.approx(expected.std))
    got = loaded.test.batch(slice(None))
    torch.testing.assert_close(got, expected.test.images, atol=1e-5, rtol=0)
    assert torch.equal(loaded.test.labels, expected.test.labels)


@pytest.mark.parametrize("shape", [(40, 3, 4, 4), (40, 9, 9, 9), (40, 9)])
def test_npz_of_unclear_layout_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(shape), y=BALANCED)
    with pytest.raises(NasError, match="with one reading"):
        load_dataset(f"npz:{tmp_path / 'x.npz'}")


def test_unreadable_npz_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "objects.npz", x=np.array([None, 1]), y=BALANCED, allow_pickle=True)
    np.save(tmp_path / "one.npy", BALANCED)
    for name in ("text.npz", "torn.npz", "empty.npz", "objects.npz", "one.npy", "missing.npz"):
        with pytest.raises(NasError, match="not a readable"):
            load_dataset(f"npz:{tmp_path / name}")


def _splits(data: Dataset) -> tuple[Split, Split, Split]:
    return (data.train, data.validation, data.test)


def _raw(split: Split, data: Dataset) -> np.ndarray:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (data.mean, data.std))
    return np.round((split.images * std + mean).numpy(), 4)
