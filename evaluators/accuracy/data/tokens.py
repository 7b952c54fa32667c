"""From text to token ids and back: by character, by byte, or by pairs of bytes (BPE)."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from kernels.errors import NasError, UnknownNameError

Kind = Literal["char", "byte", "bpe"]
"""A token is a character that occurs, one of 256 bytes, or a sequence of bytes that is frequent."""

Ids = npt.NDArray[np.int64]

_BYTES = 256
_PIECES = re.compile(r" ?[^\W\d_]+| ?\d+| ?[^\w\s]+|\s+(?!\S)|\s+|_+")
"""Words with the space before them; no pair of bytes is merged across their borders."""


@dataclass(frozen=True)
class Tokeniser:
    """Text as ids of a fixed vocabulary.

    Attributes:
        kind: how text is cut.
        tokens: the bytes of each token, by id; of pairs in the order in which they were merged.

    Example:
        >>> letters = fit("char", "abba")
        >>> letters.encode("bab").tolist(), letters.decode([0, 1])
        ([1, 0, 1], 'ab')
    """

    kind: Kind
    tokens: tuple[bytes, ...]
    _known: dict[str, list[int]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def lengths(self) -> Ids:
        """The bytes of each token (len(self),)."""
        return np.array([len(token) for token in self.tokens], dtype=np.int64)

    @cached_property
    def _id_of(self) -> dict[bytes, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    def encode(self, text: str) -> Ids:
        """Return the ids (n,) of a text.

        Raises:
            NasError: a character is not in the vocabulary.
        """
        if self.kind == "char":
            known = {token.decode(): number for number, token in enumerate(self.tokens)}
            try:
                return np.array([known[item] for item in text], dtype=np.int64)
            except KeyError as missing:
                raise NasError(
                    f"The character {missing.args[0]!r} is not among the {len(self)} of the "
                    "training text; use tokens=byte or tokens=bpe."
                ) from None
        if self.kind == "byte":
            return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
        ids: list[int] = []
        for piece in _PIECES.findall(text):
            found = self._known.get(piece)
            if found is None:
                found = self._known[piece] = self._merged(piece.encode())
            ids += found
        return np.array(ids, dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; bytes that are no UTF-8 become a replacement character."""
        return b"".join(self.tokens[item] for item in ids).decode(errors="replace")

    def to_json(self) -> dict[str, Any]:
        """Return plain values; a byte stands as the character of its number."""
        return {"kind": self.kind, "tokens": [token.decode("latin-1") for token in self.tokens]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Tokeniser:
        """Read :meth:`to_json` back."""
        return cls(document["kind"], tuple(item.encode("latin-1") for item in document["tokens"]))

    def _merged(self, word: bytes) -> list[int]:
        """Join neighbours, the pair that was learned first before the others."""
        parts = [word[i : i + 1] for i in range(len(word))]
        while True:
            pairs = [a + b for a, b in itertools.pairwise(parts)]
            best = min(pairs, key=lambda pair: self._id_of.get(pair, len(self)), default=b"")
            if best not in self._id_of:
                return [self._id_of[part] for part in parts]
            at = pairs.index(best)
            parts[at : at + 2] = [best]


def fit(kind: str, text: str, size: int = 0) -> Tokeniser:
    """Make a tokeniser of a text.

    Args:
        kind: one of :data:`Kind`.
        text: whose characters or pairs count.
        size: of the vocabulary, for ``bpe``: 257 or more; the others follow from their kind.

    Raises:
        NasError: the kind is unknown, or the size is not one that it can have.
    """
    if kind not in get_args(Kind):
        raise UnknownNameError("kind of tokens", kind, get_args(Kind))
    if kind == "bpe":
        if size <= _BYTES:
            raise NasError(f"tokens=bpe needs a vocabulary of more than {_BYTES}, got {size}.")
        return Tokeniser("bpe", _pairs(text, size))
    if size:
        raise NasError(f"A vocabulary is for tokens=bpe; tokens={kind} has its own.")
    if kind == "byte":
        return Tokeniser("byte", tuple(bytes([value]) for value in range(_BYTES)))
    return Tokeniser("char", tuple(item.encode() for item in sorted(set(text))))


def _pairs(text: str, size: int) -> tuple[bytes, ...]:
    """Learn the most frequent pairs, one by one; of equally frequent ones the first by bytes.

    Byte-pair encoding (Sennrich et al. 2016) over bytes, within words. Counts are kept by pair, and
    changed only for the words in which a pair was merged.
    """
    tokens = [bytes([value]) for value in range(_BYTES)]
    learned: set[bytes] = set()
    counted = Counter(_PIECES.findall(text))
    words = [[bytes([value]) for value in word.encode()] for word in counted]
    weights = list(counted.values())
    counts: Counter[tuple[bytes, bytes]] = Counter()
    places: dict[tuple[bytes, bytes], set[int]] = defaultdict(set)
    for number, word in enumerate(words):
        _count(word, weights[number], number, counts, places)
    while len(tokens) < size:
        most = max(counts.values(), default=0)
        if most < 2:
            break
        pair = min(item for item, count in counts.items() if count == most)
        if pair[0] + pair[1] not in learned:
            tokens.append(pair[0] + pair[1])
            learned.add(tokens[-1])
        for number in sorted(places.pop(pair)):
            _count(words[number], -weights[number], number, counts, places)
            words[number] = _joined(words[number], pair)
            _count(words[number], weights[number], number, counts, places)
        del counts[pair]
    return tuple(tokens)


def _count(
    word: Sequence[bytes],
    weight: int,
    number: int,
    counts: Counter[tuple[bytes, bytes]],
    places: dict[tuple[bytes, bytes], set[int]],
) -> None:
    for pair in itertools.pairwise(word):
        counts[pair] += weight
        if weight > 0:
            places[pair].add(number)


def _joined(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    result: list[bytes] = []
    for item in word:
        if result and (result[-1], item) == pair:
            result[-1] = result[-1] + item
        else:
            result.append(item)
    return result
