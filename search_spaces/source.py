"""Writes a network as Python source that reads as if a person had written it.

The source is the only way a network is built: :mod:`search_spaces.build` executes it, and an export
is the same text in a file. It comes in two forms that differ in where layers that torch lacks come
from: ``native`` takes them from this project, and with them the fast kernels; ``plain`` holds their
definitions and needs torch only. State dicts are equal.
"""

from __future__ import annotations

import importlib
import inspect
import keyword
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.architecture.node import Node
from search_spaces.ops import Zero
from search_spaces.ops.base import Part
from search_spaces.source_layout import (
    WIDTH,
    Paragraphs,
    call_lines,
    free_variable,
    import_lines,
    signature,
    statement,
    wrapped_nodes,
)

Form = Literal["native", "plain"]

_NAME_LENGTH = 60
_SIZES = 4
"""Most shapes of inputs that are named in the first line."""
_TORCH_IMPORTS = ("import torch", "from torch import nn")


class Home(NamedTuple):
    """Modules that define a layer.

    Attributes:
        native: the one to use with this project.
        plain: the one whose source needs torch alone. It names what the source takes in
            ``PLAIN_IMPORTS``, and the objects to copy in ``PLAIN_SOURCE``, or has the layer only.
    """

    native: str
    plain: str


_OURS = Home("search_spaces.ops.layers", "search_spaces.ops.layers")
_HOMES = {
    "Attention": _OURS,
    "Cache": _OURS,
    "CausalAttention": _OURS,
    "ClassToken": _OURS,
    "Positions": _OURS,
    "Rotary": _OURS,
    "StochasticDepth": _OURS,
    "SlidingChannelConv2d": Home("kernels.sliding_channel.module", "kernels.sliding_channel.plain"),
}


def register_layer(name: str, home: Home) -> None:
    """Make a layer known that parts may name among their ``uses``.

    Raises:
        NasError: another layer has the name.
    """
    if _HOMES.setdefault(name, home) != home:
        raise NasError(f"The layer {name!r} is registered twice.")


def native_modules(architecture: Architecture) -> list[str]:
    """Return the modules of this project that the native form imports, sorted."""
    return sorted({_HOMES[name].native for name in _used(architecture)})


def generate(
    architecture: Architecture,
    *,
    form: Form = "plain",
    name: str = "Network",
    description: str | None = None,
) -> str:
    """Return the source of a module that defines the network as one ``nn.Module``.

    Args:
        architecture: the network; its variants are not part of the module, see
            :func:`search_spaces.variants.realise`.
        form: ``plain`` for a file that needs torch only, ``native`` for use with this project.
        name: name of the class, an identifier.
        description: what the class says of itself; the dense network's text form by default.
    """
    text = architecture.dense().text if description is None else description
    used = _used(architecture)
    body = [
        f"class {name}(nn.Module):",
        *_docstring(architecture, text),
        "",
        *_constructor(architecture),
        "",
        *_forward(architecture),
    ]
    imports, definitions = _layers(used, form, "\n".join(body))
    where = "on layers of paretonas" if used and form == "native" else "in plain PyTorch"
    head = [f'"""A network for {_sizes(architecture)}, {where}."""', "", *imports]
    return "\n\n\n".join(["\n".join(head), *definitions, "\n".join(body)]) + "\n"


def module_names(architecture: Architecture) -> list[str]:
    """Return the attribute of each node's layers, by canonical number; empty if it has none.

    Names come from scopes, made safe: identifiers of at most 60 characters, unique, that hide
    nothing of ``nn.Module``. Nodes that share parameters share a name.
    """
    from torch import nn

    taken = {*dir(nn.Module()), *keyword.kwlist}
    names: list[str] = []
    for number, node in enumerate(architecture.nodes):
        if node.tie is not None:
            names.append(names[node.tie])
        elif not _parts(node, architecture):
            names.append("")
        else:
            stem = re.sub(r"\W+", "_", node.scope, flags=re.ASCII).strip("_")[:_NAME_LENGTH]
            stem = stem or f"{node.op.kind}{number}"
            stem = f"n{stem}" if stem[0].isdigit() else stem
            unique, count = stem, 1
            while unique in taken:
                count += 1
                unique = f"{stem}_{count}"
            taken.add(unique)
            names.append(unique)
    return names


def weight_prefixes(architecture: Architecture) -> list[dict[str, str]]:
    """Return, by canonical number, where each role's weights stand in the module's state dict.

    For ``conv 16 bn`` named ``stem`` this is ``{"conv": "stem.0.", "norm": "stem.1."}``. A node
    that shares another's parameters has none of its own.
    """
    result = []
    for node, name in zip(architecture.nodes, module_names(architecture), strict=True):
        parts = _parts(node, architecture) if node.tie is None else ()
        single = len(parts) == 1
        result.append(
            {
                part.role: f"{name}." if single else f"{name}.{index}."
                for index, part in enumerate(parts)
            }
        )
    return result


def _used(architecture: Architecture) -> list[str]:
    """Return the names of the layers that torch lacks."""
    parts = [part for node in architecture.nodes for part in _parts(node, architecture)]
    used = {use for part in parts for use in part.uses}
    return sorted(used | {"Cache"} if architecture.decodes else used)


def _parts(node: Node, architecture: Architecture) -> tuple[Part, ...]:
    return node.op.parts(tuple(architecture.nodes[item].shape for item in node.inputs))


def _layers(used: Sequence[str], form: Form, body: str) -> tuple[list[str], list[str]]:
    """Return the import lines and the definitions that the layers in use need.

    Those that only other layers name are defined with them, and not imported.
    """
    imports = set(_TORCH_IMPORTS)
    if form == "native":
        named = [name for name in used if re.search(rf"\b{name}\b", body)]
        ours = [
            line
            for module in sorted({_HOMES[name].native for name in named})
            for line in import_lines(module, [x for x in named if _HOMES[x].native == module])
        ]
        return [*_sorted_imports(imports), *([""] if ours else []), *ours], []
    definitions: list[str] = []
    for name in used:
        module = importlib.import_module(_HOMES[name].plain)
        imports.update(module.PLAIN_IMPORTS)
        objects = getattr(module, "PLAIN_SOURCE", None) or (getattr(module, name),)
        definitions += [inspect.getsource(item).rstrip() for item in objects]
    needed = "\n".join(definitions)
    imports = {
        line
        for line in imports
        if line in _TORCH_IMPORTS or re.search(rf"\b{line.split()[-1]}\b", needed)
    }
    return _sorted_imports(imports), definitions


def _sorted_imports(lines: Iterable[str]) -> list[str]:
    def is_torch(line: str) -> bool:
        return line.split()[1].split(".")[0] == "torch"

    ordered = sorted(lines, key=lambda line: (line.startswith("from"), line))
    standard = [line for line in ordered if not is_torch(line)]
    return [*standard, *([""] if standard else []), *(line for line in ordered if is_torch(line))]


def _sizes(architecture: Architecture) -> str:
    """Write the shapes of the inputs, without the batch axis; equal ones once."""
    if architecture.decodes:
        return f"up to {architecture.inputs[0].shape[0]} token ids"
    sizes = dict.fromkeys("x".join(map(str, node.shape)) for node in architecture.inputs)
    named = " and ".join(list(sizes)[:_SIZES])
    known = named if 0 < len(sizes) <= _SIZES else "any size" if not sizes else "several sizes"
    return f"inputs of {known}"


def _docstring(architecture: Architecture, description: str) -> list[str]:
    head = (
        f'"""{architecture.params:,} parameters; {architecture.macs:,} multiply-accumulates '
        "a sample."
    )
    text = wrapped_nodes(description, WIDTH - 4)
    return [f"    {line}" if line else "" for line in (head, "", *text, '"""')]


def _constructor(architecture: Architecture) -> list[str]:
    lines = ["    def __init__(self) -> None:", "        super().__init__()"]
    names = module_names(architecture)
    paragraphs = Paragraphs()
    for node, name in zip(architecture.nodes, names, strict=True):
        parts = _parts(node, architecture)
        if node.tie is not None or not parts:
            continue
        if paragraphs.begins(node):
            lines.append("")
        if len(parts) == 1:
            lines += call_lines(f"        self.{name} = ", parts[0].source)
        else:
            lines.append(f"        self.{name} = nn.Sequential(")
            for part in parts:
                lines += call_lines("            ", part.source, ",")
            lines.append("        )")
    return lines


def _forward(architecture: Architecture) -> list[str]:
    """Write the forward method; a variable is used again as soon as its value is not needed."""
    nodes = architecture.nodes
    names = module_names(architecture)
    last_use = {source: index for index, node in enumerate(nodes) for source in node.inputs}
    variables: dict[int, str] = {}
    for number, node in enumerate(nodes):
        if node.op.kind == "input":
            variables[number] = free_variable(variables.values())
    arguments = list(variables.values()) or ["x"]
    paragraphs = Paragraphs()
    decodes = architecture.decodes
    lines: list[str] = []
    for number, node in enumerate(nodes):
        if node.op.kind == "input":
            continue
        args = tuple(variables[item] for item in node.inputs)
        for item in set(node.inputs):
            if last_use[item] == number:
                variables[item] = ""
        variables[number] = free_variable(variables.values())
        if isinstance(node.op, Zero):
            call = f"like.new_zeros({(0, *node.shape)})".replace("(0,", "(like.shape[0],")
        else:
            extra = (node.op.placed,) if decodes and node.op.placed else ()
            call = node.op.call(f"self.{names[number]}", (*args, *extra))
        target = "return" if node is nodes[-1] else f"{variables[number]} ="
        lines += [""] if paragraphs.begins(node) else []
        shape = ("t", *node.shape[1:]) if decodes else node.shape
        lines += statement(target, call, " x ".join(map(str, shape)))
    if any(isinstance(node.op, Zero) for node in nodes):
        lines.insert(0, f"        like = {arguments[0]}")
    if decodes:
        lines = [*_begin(architecture, arguments[0]), *lines]
    return [
        *signature(arguments, ("cache: Cache | None = None",) if decodes else ()),
        *_purpose(architecture, arguments),
        *(lines or [f"        return {arguments[0]}"]),
    ]


def _begin(architecture: Architecture, ids: str) -> list[str]:
    """Write how a decoder counts its tokens; their place is named where a layer needs it."""
    count = f"cache.begin({ids}.shape[1])"
    if any(node.op.placed == "start" for node in architecture.nodes):
        return [f"        start = 0 if cache is None else {count}"]
    return ["        if cache is not None:", f"            {count}"]


def _purpose(architecture: Architecture, arguments: Sequence[str]) -> list[str]:
    """Write what the forward method maps; the inputs are counted where their shapes take a line."""
    if architecture.decodes:
        tokens, classes = architecture.output.shape
        return [
            f'        """Map token ids (b, t), t up to {tokens}, to (b, t, {classes}).',
            "",
            "        With a cache, the tokens stand behind those that it holds.",
            '        """',
        ]
    given = [
        f"{argument} {_batch(node.shape)}"
        for argument, node in zip(arguments, architecture.inputs, strict=False)
    ]
    result = _batch(architecture.output.shape)
    line = f'        """Map {" and ".join(given) or "x (b, ...)"} to {result}."""'
    if len(line) > WIDTH:
        line = f'        """Map {len(given)} inputs to {result}."""'
    return [line]


def _batch(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, ('b', *shape)))})"
