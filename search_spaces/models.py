"""Trained models that people have, found by reference: torchvision's, Hugging Face's, their own."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernels.errors import NasError, UnknownNameError
from kernels.references import load_reference

if TYPE_CHECKING:
    from torch import nn

_TORCHVISION, _TRANSFORMERS = "torchvision:", "transformers:"


def load_model(reference: str, *, trained: bool = True) -> nn.Module:
    """Return a model with its weights.

    Args:
        trained: whether a model of torchvision's is wanted with weights; others are as they come.
        reference: ``torchvision:NAME`` (with its best weights, downloaded where they are not at
            hand), ``transformers:FOLDER`` (as ``save_pretrained`` writes it; needs the package
            transformers), or ``FILE.py:FUNCTION`` or ``module:FUNCTION``, which returns one.

    Raises:
        NasError: it cannot be found or loaded; says why.
    """
    if reference.startswith(_TORCHVISION):
        return _torchvision(reference.removeprefix(_TORCHVISION), trained=trained)
    if reference.startswith(_TRANSFORMERS):
        return _transformers(Path(reference.removeprefix(_TRANSFORMERS)).expanduser())
    from torch import nn

    function = load_reference(reference, "model")
    try:
        made = function()
    except NasError:
        raise
    except Exception as problem:  # the function is a user's
        raise NasError(f"{reference} raised {_line(problem)}.") from problem
    if not isinstance(made, nn.Module):
        raise NasError(f"{reference} must return an nn.Module, got {type(made).__name__}.")
    return made


def _torchvision(name: str, *, trained: bool) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UnknownNameError("torchvision model", name, known)
    try:
        module: nn.Module = models.get_model(name, weights="DEFAULT" if trained else None)
    except (OSError, RuntimeError) as problem:
        raise NasError(
            f"The weights of torchvision's {name} cannot be downloaded: {_line(problem)}. Name a "
            "function that returns your model: --from-model FILE.py:FUNCTION."
        ) from problem
    return module


def _transformers(folder: Path) -> nn.Module:
    if importlib.util.find_spec("transformers") is None:
        raise NasError("transformers:FOLDER needs a package: pip install transformers.")
    try:
        about: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise NasError(f"{folder} holds no model: config.json: {_line(problem)}.") from None
    library: Any = importlib.import_module("transformers")
    names = about.get("architectures") or ["AutoModel"]
    try:
        kind = getattr(library, names[0], library.AutoModel)
        module: nn.Module = kind.from_pretrained(folder, local_files_only=True)
    except Exception as problem:  # whatever the library raises
        raise NasError(f"The model in {folder} cannot be loaded: {_line(problem)}.") from problem
    return module


def _line(problem: BaseException) -> str:
    text = (str(problem).strip().splitlines() or [""])[0].rstrip(".")
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__
