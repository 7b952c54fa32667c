"""What an audit runs in a clean process; it gets the path of a request and imports torch alone.

It is started by its path, never imported. It loads exports as people do, by their ``reload.py``.
The request is JSON: ``paths`` (where this project and what it needs are), ``blocked`` (names that
cannot be imported), ``threads``, ``report`` (path of the answer: one JSON line a job) and ``jobs``.
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
    first, others = request["paths"][:1], request["paths"][1:]
    sys.path[:] = [*first, *sys.path, *(path for path in others if path not in sys.path)]
    import torch

    torch.set_num_threads(request["threads"])
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    tasks = {
        "weights": _weights,
        "outputs": _outputs,
        "accuracy": _accuracy,
        "likelihood": _likelihood,
        "latency": _latency,
    }
    with Path(request["report"]).open("w", encoding="utf-8") as report:
        for job in request["jobs"]:
            try:
                found = tasks[job["task"]](job, _reload(job["directory"]))
            except (Exception, SystemExit) as problem:  # of the export's own code
                found = {"error": _reason(problem)}
            report.write(json.dumps(found) + "\n")
            report.flush()


def _reason(problem: BaseException) -> str:
    line = (str(problem).strip().splitlines() or ["no reason given"])[0]
    return line if isinstance(problem, SystemExit) else f"{type(problem).__name__}: {line}"


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
        inputs = [tensors[f"input_{i}"].to(job["device"]) for i in range(len(tensors))]
        model = reload.load_model(job["format"])
        _place(model, job["device"])
        if case["training"]:
            model.train()
            torch.manual_seed(case["seed"])
        with torch.no_grad():
            results[f"{number:04d}.output"] = model(*inputs)
            if case.get("cached"):
                results[f"{number:04d}.cached"] = _cached(model, inputs[0], reload)
        if case["training"]:
            for name, tensor in model.state_dict().items():
                results[f"{number:04d}.state.{name}"] = tensor
    _write(Path(job["results"]), results)
    return {}


def _cached(model: Any, ids: Any, reload: Any) -> Any:
    """Read half of the tokens at once and the others one by one, with what is kept of each."""
    import torch

    cache = reload.load_source().Cache(ids.shape[1])
    parts = [ids[:, : ids.shape[1] // 2], *ids[:, ids.shape[1] // 2 :].split(1, 1)]
    return torch.cat([model(part, cache) for part in parts if part.shape[1]], 1)


def _accuracy(job: Json, reload: Any) -> Json:
    """Classify raw images as the export says they are to be prepared."""
    import torch

    data = reload.load_tensors(Path(job["split"]))
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
    _write(Path(job["results"]), {"inputs": first})
    return {"sum": correct, "total": len(labels)}


def _likelihood(job: Json, reload: Any) -> Json:
    """Foretell the tokens of a text, window after window, and cut its beginning into tokens."""
    import torch

    ids = reload.load_tensors(Path(job["split"]))["ids"].long()
    context = job["context"]
    count = (len(ids) - 1) // context
    given = ids[: count * context].reshape(count, context)
    next_ids = ids[1 : count * context + 1].reshape(count, context)
    model = reload.load_model(job["format"])
    _place(model, job["device"])
    nats = 0.0
    with torch.inference_mode():
        for start in range(0, count, job["batch"]):
            part = slice(start, start + job["batch"])
            logits = model(given[part].to(job["device"])).float().cpu()
            each = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), next_ids[part].flatten(), reduction="none"
            )
            nats += float(each.double().sum())
    text = Path(job["text"]).read_bytes().decode()
    _write(Path(job["results"]), {"inputs": torch.tensor(reload.encode(text))})
    return {"sum": nats, "total": count * context}


def _weights(job: Json, reload: Any) -> Json:
    """Read the weights as whoever has torch alone reads them, and write what was read."""
    _write(Path(job["results"]), reload.load_tensors(Path(job["directory"]) / "model.safetensors"))
    return {}


def _latency(job: Json, reload: Any) -> Json:
    """Time formats as a study times its candidates, beside the study's network itself."""
    import torch

    from evaluators.latency.latency import LatencyEvaluator
    from evaluators.latency.subject import prepare
    from kernels.device import detect
    from kernels.exclusive import exclusive
    from search_spaces.architecture import Architecture

    device = detect(job["device"])
    evaluator = LatencyEvaluator(device, **job["qualifiers"])
    architecture = Architecture.from_json(job["architecture"])
    if evaluator.policy.threads:
        torch.set_num_threads(evaluator.policy.threads)  # onnxruntime takes as many
    with exclusive(device):
        with torch.inference_mode():
            native = prepare(
                architecture,
                device,
                batch=evaluator.batch,
                dtype=evaluator.dtype,
                phase=evaluator.phase,
                tokens=evaluator.tokens,
            )
        models: dict[str, Any] = {"native": native.module}
        refused: dict[str, str] = {}
        apart = {kind: why for kind in job["formats"] if (why := _apart(kind, evaluator))}
        for kind in [item for item in job["formats"] if item not in apart]:
            try:
                models[kind] = _placed(reload.load_model(kind), kind, native, evaluator)
            except (Exception, SystemExit) as problem:  # of the export's own code
                refused[kind] = _reason(problem)
        if job["form"] == "packed" and "pt2" in models and evaluator.mode == "eager":
            models["traced"] = _traced(architecture, native.inputs)
        if evaluator.mode == "compile":
            models = {name: torch.compile(model) for name, model in models.items()}
        with torch.inference_mode():
            calls = {name: native.call(model) for name, model in models.items()}
            timings, disturbed = evaluator.time_all(calls)
    ms = {name: timing.median_us / 1e3 for name, timing in timings.items()}
    return {
        "native": ms.pop("native"),
        "traced": ms.pop("traced", None),
        "ms": ms,
        "refused": refused,
        "apart": apart,
        "disturbed": disturbed,
    }


def _apart(kind: str, evaluator: Any) -> str:
    """Say why a format cannot be compared with what the study measured; empty if it can."""
    if kind != "python" and evaluator.dtype != "float32":
        return f"{kind} stays in float32, the study measured {evaluator.dtype}"
    if kind != "python" and (evaluator.phase or evaluator.tokens):
        return f"{kind} reads whole inputs, the study measured a phase of decoding"
    if kind == "onnx" and evaluator.device.kind != "cpu":
        return "onnxruntime runs on the CPU here, the study measured another device"
    return ""


def _placed(model: Any, kind: str, native: Any, evaluator: Any) -> Any:
    """Bring a model to the device, type and layout that the study measures in."""
    import torch

    from evaluators.latency.subject import DTYPES

    if kind == "python":
        model.to(evaluator.device.torch_name, DTYPES[evaluator.dtype])
        if native.layout == "channels_last":
            model.to(memory_format=torch.channels_last)
    else:
        _place(model, evaluator.device.torch_name)
    return model


def _traced(architecture: Any, inputs: Any) -> Any:
    """Return the study's network as torch runs a graph: what only the running costs."""
    import torch

    from search_spaces.build import build
    from search_spaces.export.programs import trace_program

    module = build(architecture).to(inputs.device)
    example = torch.zeros(2, *inputs.shape[1:], device=inputs.device, dtype=inputs.dtype)
    return trace_program(module, [example]).module()


def _place(model: Any, device: str) -> None:
    """Move a model to a device; all but packed programs are loaded on the CPU."""
    if device != "cpu":
        model.to(device)


_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def _write(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write a safetensors file; the package of that name is not there for a plain export."""
    import torch

    header, parts, end = {}, [], 0
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        data = kept.reshape(-1).view(torch.uint8).numpy().tobytes()
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
