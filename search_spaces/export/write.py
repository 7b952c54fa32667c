"""A folder that holds a trained network in the formats asked for, and all that belongs to it.

Every folder has ``model.safetensors`` (the state dict), ``architecture.json`` (the network for this
package), ``example.safetensors`` (inputs and the outputs they must give), ``model_card.md``,
``reload.py`` and ``export.json`` (what was asked for, and the checksum of each file);
``preprocessing.json`` where the data is known. Formats add ``model.py``, ``model.pt2`` and
``model.onnx``.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.export.card import write_card
from search_spaces.export.reload_text import reload_text
from search_spaces.export.values import (
    Facts,
    Form,
    Format,
    Processing,
    TextProcessing,
    checked_form,
    checked_formats,
)
from search_spaces.source import generate, native_modules
from search_spaces.variants import realise

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SCHEMA = 1
"""Version of what ``export.json`` says."""
EXAMPLE_BATCH = 7
_OLD_EXPORT = {"reload.py", "architecture.json"}


@dataclass(frozen=True, slots=True)
class Order:
    """What an export is to be; equal orders of equal weights give equal files.

    Attributes:
        form: ``plain`` or ``packed``.
        to: formats, in the order of ``values.FORMATS``.
        facts: where the model comes from.
        preprocessing: from an image or a text to the input; None where the data is not known.
        device: that a packed program is made for, a torch device name.
    """

    form: Form = "plain"
    to: tuple[Format, ...] = ("python",)
    facts: Facts = field(default_factory=Facts)
    preprocessing: Processing | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "form", checked_form(self.form))
        object.__setattr__(self, "to", checked_formats(self.to))
        if self.form == "packed" and "onnx" in self.to:
            raise NasError(
                "ONNX cannot hold this package's kernels; use --form plain, or --to python, pt2."
            )

    def card(self, architecture: Architecture) -> str:
        """Return the model card of a network exported so."""
        return write_card(
            architecture,
            self.facts,
            form=self.form,
            to=self.to,
            preprocessing=self.preprocessing,
        )


def export_network(
    architecture: Architecture, module: nn.Module, directory: Path, order: Order | None = None
) -> None:
    """Write a trained network to a folder.

    The folder is made whole or not at all; an export that stands there is replaced.

    Args:
        architecture: the network.
        module: a trained module of it, as :func:`search_spaces.build.build` makes; left unchanged.
        directory: where to; its parent is made if needed.
        order: what to write; a plain Python file by default.

    Raises:
        NasError: nothing executes a variant of the network, a format cannot be written or needs a
            package that is not there, the folder holds something that is no export, or it cannot be
            written.
    """
    order = order or Order()
    _check_free(directory)
    files = _files(architecture, module, order)
    files["export.json"] = _json(_manifest(architecture, order, files))
    try:
        _put(directory, files)
    except OSError as problem:
        raise NasError(f"{directory} cannot be written: {problem.strerror}.") from None


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return what ``export.json`` of a folder says.

    Raises:
        NasError: there is none, or it cannot be read.
    """
    path = directory / "export.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA:
            raise NasError(
                f"{path} is of schema {manifest['schema']!r}, this package reads {SCHEMA}; "
                "export again."
            )
        checked_form(manifest["form"])
        if not all(isinstance(entry["sha256"], str) for entry in manifest["files"].values()):
            raise ValueError("no checksums")
        return manifest
    except FileNotFoundError:
        raise NasError(f"{directory} holds no export: it has no export.json.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise NasError(f"{path} cannot be read; export again.") from None


def checksum(content: bytes) -> str:
    """Return the SHA-256 sum of a file's content."""
    return hashlib.sha256(content).hexdigest()


def example_inputs(architecture: Architecture, batch: int = EXAMPLE_BATCH) -> list[Tensor]:
    """Return N(0, 1) inputs or token ids (batch, ...), the same each time.

    A network without inputs gets one of them too.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    inputs = []
    for node in architecture.inputs:
        vocabulary: int = getattr(node.op, "vocabulary", 0)
        shape = (batch, *node.shape)
        inputs.append(
            torch.randint(vocabulary, shape, generator=generator)
            if vocabulary
            else torch.randn(shape, generator=generator)
        )
    return inputs or [torch.randn(batch, generator=generator)]


def plain_module(source: str) -> nn.Module:
    """Return a new module of a generated source, as whoever has only the file gets it."""
    namespace: dict[str, object] = {"__name__": "model"}
    exec(compile(source, "model.py", "exec"), namespace)
    return cast("type[nn.Module]", namespace["Network"])()


def _files(architecture: Architecture, module: nn.Module, order: Order) -> dict[str, bytes]:
    from safetensors.torch import save

    from search_spaces.pack import pack

    realised = realise(architecture, order.form).architecture
    source = generate(
        realised,
        form="plain" if order.form == "plain" else "native",
        description=architecture.text,
    )
    shipped = pack(architecture, module, order.form)
    state = {name: item.detach().cpu().contiguous() for name, item in shipped.state_dict().items()}
    dtype = _dtype(state)
    given = example_inputs(architecture)
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in given]
    example = {f"input_{i}": x for i, x in enumerate(inputs)}
    example["output"] = _outputs(shipped, inputs)
    files = {
        "model.safetensors": save(state),
        "example.safetensors": save(example),
        "architecture.json": _json(architecture.to_json()),
        "model_card.md": order.card(architecture).encode(),
        "reload.py": reload_text(
            order.form,
            native_modules(realised),
            weights="safetensors" in order.to,
            language=isinstance(order.preprocessing, TextProcessing),
        ).encode(),
    }
    if order.preprocessing is not None:
        files["preprocessing.json"] = _json(order.preprocessing.to_json())
    if "python" in order.to:
        files["model.py"] = source.encode()
    if {"pt2", "onnx"} & {*order.to}:
        made = plain_module(source)
        made.load_state_dict(state, assign=True)
        files |= _programs(made, inputs, order)
    return files


def _programs(module: nn.Module, inputs: Sequence[Tensor], order: Order) -> dict[str, bytes]:
    from search_spaces.export import programs

    if "onnx" in order.to:
        programs.require_onnx()
    device = order.device if order.form == "packed" else "cpu"
    placed = [x.to(device) for x in inputs]
    program = programs.trace_program(module.to(device), placed)
    files = {}
    if "pt2" in order.to:
        files["model.pt2"] = programs.program_bytes(program)
    if "onnx" in order.to:
        files["model.onnx"] = programs.onnx_bytes(program, placed)
    return files


def _outputs(module: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    import torch

    twin = copy.deepcopy(module).eval().cpu()
    with torch.inference_mode():
        output: Tensor = twin(*inputs)
    return output.clone().contiguous()


def _dtype(state: Mapping[str, Tensor]) -> torch.dtype:
    import torch

    return next((x.dtype for x in state.values() if x.is_floating_point()), torch.float32)


def _manifest(
    architecture: Architecture, order: Order, files: Mapping[str, bytes]
) -> dict[str, Any]:
    import torch

    return {
        "schema": SCHEMA,
        "form": order.form,
        "to": list(order.to),
        "key": architecture.key,
        "device": order.device.partition(":")[0] if order.form == "packed" else "any",
        "made_with": {"paretonas": _version(), "torch": torch.__version__},
        "files": {
            name: {"sha256": checksum(content), "bytes": len(content)}
            for name, content in sorted(files.items())
        },
    }


def _version() -> str:
    try:
        return version("paretonas")
    except PackageNotFoundError:  # run from the source tree
        return "unknown"


def _put(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write all files beside the folder, then put them in its place.

    The place beside it has one name: what a killed export left there is swept by the next.
    """
    aside = directory.parent / f".{directory.name}.part"
    shutil.rmtree(aside, ignore_errors=True)
    stage = aside / "new"
    stage.mkdir(parents=True)
    for name, content in files.items():
        (stage / name).write_bytes(content)
    if directory.exists():
        directory.replace(aside / "old")
    stage.replace(directory)
    shutil.rmtree(aside, ignore_errors=True)


def _check_free(directory: Path) -> None:
    """Refuse a place that holds something of the user's: what stands there is replaced whole."""
    if not directory.exists():
        return
    names = {item.name for item in directory.iterdir()} if directory.is_dir() else {"a file"}
    if names and "export.json" not in names and not names >= _OLD_EXPORT:
        raise NasError(
            f"{directory} holds something that is no export; name another place, or empty it."
        )


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()
