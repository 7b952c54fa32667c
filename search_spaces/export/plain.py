"""The plain export: a Python file, safetensors, and a script that reloads both with torch alone.

A directory holds ``model.py`` (one ``nn.Module``), ``model.safetensors`` (its state dict),
``example.safetensors`` (inputs and the outputs they must give), ``architecture.json`` (the network
for this project) and ``reload.py``, which loads the model and checks it against the example.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.architecture import Architecture
from search_spaces.source import generate

if TYPE_CHECKING:
    from torch import Tensor, nn

EXAMPLE_BATCH = 7
RELOAD = '''"""Loads the model in this folder; run it to check the model against its example.

Needs torch and nothing else.
"""

import json
import struct
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from model import Network  # noqa: E402

_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "I64": torch.int64}


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file: the header's length, a JSON header, then raw data."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            raw = bytearray(data[start:end])
            flat = torch.frombuffer(raw, dtype=_TYPES[entry["dtype"]]) if raw else torch.empty(0)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


def load_model() -> Network:
    """Return the trained model, ready for inference."""
    model = Network()
    model.load_state_dict(load_tensors(Path(__file__).with_name("model.safetensors")))
    return model.eval()


if __name__ == "__main__":
    example = load_tensors(Path(__file__).with_name("example.safetensors"))
    with torch.inference_mode():
        output = load_model()(example["input"])
    difference = (output - example["output"]).abs().max().item()
    scale = example["output"].abs().max().item()
    print(json.dumps({"max_difference": difference, "output_scale": scale}))
    sys.exit(0 if difference <= 1e-5 * max(scale, 1.0) else 1)
'''


def export_plain(architecture: Architecture, module: nn.Module, directory: Path) -> None:
    """Write the plain form of a trained network.

    The directory is made whole or not at all; one that stands there is replaced.

    Args:
        architecture: the network; a variant is not part of the plain form.
        module: a trained module of it, as :func:`search_spaces.build.build` makes; left unchanged.
        directory: where to; its parent is made if needed.
    """
    from safetensors.torch import save_file

    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".export-") as scratch:
        stage = Path(scratch) / "stage"
        stage.mkdir()
        state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
        save_file(state, stage / "model.safetensors")
        save_file(_example(architecture, module), stage / "example.safetensors")
        (stage / "model.py").write_text(generate(architecture, form="plain"))
        (stage / "reload.py").write_text(RELOAD)
        document = json.dumps(architecture.dense().to_json(), indent=1)
        (stage / "architecture.json").write_text(document + "\n")
        if directory.exists():
            directory.replace(Path(scratch) / "replaced")
        stage.replace(directory)


def _example(architecture: Architecture, module: nn.Module) -> dict[str, Tensor]:
    import torch

    parameter = next(module.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    shape = architecture.inputs[0].shape if architecture.inputs else ()
    x = torch.randn(EXAMPLE_BATCH, *shape, generator=generator)
    training = module.training
    module.eval()
    with torch.inference_mode():
        y = module(x.to(parameter.device, parameter.dtype)).cpu()
    module.train(training)
    return {"input": x.to(parameter.dtype), "output": y.clone()}
