"""The script that travels with an exported model: loads it, checks it, and uses it."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.export.reload_uses import IMAGES, LANGUAGE
from search_spaces.export.values import Form

_RELOAD = '''"""Loads the model in this folder.

@COMMANDS@

From Python: ``from reload import load_model``. @NEEDS@
"""

import argparse
import importlib.util
@MORE_IMPORTS@import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch

HERE = Path(__file__).resolve().parent
FORMATS = {"python": "model.py", "pt2": "model.pt2", "onnx": "model.onnx"}
@WEIGHTS@@CONSTANTS@TOLERANCE = 1e-4  # of the largest output; another processor rounds otherwise
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file: the header's length, a JSON header, then raw data."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            dtype = TYPES[entry["dtype"]]
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            raw = bytearray(data[start:end])
            if len(raw) != end - start:
                raise ValueError(f"{path.name} is damaged: {name} ends beyond the file")
            flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


def load_model(kind: str = "") -> Callable[..., torch.Tensor]:
    """Return the trained model, ready for inference.

    Args:
        kind: "python" (an nn.Module), "pt2" or "onnx"; the first that is here by default.@ALSO@
    """
@REQUIRE@    kind = kind or present()[0]
@BRANCH@    if kind == "pt2":
        return torch.export.load(HERE / "model.pt2").module()
    if kind == "onnx":
        return load_onnx()
    model = load_source().Network()
    model.load_state_dict(load_tensors(HERE / "model.safetensors"), assign=True)
    return model.eval()


def load_source() -> ModuleType:
    """Return what model.py defines."""
    spec = importlib.util.spec_from_file_location("model", HERE / "model.py")
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    return source


@LOADER@def load_onnx() -> Callable[..., torch.Tensor]:
    """Return the ONNX model as a function of tensors; it runs on the CPU."""
    try:
        import onnxruntime
    except ImportError:
        sys.exit("model.onnx needs onnxruntime: pip install onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        HERE / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in session.get_inputs()]

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        given = {name: item.numpy() for name, item in zip(names, inputs, strict=False)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


def present() -> list[str]:
    """Return the formats that this folder holds."""
    found = [kind for kind, file in FORMATS.items() if (HERE / file).is_file()]
    if not found:
        @NONE@
    return found


@FUNCTIONS@

def check(kinds: list[str]) -> bool:
    """Compare each format with the example; print and return what came of it."""
    example = load_tensors(HERE / "example.safetensors")
    inputs = [example[f"input_{i}"] for i in range(len(example) - 1)]
    scale = example["output"].abs().max().item()
    passed = True
    for kind in kinds:
        with torch.inference_mode():
            output = load_model(kind)(*inputs)
        difference = (output - example["output"]).abs().max().item()
        same = difference <= TOLERANCE * scale
        passed = passed and same
        verdict = "same outputs" if same else "OTHER OUTPUTS"
        print(f"{kind}: {verdict}, largest difference {difference:.1e} at scale {scale:.1e}")
    return passed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Check the model in this folder, or use it.")
@ARGUMENTS@    parser.add_argument("--format", choices=@CHOICES@, default="", help="use only this")
    options = parser.parse_args()
@ACTION@    else:
        sys.exit(0 if check([options.format] if options.format else present()) else 1)
'''

_SOMETHING = "kernels.errors"
"""Of this project, and of no other package that is imported as ``kernels``."""
_NEEDS: dict[Form, str] = {
    "plain": "Needs torch and nothing else.",
    "packed": "Needs torch and paretonas.",
}
_REQUIRE = """    try:
@IMPORTS@
    except ImportError as problem:
        sys.exit(f"This model keeps its kernels ({problem}): pip install paretonas")
    device = json.loads((HERE / "export.json").read_text(encoding="utf-8"))["device"]
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("This model was packed for a CUDA device, and there is none here.")
"""
_WITHOUT_WEIGHTS = {
    "@WEIGHTS@": "",
    "@ALSO@": "",
    "@BRANCH@": "",
    "@LOADER@": "",
    "@NONE@": 'sys.exit("There is no model here.")',
    "@CHOICES@": "FORMATS",
}
_WITH_WEIGHTS = {
    "@WEIGHTS@": """WEIGHTS = "safetensors"  # by themselves: the network around them is paretonas's
""",
    "@ALSO@": """
            "safetensors" is an nn.Module of paretonas.""",
    "@BRANCH@": """    if kind == WEIGHTS:
        return load_with_package()
""",
    "@LOADER@": '''def load_with_package() -> torch.nn.Module:
    """Return the network that paretonas builds, with the weights of this folder."""
    try:
        from search_spaces.export.load import load
    except ImportError:
        sys.exit(
            "There are weights alone here, and their network needs paretonas: pip install "
            "paretonas, or export again with --to python."
        )
    return load(HERE)


''',
    "@NONE@": "return [WEIGHTS]",
    "@CHOICES@": "[*FORMATS, WEIGHTS]",
}


def reload_text(
    form: Form, modules: Sequence[str] = (), *, weights: bool = False, language: bool = False
) -> str:
    """Return ``reload.py`` of a form.

    Args:
        form: ``plain`` or ``packed``.
        modules: of this project, sorted: a packed model's layers and operators are defined there.
        weights: whether the weights by themselves are a format, which this project then loads.
        language: whether it is a language model's; images are classified otherwise.
    """
    imports = "\n".join(f"        import {name}  # noqa: F401" for name in modules or (_SOMETHING,))
    text = _RELOAD
    for parts in (LANGUAGE if language else IMAGES, _WITH_WEIGHTS if weights else _WITHOUT_WEIGHTS):
        for mark, part in parts.items():
            text = text.replace(mark, part)
    require = _REQUIRE.replace("@IMPORTS@", imports) if form == "packed" else ""
    return text.replace("@NEEDS@", _NEEDS[form]).replace("@REQUIRE@", require)
