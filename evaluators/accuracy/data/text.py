"""Text as a data set: three runs of token ids, of which models read windows of a fixed length."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluators.accuracy.data.reference import words_of
from evaluators.accuracy.data.tokens import Ids, Tokeniser, fit
from kernels.errors import NasError, UnknownNameError
from search_spaces.space import DataSpec

if TYPE_CHECKING:
    import torch

CONTEXT = 128
"""Tokens that a model reads at a time, where nothing is said."""
_BPE_SIZE = 512
_TENTH = 0.1
_SPLITS = {"train": ("train",), "validation": ("valid", "val"), "test": ("test",)}


@dataclass(frozen=True, slots=True, eq=False)
class TextSplit:
    """A run of token ids.

    Args:
        ids: int32, ``(n,)``, n above the context.
        context: tokens that a model reads at a time.
    """

    ids: torch.Tensor = field(repr=False)
    context: int

    def __len__(self) -> int:
        """The number of windows that follow one another without overlap."""
        return (len(self.ids) - 1) // self.context

    def windows(self, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids that a model reads, and for each the one that follows.

        Args:
            starts: positions ``(b,)`` of the first tokens, on the split's device.

        Returns:
            Two of int64, ``(b, context)``.
        """
        import torch

        places = starts[:, None] + torch.arange(self.context + 1, device=self.ids.device)
        ids = self.ids[places].long()
        return ids[:, :-1], ids[:, 1:]

    def to(self, device: str | torch.device) -> TextSplit:
        """Return the split with its ids on ``device``."""
        return TextSplit(self.ids.to(device), self.context)


@dataclass(frozen=True, slots=True, eq=False)
class TextDataset:
    """Three splits of a text and what cuts it into tokens; made by :func:`read_text`.

    One that ``load_dataset`` can load again is pickled as its source and fingerprint, as image
    sets are.

    Args:
        name: the name it is loaded by.
        train: what weights are fitted on.
        validation: what a search selects on.
        test: what is looked at once, at the end.
        tokeniser: between text and ids.
        fingerprint: hash of the ids of all splits, the tokeniser and the context.
        source: the reference that loads it in any process of this machine; empty if none does.
    """

    name: str
    train: TextSplit
    validation: TextSplit
    test: TextSplit
    tokeniser: Tokeniser
    fingerprint: str
    source: str = ""

    @property
    def classes(self) -> int:
        """The number of tokens in the vocabulary."""
        return len(self.tokeniser)

    @property
    def input_shape(self) -> tuple[int]:
        """``(tokens,)`` that a model reads at a time."""
        return (self.train.context,)

    @property
    def spec(self) -> DataSpec:
        """What a search space must know of the data."""
        return DataSpec(self.input_shape, self.classes, self.classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """What may follow the ``?`` of a text; None leaves things as they are.

    Args:
        tokens: ``char``, ``byte`` or ``bpe``.
        vocabulary: size of the vocabulary, for ``bpe``.
        context: tokens that a model reads at a time.
        train: tokens to keep of the training split, the first ones.
        validation: of the validation split.
        test: of the test split.
    """

    tokens: str = "char"
    vocabulary: int | None = None
    context: int = CONTEXT
    train: int | None = None
    validation: int | None = None
    test: int | None = None


def parse_text_options(reference: str, text: str) -> TextOptions:
    """Read the options of ``text:PATH?option=value&option=value``.

    Raises:
        NasError: an option is unknown, given twice, or of another kind.
    """
    known = [entry.name for entry in fields(TextOptions)]
    values: dict[str, int | str] = {}
    for name, value in words_of(text) if text else ():
        if name not in known:
            raise UnknownNameError("text option", name, known)
        if name in values or not (name == "tokens" or (value.isascii() and value.isdigit())):
            raise NasError(f"Text {reference!r}: give {name} once, as a whole number.")
        values[name] = value if name == "tokens" else int(value)
    return TextOptions(**values)  # type: ignore[arg-type]


def read_text(name: str, path: Path, options: TextOptions) -> TextDataset:
    """Read a text file, or a folder with files for training, validation and test.

    Of one file the last tenth validates and what is before it is trained on, as is usual for
    tiny-shakespeare; the first tenth is the test. A folder holds ``train*``, ``valid*`` and
    ``test*`` files. They end in ``.txt`` or ``.txt.gz`` and are UTF-8. Characters are those of all
    splits, pairs of bytes are learned on the training split.

    Raises:
        NasError: a file cannot be read, or a split is too short for the context.
    """
    parts = _folder(name, path) if path.is_dir() else _one_file(_read(name, path))
    size = options.vocabulary or (_BPE_SIZE if options.tokens == "bpe" else 0)
    seen = parts["train"] if options.tokens == "bpe" else "".join(parts.values())
    tokeniser = fit(options.tokens, seen, size)
    ids: dict[str, Ids] = {}
    for which, part in parts.items():
        ids[which] = tokeniser.encode(part)[: getattr(options, which)]
        if len(ids[which]) <= options.context:
            raise NasError(
                f"Text {name!r}: the {which} split has {len(ids[which])} tokens, a context of "
                f"{options.context} needs more; use a longer text or a smaller context."
            )
    return TextDataset(
        name=name,
        train=_split(ids["train"], options.context),
        validation=_split(ids["validation"], options.context),
        test=_split(ids["test"], options.context),
        tokeniser=tokeniser,
        fingerprint=_fingerprint(ids, tokeniser, options.context),
    )


def _split(ids: Ids, context: int) -> TextSplit:
    import torch

    return TextSplit(torch.from_numpy(ids.astype(np.int32)), context)


def _one_file(text: str) -> dict[str, str]:
    test, validation = int(len(text) * _TENTH), int(len(text) * (1 - _TENTH))
    return {"train": text[test:validation], "validation": text[validation:], "test": text[:test]}


def _folder(name: str, folder: Path) -> dict[str, str]:
    parts = {}
    for which, stems in _SPLITS.items():
        found = sorted(
            path
            for path in folder.iterdir()
            if path.name.startswith(stems) and path.name.endswith((".txt", ".txt.gz"))
        )
        if len(found) != 1:
            raise NasError(
                f"Text {name!r}: expected one file {stems[0]}*.txt (or .txt.gz) in {folder}, "
                f"got {', '.join(item.name for item in found) or 'none'}."
            )
        parts[which] = _read(name, found[0])
    return parts


def _read(name: str, path: Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as problem:
        why = " ".join(str(problem).split())
        raise NasError(f"Text {name!r}: {path} cannot be read as UTF-8: {why}.") from None


def _fingerprint(ids: dict[str, Ids], tokeniser: Tokeniser, context: int) -> str:
    about = json.dumps(tokeniser.to_json(), sort_keys=True)
    digest = hashlib.sha256(repr(("paretonas-text-1", about, context)).encode())
    for which, part in sorted(ids.items()):
        digest.update(repr((which, len(part))).encode())
        digest.update(part.astype("<i4").tobytes())
    return digest.hexdigest()[:32]
