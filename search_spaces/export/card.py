"""The model card: what a person should know who meets the folder without the study."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from search_spaces.architecture import Architecture
from search_spaces.export.names import one_line
from search_spaces.export.values import (
    Facts,
    Figure,
    Form,
    Format,
    Processing,
    TextProcessing,
)
from search_spaces.source_layout import wrapped_nodes

_WIDTH = 100
_CLASSES = 20
_FORMAT_LINES: dict[Format, str] = {
    "python": "`model.py` with `model.safetensors`: the network as one `nn.Module`, to read and to "
    "train on",
    "pt2": "`model.pt2`: made by `torch.export`, for inference with any batch size",
    "onnx": "`model.onnx`: one file, for inference with any batch size",
    "safetensors": "`model.safetensors`: the weights",
}
_FORM_LINES: dict[Form, str] = {
    "plain": "Plain form: it needs torch, and nothing of the tool that made it.",
    "packed": "Packed form: it keeps the tool's kernels, and needs the package `paretonas`.",
}
_LICENCE = (
    "The source text in this folder comes from paretonas and is under the Apache License 2.0. The "
    "weights were trained on the data named above: its terms apply to them and are not known here. "
    "Check them before you pass the model on."
)


def write_card(
    architecture: Architecture,
    facts: Facts,
    *,
    form: Form,
    to: Sequence[Format],
    preprocessing: Processing | None,
) -> str:
    """Return the model card; equal arguments give equal text, which is how an audit checks it."""
    formats = [f"* {_FORMAT_LINES[item]}" for item in to]
    parts = [
        f"# {one_line(facts.title)}",
        _origin(facts),
        "## Figures",
        _figures(facts.figures),
        *(["Measured under:", _table(facts.conditions)] if facts.conditions else []),
        "## Files",
        "\n".join([*formats, f"* `reload.py`: loads them, checks them, {_purpose(preprocessing)}"]),
        _FORM_LINES[form],
        "## Use",
        _use(preprocessing),
        "## Network",
        f"{architecture.params:,} parameters; {architecture.macs:,} multiply-accumulates a sample.",
        "```text\n" + "\n".join(wrapped_nodes(architecture.text, _WIDTH)) + "\n```",
        f"Key `{architecture.key}`.",
        "## Input and output",
        _input(architecture, preprocessing),
        "## Training",
        _table(facts.recipe) or "Nothing is known of its training.",
        "## Data",
        _table(facts.data) or "Nothing is known of its data.",
        "## Licence",
        "\n".join(_wrapped(_LICENCE)),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(facts: Facts) -> str:
    if not facts.study:
        return "Exported by paretonas; it belongs to no study."
    trial = "" if facts.trial is None else f", trial {facts.trial}"
    return f"Found by the study {one_line(facts.study)}{trial}; exported by paretonas."


def _figures(figures: Mapping[str, Figure]) -> str:
    if not figures:
        return "None were recorded."
    rows = [
        f"| {one_line(name)} | {_number(item.value)} | {_number(item.low)} | {_number(item.high)} "
        f"| {one_line(item.unit)} |"
        for name, item in figures.items()
    ]
    return "\n".join(["| figure | value | low | high | unit |", "|---|---:|---:|---:|---|", *rows])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.6g}"


def _table(rows: Mapping[str, object]) -> str:
    return "\n".join(f"* {one_line(name)}: {one_line(_text(item))}" for name, item in rows.items())


def _text(item: object) -> str:
    if isinstance(item, list | tuple):
        return " ".join(map(_text, item)) or "none"
    return "none" if item is None else str(item)


def _purpose(preprocessing: Processing | None) -> str:
    return "writes text" if isinstance(preprocessing, TextProcessing) else "classifies images"


def _use(preprocessing: Processing | None) -> str:
    uses = {"reload.py": "checks the model against its example"}
    if isinstance(preprocessing, TextProcessing):
        uses["reload.py --generate TEXT"] = "goes on with a text"
    elif preprocessing is not None:
        uses["reload.py --image FILE"] = "classifies an image"
    width = max(map(len, uses))
    lines = [f"python {command:<{width}}  # {what}" for command, what in uses.items()]
    return "\n".join(["```sh", *lines, "```"])


def _input(architecture: Architecture, preprocessing: Processing | None) -> str:
    shapes = " and ".join(f"({_shape(node.shape)})" for node in architecture.inputs) or "none"
    text = f"Input {shapes}, output ({_shape(architecture.output.shape)}); b is the batch size."
    if preprocessing is None:
        return text
    if isinstance(preprocessing, TextProcessing):
        return "\n".join(_wrapped(_tokens(architecture, preprocessing)))
    names = [one_line(name, 40) for name in preprocessing.classes[:_CLASSES]]
    more = len(preprocessing.classes) - len(names)
    rest = f" and {more} more (`preprocessing.json` has all)" if more else ""
    means, deviations = (
        ", ".join(f"{item:.6g}" for item in values)
        for values in (preprocessing.mean, preprocessing.std)
    )
    lines = _wrapped(
        f"{text} Images in 0..1 are normalised per channel: mean {means}, standard deviation "
        f"{deviations}. Classes: {', '.join(names)}{rest}."
    )
    return "\n".join(lines)


def _tokens(architecture: Architecture, processing: TextProcessing) -> str:
    what = {"char": "a character", "byte": "a byte", "bpe": "a run of bytes (BPE)"}
    logits = architecture.output.shape[-1]
    return (
        f"Input token ids (b, t), t up to {processing.context}, output (b, t, {logits}): logits of "
        f"the token that follows each. A token is {what[processing.kind]}; the "
        f"{len(processing.tokens)} that there are stand in `preprocessing.json`. In Python the "
        "model takes a cache as its second argument, and then reads each token once."
    )


def _shape(shape: Sequence[int]) -> str:
    return ", ".join(map(str, ("b", *shape)))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_on_hyphens=False, break_long_words=False)
