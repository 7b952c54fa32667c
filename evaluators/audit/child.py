"""What an audit runs in a clean process; it gets the path of a request and imports torch alone.

It is started by its path, never imported. It loads exports as people do, by their ``reload.py``.
The request is JSON: ``root`` (where this package is), ``blocked`` (names that cannot be imported),
``threads``, ``report`` (path of the answer: one JSON line a job) and ``jobs``.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def main(request: Json) -> None:
    """Do all jobs; one that fails says why, and the others go on."""
    for name in request["blocked"]:
        sys.modules[name] = None  # type: ignore[assignment]
    if not request["blocked"]:
        sys.path.insert(0, request["root"])
    import torch

    torch.set_num_threads(request["threads"])
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    tasks = {"outputs": _outputs, "accuracy": _accuracy, "latency": _latency}
    with Path(request["report"]).open("w", encoding="utf-8") as report:
        for job in request["jobs"]:
            try:
                found = tasks[job["task"]](job, _reload(job["directory"]))
            except (Exception, SystemExit) as problem:  # of the export's own code
                line = (str(problem).strip().splitlines() or ["no reason given"])[0]
                kind = "" if isinstance(problem, SystemExit) else f"{type(problem).__name__}: "
                found = {"error": kind + line}
            report.write(json.dumps(found) + "\n")
            report.flush()


def _reload(directory: str) -> Any:
    spec = importlib.util.spec_from_file_location("reload", Path(directory) / "reload.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _outputs(job: Json, reload: Any) -> Json:
    """Run the cases of a format; write what comes out, in their order."""
    import torch

    results = {}
    for number, case in enumerate(job["cases"]):
        tensors = reload.load_tensors(Path(case["inputs"]))
        inputs = [tensors[name].to(job["device"]) for name in sorted(tensors)]
        model = reload.load_model(job["format"])
        _place(model, job["device"])
        if case["training"]:
            model.train()
            torch.manual_seed(case["seed"])
        with torch.no_grad():
            results[f"{number:04d}.output"] = model(*inputs)
        if case["training"]:
            for name, tensor in model.state_dict().items():
                results[f"{number:04d}.state.{name}"] = tensor
    _write(Path(job["results"]), results)
    return {}


def _accuracy(job: Json, reload: Any) -> Json:
    """Classify raw images as the export says they are to be prepared."""
    import torch

    data = reload.load_tensors(Path(job["images"]))
    images, labels = data["images"], data["labels"]
    model = reload.load_model(job["format"])
    _place(model, job["device"])
    correct, first = 0, None
    with torch.inference_mode():
        for start in range(0, len(labels), job["batch"]):
            part = images[start : start + job["batch"]]
            raw = part.float() / 255 if part.dtype == torch.uint8 else part
            x = reload.normalise(raw)
            first = x[: job["shown"]] if first is None else first
            logits = model(x.to(job["device"])).cpu()
            hit = logits.argmax(1) == labels[start : start + job["batch"]]
            correct += int((hit & ~logits.isnan().any(1)).sum())
    _write(Path(job["results"]), {"normalised": first})
    return {"correct": correct, "total": len(labels)}


def _latency(job: Json, reload: Any) -> Json:
    """Time a format as a study times its candidates, beside the study's network itself."""
    import torch

    from evaluators.latency.latency import LatencyEvaluator
    from evaluators.latency.subject import DTYPES, prepare
    from kernels.device import detect
    from kernels.exclusive import exclusive
    from search_spaces.architecture import Architecture

    device = detect(job["device"])
    evaluator = LatencyEvaluator(device, **job["qualifiers"])
    if evaluator.dtype != "float32" and job["format"] != "python":
        raise ValueError(f"a {job['format']} file stays in float32, not {evaluator.dtype}")
    architecture = Architecture.from_json(job["architecture"])
    with exclusive(device), torch.inference_mode():
        native = prepare(architecture, device, batch=evaluator.batch, dtype=evaluator.dtype)
        model = reload.load_model(job["format"])
        if job["format"] == "python":
            model.to(device.torch_name, DTYPES[evaluator.dtype])
            if native.layout == "channels_last":
                model.to(memory_format=torch.channels_last)
        else:
            _place(model, device.torch_name)
        export: Any = model
        twin: Any = native.module
        if evaluator.mode == "compile":
            export, twin = torch.compile(model), torch.compile(twin)
        calls = {"export": lambda: export(native.images), "native": lambda: twin(native.images)}
        timings, disturbed = evaluator.time_all(calls)
    return {
        "export": timings["export"].median_us / 1e3,
        "native": timings["native"].median_us / 1e3,
        "disturbed": disturbed,
    }


def _place(model: Any, device: str) -> None:
    """Move a model to a device; all but packed programs are loaded on the CPU."""
    if device != "cpu":
        model.to(device)


_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64"}


def _write(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write a safetensors file; the package of that name is not there for a plain export."""
    header, parts, end = {}, [], 0
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        data = kept.numpy().tobytes()
        dtype = _NAMES[str(kept.dtype).removeprefix("torch.")]
        header[name] = {
            "dtype": dtype,
            "shape": list(kept.shape),
            "data_offsets": [end, end + len(data)],
        }
        parts.append(data)
        end += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
