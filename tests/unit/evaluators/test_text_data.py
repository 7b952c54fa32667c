"""Texts as data: what cuts them, how they are split, and what may be wrong with a file."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.accuracy.data import TextDataset, load_dataset
from evaluators.accuracy.data.tokens import Tokeniser, fit
from kernels.errors import NasError
from search_spaces.space import DataSpec

LICENCE = Path(__file__).parents[3] / "LICENSE"
TEXT = LICENCE.read_text(encoding="utf-8")
SHARED = Path(__file__).parents[4] / "shared" / "data" / "text"


def load(text: str, options: str = "", *, at: Path) -> TextDataset:
    at.write_text(text, encoding="utf-8")
    load_dataset.cache_clear()
    made = load_dataset(f"text:{at}{options}")
    assert isinstance(made, TextDataset)
    return made


# What cuts a text.


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_bytes_and_pairs_give_every_text_back(text: str) -> None:
    for tokeniser in (fit("byte", ""), fit("bpe", TEXT[:3000], 300)):
        ids = tokeniser.encode(text)
        assert tokeniser.decode(ids) == text
        assert int(tokeniser.lengths[ids].sum()) == len(text.encode())


def test_characters_are_those_that_occur() -> None:
    letters = fit("char", "naïve")
    assert len(letters) == 5
    assert letters.decode(letters.encode("eïn")) == "eïn"
    assert letters.lengths.sum() == len("naïve".encode()) == 6
    with pytest.raises(NasError, match="The character 'z' is not among the 5"):
        letters.encode("z")


def test_the_most_frequent_pair_is_learned_first() -> None:
    """Of "abc", twice " abc" and " ab", by hand: ab (4 times), then " ab" before abc (3 each)."""
    pairs = fit("bpe", "abc abc abc ab", 300)
    assert pairs.tokens[256:] == (b"ab", b" ab", b" abc")  # no other pair occurs twice
    assert [pairs.tokens[i] for i in pairs.encode("abc abc")] == [b"ab", b"c", b" abc"]
    assert fit("bpe", "abc abc abc ab", 257).tokens[256:] == (b"ab",)


def test_pairs_shorten_text_that_is_like_the_one_they_were_learned_on() -> None:
    pairs = fit("bpe", TEXT[:8000], 512)
    assert len(pairs) == 512
    rest = TEXT[8000:]
    assert len(pairs.encode(rest)) < 0.6 * len(rest.encode())
    assert len(set(pairs.tokens)) == 512


def test_a_tokeniser_reads_back_from_json() -> None:
    for made in (fit("char", "añb"), fit("bpe", TEXT[:2000], 280)):
        again = Tokeniser.from_json(json.loads(json.dumps(made.to_json())))
        assert again == made
        assert again.encode("ab").tolist() == made.encode("ab").tolist()


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("words", 0, "Unknown kind of tokens 'words'"),
        ("bpe", 256, "more than 256, got 256"),
        ("char", 99, "tokens=char has its own"),
    ],
)
def test_what_no_tokeniser_can_be(kind: str, size: int, message: str) -> None:
    with pytest.raises(NasError, match=message):
        fit(kind, "abc", size)


# Splits.


def test_the_last_tenth_validates_and_the_first_tests(tmp_path: Path) -> None:
    data = load(TEXT, at=tmp_path / "a.txt")
    splits = data.test, data.train, data.validation
    parts = [data.tokeniser.decode(part.ids.tolist()) for part in splits]
    assert "".join(parts) == TEXT
    assert len(parts[0]) == pytest.approx(len(TEXT) / 10, abs=1)
    assert len(parts[2]) == pytest.approx(len(TEXT) / 10, abs=1)
    assert data.spec == DataSpec((128,), len(set(TEXT)), len(set(TEXT)))


def test_a_folder_gives_its_own_splits(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("ab" * 300)
    (tmp_path / "wiki").mkdir()
    (tmp_path / "valid.txt.gz").write_bytes(gzip.compress(b"ba" * 100))
    (tmp_path / "test.txt").write_text("abc" * 70)
    data = load_dataset(f"text:{tmp_path}?context=16")
    assert [len(part.ids) for part in (data.train, data.validation, data.test)] == [600, 200, 210]
    assert data.classes == 3  # of all splits: no text has to be refused
    (tmp_path / "test-2.txt").write_text("abc" * 70)
    with pytest.raises(NasError, match="expected one file test"):
        load_dataset(f"text:{tmp_path}?context=17")


def test_a_window_is_what_is_read_and_what_follows(tmp_path: Path) -> None:
    data = load(TEXT, "?context=8&tokens=byte&train=100", at=tmp_path / "a.txt")
    assert len(data.train.ids) == 100
    assert len(data.train) == 12
    read, follows = data.train.windows(torch.tensor([0, 91]))
    ids = data.train.ids.long()
    assert torch.equal(read, torch.stack([ids[0:8], ids[91:99]]))
    assert torch.equal(follows, torch.stack([ids[1:9], ids[92:100]]))
    assert bytes(ids.tolist()) == TEXT[len(TEXT) // 10 :].encode()[:100]


def test_fingerprints_follow_what_training_depends_on(tmp_path: Path) -> None:
    base = load(TEXT, at=tmp_path / "a.txt")
    assert load(TEXT, at=tmp_path / "b.txt").fingerprint == base.fingerprint
    others = [
        load(TEXT[:-1] + "x", at=tmp_path / "c.txt"),
        load(TEXT, "?context=64", at=tmp_path / "a.txt"),
        load(TEXT, "?tokens=byte", at=tmp_path / "a.txt"),
        load(TEXT, "?validation=900", at=tmp_path / "a.txt"),
    ]
    assert len({item.fingerprint for item in (base, *others)}) == 5


def test_it_travels_as_its_source(tmp_path: Path) -> None:
    data = load(TEXT, "?context=32", at=tmp_path / "a.txt")
    sent = pickle.dumps(data)
    assert len(sent) < 1000
    again = pickle.loads(sent)
    assert again.fingerprint == data.fingerprint
    (tmp_path / "a.txt").write_text(TEXT[100:], encoding="utf-8")
    load_dataset.cache_clear()
    with pytest.raises(NasError, match="has changed"):
        pickle.loads(sent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?context=5000", "the validation split has 1136 tokens, a context of 5000 needs more"),
        ("?tokens=word", "Unknown kind of tokens 'word'"),
        ("?contxt=5", "Unknown text option 'contxt'.*Did you mean 'context'"),
        ("?context=0x5", "give context once, as a whole number"),
        ("?context=5&context=6", "give context once"),
        ("?vocabulary=300", "A vocabulary is for tokens=bpe"),
    ],
)
def test_bad_options_are_one_clear_error(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(NasError, match=message) as caught:
        load(TEXT, options, at=tmp_path / "a.txt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b""])
def test_files_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "a.txt.gz").write_bytes(content or b"\x1f\x8b")
    for name in ("a.txt", "a.txt.gz", "missing.txt"):
        with pytest.raises(NasError, match=r"cannot be read as UTF-8|needs more"):
            load_dataset(f"text:{tmp_path / name}")


def test_tiny_shakespeare_is_the_usual_one() -> None:
    file = SHARED / "tinyshakespeare.txt.gz"
    if not file.is_file():
        pytest.skip(f"needs {file} (shared data beside the repository)")
    data = load_dataset(f"text:{file}")
    assert data.classes == 65
    assert len(data.validation.ids) == 111_540
    assert data.tokeniser.decode(data.validation.ids[:12].tolist()) == "?\n\nGREMIO:\nG"
    counts = np.bincount(data.train.ids.numpy(), minlength=65)
    assert counts.sum() == 892_315
