"""A module as ``.pt2`` and as ONNX: bytes that hold neither paths of this machine nor pickles."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kernels.errors import NasError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-4
"""Of the largest output, between ONNX as written and torch; an audit looks closer."""


def trace_program(module: nn.Module, inputs: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """Trace a module in evaluation mode, for a batch of any size.

    Args:
        module: is left in evaluation mode.
        inputs: an example (b, ...) of each, b at least 2: torch takes a batch of 1 for a constant.

    Raises:
        NasError: torch cannot trace it.
    """
    import torch

    batch = {0: torch.export.Dim("batch")}
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(
                module.eval(), tuple(inputs), dynamic_shapes=tuple(batch for _ in inputs)
            )
    except Exception as problem:  # whatever torch's passes raise
        raise NasError(f"torch.export cannot trace this network: {_line(problem)}") from problem
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                node.meta.pop("stack_trace", None)  # names files of this machine
    return program


def program_bytes(program: torch.export.ExportedProgram) -> bytes:
    """Return the content of a ``.pt2`` file; torch's archive of JSON and raw tensors.

    NOTE: torch pickles the example inputs of a program, and nothing else of ours; so it gets none.
    """
    import torch

    kept = program.example_inputs
    program.example_inputs = None
    buffer = io.BytesIO()
    try:
        with _quiet():
            torch.export.save(program, buffer)
    finally:
        program.example_inputs = kept
    return buffer.getvalue()


def require_onnx() -> None:
    """Refuse to go on without the packages that ONNX takes.

    Raises:
        NasError: one of them is not installed.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise NasError(
            f"An export to ONNX needs {', '.join(missing)}; install the extra: "
            "pip install 'paretonas[export]'."
        )


def onnx_bytes(program: torch.export.ExportedProgram, inputs: Sequence[Tensor]) -> bytes:
    """Return the content of an ONNX file: weights inside, a batch of any size.

    Args:
        program: the traced network, on the CPU.
        inputs: an example (b, ...) of each, to check the file with in onnxruntime.

    Raises:
        NasError: a package is missing, the network cannot be written, or onnxruntime computes
            something else.
    """
    require_onnx()
    import torch

    names = ["input"] if len(inputs) == 1 else [f"input_{i}" for i in range(len(inputs))]
    try:
        with _quiet():
            made: Any = torch.onnx.export(
                program,
                tuple(inputs),
                dynamo=True,
                external_data=False,
                input_names=names,
                output_names=["output"],
                verbose=False,
            )
    except Exception as problem:  # whatever torch's passes raise
        raise NasError(f"This network cannot be written as ONNX: {_line(problem)}") from problem
    model = made.model_proto
    _clean(model)
    _name_batch(model)
    importlib.import_module("onnx").checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    _check_onnx(content, program, inputs)
    return content


def _clean(model: Any) -> None:
    """Remove notes that name Python files and classes of this machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for item in (*graph.initializer, *model.functions):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _name_batch(model: Any) -> None:
    """Call the free axis what it is; torch numbers it."""
    symbols = [item.type.tensor_type.shape.dim[0].dim_param for item in model.graph.input]
    for item in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in item.type.tensor_type.shape.dim:
            if axis.dim_param and axis.dim_param in symbols:
                axis.dim_param = "batch"


def _check_onnx(
    content: bytes, program: torch.export.ExportedProgram, inputs: Sequence[Tensor]
) -> None:
    import torch

    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    given = {item.name: x.numpy() for item, x in zip(session.get_inputs(), inputs, strict=False)}
    with torch.inference_mode():
        expected = program.module()(*inputs)
    found = torch.from_numpy(session.run(None, given)[0])
    difference, scale = (found - expected).abs().max().item(), expected.abs().max().item()
    if not difference <= _TOLERANCE * scale:
        raise NasError(
            f"onnxruntime computes other outputs than torch: they differ by {difference:.1e} at a "
            f"scale of {scale:.1e}; export to another format."
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's notes on its own passes from the terminal; what is wrong is raised."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "torch.fx")
    loggers = [logging.getLogger(name) for name in names]
    levels = [item.level for item in loggers]
    for item in loggers:
        item.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for item, level in zip(loggers, levels, strict=True):
            item.setLevel(level)


def _line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
