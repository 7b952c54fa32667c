"""An exported folder read back, with this package's kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.export.values import checked_form
from search_spaces.export.write import checksum, read_manifest

if TYPE_CHECKING:
    from torch import nn

_NEEDED = ("architecture.json", "model.safetensors")


def load(directory: Path | str) -> nn.Module:
    """Return the trained network of an export as a module in evaluation mode, on the CPU.

    It is built anew from the description, so that layers which have kernels of this package run on
    them whatever form was exported, and no code of the folder is executed. Variants are in the form
    that was exported: their weights are.

    Raises:
        NasError: the folder holds no export, or a file is missing, damaged or of another network.
    """
    place = Path(directory)
    manifest = read_manifest(place)
    contents = {name: _content(place, name, manifest["files"]) for name in _NEEDED}

    from safetensors import SafetensorError
    from safetensors import torch as files

    from search_spaces.build import build
    from search_spaces.variants import realise

    architecture = Architecture.from_json(contents["architecture.json"].decode())
    try:
        state = files.load(contents["model.safetensors"])
        module = build(realise(architecture, checked_form(manifest["form"])).architecture)
        # Assigned: each tensor keeps its type. Copied: those that were read are not to be written.
        module.load_state_dict({name: x.clone() for name, x in state.items()}, assign=True)
    except (SafetensorError, RuntimeError) as problem:
        first = str(problem).strip().splitlines()[0]
        raise NasError(f"The weights in {place} do not fit its network: {first}") from None
    return module.eval()


def _content(place: Path, name: str, files: dict[str, dict[str, object]]) -> bytes:
    try:
        content = (place / name).read_bytes()
    except OSError as problem:
        raise NasError(f"{place / name} cannot be read: {problem.strerror}.") from None
    if checksum(content) != files.get(name, {}).get("sha256"):
        raise NasError(f"{place / name} was changed or damaged; export again.")
    return content
