"""What an export is asked for, and what it says of where the model comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from kernels.errors import NasError, UnknownNameError

Form = Literal["plain", "packed"]
"""``plain`` needs torch only; ``packed`` keeps this package's kernels, and needs the package."""

Format = Literal["python", "pt2", "onnx", "safetensors"]
"""What a folder holds beside its weights: a Python file, torch's archive, ONNX, or nothing."""

FORMS: tuple[Form, ...] = get_args(Form)
FORMATS: tuple[Format, ...] = get_args(Format)
MODEL_FILES: dict[Format, str] = {
    "python": "model.py",
    "pt2": "model.pt2",
    "onnx": "model.onnx",
    "safetensors": "model.safetensors",
}
"""The file that makes a format. The weights are in every folder."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From an image to the network's input, and from its output to a class.

    Attributes:
        size: (c, h, w) of the input.
        mean: per channel, of images in 0..1.
        std: per channel, of images in 0..1.
        classes: name of each output.
    """

    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {name: list(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class TextProcessing:
    """From a text to token ids, and back.

    Attributes:
        kind: what a token is: ``char``, ``byte`` or ``bpe``.
        tokens: the bytes of each, by id, as the characters of their numbers (latin-1); of pairs in
            the order in which they are merged.
        context: tokens that the network reads at a time.
    """

    kind: str
    tokens: tuple[str, ...]
    context: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"kind": self.kind, "tokens": list(self.tokens), "context": self.context}


Processing = Preprocessing | TextProcessing
"""What stands between the data and the network; it travels in the export."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a study, with the ends of its spread; None where it is exact."""

    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Where a model comes from: all that its card says beside the network itself.

    Attributes:
        title: what people call it.
        study: name of the study; empty where there is none.
        trial: its number in the study.
        figures: by metric name.
        recipe: how it was trained.
        data: what it was trained on.
        conditions: what it was measured on, and under which conditions.
    """

    title: str = "Network"
    study: str = ""
    trial: int | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    recipe: Mapping[str, object] = field(default_factory=dict)
    data: Mapping[str, object] = field(default_factory=dict)
    conditions: Mapping[str, object] = field(default_factory=dict)


def checked_form(name: str) -> Form:
    """Return a form by its name.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in FORMS:
        raise UnknownNameError("form of an export", name, FORMS)
    return name


def checked_formats(names: Sequence[str]) -> tuple[Format, ...]:
    """Return formats by their names, each once, in the order of :data:`FORMATS`.

    Raises:
        UnknownNameError: there is none of that name.
        NasError: no format is named.
    """
    for name in names:
        if name not in FORMATS:
            raise UnknownNameError("format of an export", name, FORMATS)
    if not names:
        raise NasError(f"Name at least one format to export to: {', '.join(FORMATS)}.")
    return tuple(item for item in FORMATS if item in names)
