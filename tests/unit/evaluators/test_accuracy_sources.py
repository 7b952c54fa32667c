"""Data sources: what people have on disk, and what may be wrong with it."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evaluators.accuracy.data import load_dataset
from kernels.environment import data_dir
from kernels.errors import NasError


def pixels(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def rows(*parts: torch.Tensor) -> list[bytes]:
    return sorted(image.numpy().tobytes() for part in parts for image in part)


# --- npz


@pytest.mark.parametrize("names", [("x_train", "y_train"), ("x", "y")])
def test_npz_with_its_own_test_split(tmp_path: Path, names: tuple[str, str]) -> None:
    train, test = pixels(40, 6, 5, 3), pixels(10, 6, 5, 3, seed=1)
    arrays = {names[0]: train, names[1]: np.arange(40) % 2, "x_test": test}
    np.savez(tmp_path / "d.npz", y_test=np.arange(10) % 2, class_names=["cat", "dog"], **arrays)
    data = load_dataset(f"npz:{tmp_path}/d.npz")
    assert np.array_equal(data.test.images.numpy(), test.transpose(0, 3, 1, 2))
    assert (len(data.train), len(data.validation)) == (36, 4)
    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": 1}, "holds a; expected arrays x and y"),
        ({"x": pixels(9, 4, 4)}, "one of x and y only"),
        ({"x": pixels(9, 4, 4), "y": np.zeros(9, int)}, "at least two classes"),
        ({"x": pixels(9, 4, 4), "y": np.arange(8) % 2}, "9 images but 8 labels"),
        ({"x": pixels(0, 4, 4), "y": np.zeros(0, int)}, "none empty"),
        (
            {"x": pixels(9, 4, 4), "y": np.arange(9) % 2, "x_test": pixels(2, 4, 4)},
            "one of x_test and y_test only",
        ),
    ],
)
def test_npz_with_the_wrong_arrays(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(NasError, match=message):
        load_dataset(f"npz:{tmp_path}/d.npz")


def encoded(images: np.ndarray, *, header: int) -> tuple[np.ndarray, np.ndarray]:
    """Write images as PNG one after the other, without the first ``header`` bytes of each."""
    data, offsets = b"", [0]
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        data += file.getvalue()[header:]
        offsets.append(len(data))
    return np.frombuffer(data, dtype=np.uint8), np.array(offsets, dtype=np.uint32)


def encoded_set(**changes: Any) -> dict[str, Any]:
    train, test = pixels(20, 6, 5, 3), pixels(6, 6, 5, 3, seed=1)
    arrays: dict[str, Any] = {"header": np.frombuffer(b"\x89PNG\r\n\x1a\n", dtype=np.uint8)}
    for which, images in (("train", train), ("test", test)):
        arrays[f"{which}_data"], arrays[f"{which}_offsets"] = encoded(images, header=8)
        arrays[f"{which}_labels"] = (np.arange(len(images)) % 2).astype(np.uint8)
    return {key: value for key, value in {**arrays, **changes}.items() if value is not None}


def test_npz_of_compressed_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", class_names=np.array(["cat", "dog"]), **encoded_set())
    data = load_dataset(f"npz:{tmp_path}/d.npz")
    assert data.input_shape == (3, 6, 5)
    # PNG is lossless: the pixels must be those that were written.
    train, test = (pixels(n, 6, 5, 3, seed=s).transpose(0, 3, 1, 2) for n, s in ((20, 0), (6, 1)))
    assert np.array_equal(data.test.images.numpy(), test)
    assert rows(data.train.images, data.validation.images) == rows(torch.tensor(train))
    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": None}, "train_data needs train_offsets and train_labels"),
        ({"train_offsets": np.array([0, 9, 5])}, "must rise from 0 to at most"),
        ({"train_offsets": np.array([0, 10**9])}, "must rise from 0 to at most"),
        ({"header": None}, "train image 0 cannot be decoded"),
        ({"test_labels": np.arange(5) % 2}, "6 images but 5 labels"),
    ],
)
def test_npz_of_broken_compressed_images(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "d.npz", **encoded_set(**changes))
    with pytest.raises(NasError, match=message):
        load_dataset(f"npz:{tmp_path}/d.npz")


def test_npz_of_compressed_images_of_several_sizes(tmp_path: Path) -> None:
    first, second = encoded(pixels(1, 6, 5), header=0), encoded(pixels(1, 6, 6), header=0)
    arrays = {
        "train_data": np.concatenate([first[0], second[0]]),
        "train_offsets": np.concatenate([first[1], second[1][1:] + first[1][-1]]),
        "train_labels": np.arange(2),
    }
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(NasError, match=r"image 0 is \(6, 5\), image 1 is \(6, 6\)"):
        load_dataset(f"npz:{tmp_path}/d.npz")


# --- folder


def write_images(
    folder: Path, count: int, *, classes: tuple[str, ...] = ("cat", "dog"), size: int = 6
) -> None:
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(pixels(count, size, size, 3, seed=c)):
            Image.fromarray(image).save(folder / name / f"{i}.png")


def test_folder_of_classes(tmp_path: Path) -> None:
    write_images(tmp_path, 10)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    data = load_dataset(f"folder:{tmp_path}")
    assert data.class_names == ("cat", "dog")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [12, 4, 4]
    everything = [data.train, data.validation, data.test]
    for label in (0, 1):
        found = rows(*(split.images[split.labels == label] for split in everything))
        assert found == rows(torch.tensor(pixels(10, 6, 6, 3, seed=label).transpose(0, 3, 1, 2)))


def test_folder_with_its_own_splits(tmp_path: Path) -> None:
    for name, count in (("train", 10), ("val", 4), ("test", 3)):
        write_images(tmp_path / name, count)
    data = load_dataset(f"folder:{tmp_path}")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [20, 8, 6]


def test_folder_brings_images_to_one_size_without_distortion(tmp_path: Path) -> None:
    # Left half black, right half white, and wide margins above and below that are cut off.
    tall = np.full((40, 16), 77, dtype=np.uint8)
    tall[12:28, :8], tall[12:28, 8:] = 0, 255
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.fromarray(tall if name == "cat" else 255 - tall[12:28]).save(
                tmp_path / name / f"{i}.png"
            )
    with pytest.raises(NasError, match=r"0.png is 16x40, 0.png is 16x16; name one: .*\?size=64"):
        load_dataset(f"folder:{tmp_path}")
    data = load_dataset(f"folder:{tmp_path}?size=8")
    assert data.input_shape == (1, 8, 8)
    cat = data.train.images[data.train.labels == 0][0, 0]
    # The first and last row are mixed with the margin.
    assert cat[1:7, :3].max() == 0
    assert cat[1:7, 5:].min() == 255


def test_folder_names_images_that_cannot_be_read(tmp_path: Path) -> None:
    write_images(tmp_path, 10)
    (tmp_path / "cat" / "3.png").write_bytes(b"no image")
    with pytest.raises(NasError, match=r"1 of 20 images cannot be read: .*cat/3\.png; remove"):
        load_dataset(f"folder:{tmp_path}")
    whole = (tmp_path / "cat" / "4.png").read_bytes()
    for i in range(5):
        (tmp_path / "dog" / f"{i}.png").write_bytes(whole[:60])
    (tmp_path / "cat" / "3.png").unlink()
    with pytest.raises(NasError, match=r"5 of 19 images .*0\.png, .*1\.png, .*2\.png and 2 more"):
        load_dataset(f"folder:{tmp_path}")


def test_folder_without_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(NasError, match="there is no folder"):
        load_dataset(f"folder:{tmp_path}/none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NasError, match="at least two classes, got none"):
        load_dataset(f"folder:{tmp_path}/empty")
    write_images(tmp_path / "one", 3, classes=("cat",))
    with pytest.raises(NasError, match="at least two classes, got cat"):
        load_dataset(f"folder:{tmp_path}/one")
    (tmp_path / "one" / "dog").mkdir()
    with pytest.raises(NasError, match=r"dog holds no image"):
        load_dataset(f"folder:{tmp_path}/one")
    write_images(tmp_path / "two" / "train", 3)
    write_images(tmp_path / "two" / "test", 3, classes=("cat", "cow"))
    with pytest.raises(NasError, match="must have the classes of the training folder; cow, dog"):
        load_dataset(f"folder:{tmp_path}/two")


# --- torchvision


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.tobytes())


def test_mnist_is_read_from_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_DATA_DIR", str(tmp_path))
    load_dataset.cache_clear()
    folder, labels = tmp_path / "MNIST" / "raw", (np.arange(200) % 10).astype(np.uint8)
    write_idx(folder / "train-images-idx3-ubyte", pixels(200, 28, 28))
    write_idx(folder / "train-labels-idx1-ubyte", labels)
    write_idx(folder / "t10k-images-idx3-ubyte", pixels(20, 28, 28, seed=1))
    write_idx(folder / "t10k-labels-idx1-ubyte", labels[:20])
    data = load_dataset("mnist")
    load_dataset.cache_clear()
    assert (data.input_shape, data.classes) == ((1, 28, 28), 10)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [180, 20, 20]
    assert np.array_equal(data.test.images.numpy()[:, 0], pixels(20, 28, 28, seed=1))
    assert data.class_names[7] == "7 - seven"


def test_cifar_is_read_from_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setenv("NAS_DATA_DIR", str(tmp_path))
    load_dataset.cache_clear()
    names = ["airplane", "automobile", *"abcdefgh"]
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def put(file: str, content: object) -> list[str]:
        (folder / file).write_bytes(pickle.dumps(content))
        return [file, hashlib.md5((folder / file).read_bytes()).hexdigest()]

    def part(n: int, seed: int) -> dict[str, object]:
        return {"data": pixels(n, 3072, seed=seed), "labels": [i % 10 for i in range(n)]}

    monkeypatch.setattr(CIFAR10, "train_list", [put("data_batch_1", part(200, 0))])
    monkeypatch.setattr(CIFAR10, "test_list", [put("test_batch", part(20, 1))])
    meta = put("batches.meta", {"label_names": names})
    about = {"filename": meta[0], "key": "label_names", "md5": meta[1]}
    monkeypatch.setattr(CIFAR10, "meta", about)
    data = load_dataset("cifar10?train=100")
    load_dataset.cache_clear()
    assert (data.input_shape, data.class_names) == ((3, 32, 32), tuple(names))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [100, 20, 20]
    assert np.array_equal(data.test.images.numpy(), pixels(20, 3072, seed=1).reshape(20, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "module"),
    [("cifar10", "cifar"), ("cifar100", "cifar"), ("mnist", "mnist"), ("fashion-mnist", "mnist")],
)
def test_a_download_that_fails_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    import importlib
    import urllib.error

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    place = importlib.import_module(f"torchvision.datasets.{module}")
    monkeypatch.setattr(place, "download_and_extract_archive", offline)
    monkeypatch.setenv("NAS_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(NasError, match=f"'{name}' is not in .* cannot be downloaded") as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value)
    assert "NAS_DATA_DIR" in str(caught.value)


def test_the_data_folder_is_in_the_cache_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAS_DATA_DIR", raising=False)
    monkeypatch.setenv("NAS_CACHE_DIR", "/somewhere")
    assert data_dir() == Path("/somewhere/data")
    monkeypatch.setenv("NAS_DATA_DIR", "~/sets")
    assert data_dir() == Path.home() / "sets"
