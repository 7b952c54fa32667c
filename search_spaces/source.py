"""Writes a network as Python source that reads as if a person had written it.

The source is the only way a network is built: :mod:`search_spaces.build` executes it, and the plain
export is the same text in a file. It comes in two forms that differ in their imports alone:
``native`` takes the layers torch lacks from this project, and with them the fast kernels; ``plain``
holds their definitions and needs torch only. State dicts are equal.
"""

from __future__ import annotations

import importlib
import inspect
import keyword
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from search_spaces.architecture import Architecture
from search_spaces.architecture.node import Node
from search_spaces.ops import Zero
from search_spaces.ops.base import Part

Form = Literal["native", "plain"]

_WIDTH = 100
_NAME_LENGTH = 60
_TORCH_IMPORTS = ("import torch", "from torch import nn")


class _Home(NamedTuple):
    """Modules that define a layer: with the project at hand, and with torch alone."""

    native: str
    plain: str


_HOMES = {
    "Attention": _Home("search_spaces.ops.layers", "search_spaces.ops.layers"),
    "StochasticDepth": _Home("search_spaces.ops.layers", "search_spaces.ops.layers"),
    "SlidingChannelConv2d": _Home(
        "kernels.sliding_channel.module", "kernels.sliding_channel.plain"
    ),
}


def generate(architecture: Architecture, *, form: Form = "plain", name: str = "Network") -> str:
    """Return the source of a module that defines the network as one ``nn.Module``.

    Args:
        architecture: the network; its variants are not part of the dense module.
        form: ``plain`` for a file that needs torch only, ``native`` for use with this project.
        name: name of the class, an identifier.
    """
    parts = [part for node in architecture.nodes for part in _parts(node, architecture)]
    used = sorted({use for part in parts for use in part.uses})
    imports, definitions = _layers(used, form)
    body = [f"class {name}(nn.Module):", *_docstring(architecture), "", *_constructor(architecture)]
    blocks = [*definitions, "\n".join([*body, "", *_forward(architecture)])]
    return "\n".join(imports) + "\n\n\n" + "\n\n\n".join(blocks) + "\n"


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


def _parts(node: Node, architecture: Architecture) -> tuple[Part, ...]:
    return node.op.parts(tuple(architecture.nodes[item].shape for item in node.inputs))


def _layers(used: Sequence[str], form: Form) -> tuple[list[str], list[str]]:
    """Return the import lines and the definitions that the layers in use need."""
    imports = set(_TORCH_IMPORTS)
    if form == "native":
        ours = [f"from {_HOMES[name].native} import {name}" for name in used]
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


def _docstring(architecture: Architecture) -> list[str]:
    sizes = " and ".join("x".join(map(str, node.shape)) for node in architecture.inputs)
    head = (
        f'"""{architecture.params:,} parameters; {architecture.macs:,} multiply-accumulates '
        f"for one input of {sizes or 'any size'}."
    )
    text = textwrap.wrap(architecture.dense().text, _WIDTH - 4, break_on_hyphens=False)
    return [f"    {line}" if line else "" for line in (head, "", *text, '"""')]


def _constructor(architecture: Architecture) -> list[str]:
    lines = ["    def __init__(self) -> None:", "        super().__init__()"]
    names = module_names(architecture)
    stages = _Stages()
    for node, name in zip(architecture.nodes, names, strict=True):
        parts = _parts(node, architecture)
        if node.tie is not None or not parts:
            continue
        if stages.begins(node):
            lines.append("")
        if len(parts) == 1:
            lines += _call(f"        self.{name} = ", parts[0].source)
        else:
            lines.append(f"        self.{name} = nn.Sequential(")
            for part in parts:
                lines += _call("            ", part.source, ",")
            lines.append("        )")
    return lines


def _call(before: str, source: str, after: str = "") -> list[str]:
    """Write a call on one line, or its arguments on a line of their own where it is too long."""
    if len(before) + len(source) + len(after) <= _WIDTH:
        return [f"{before}{source}{after}"]
    function, _, arguments = source.partition("(")
    indent = " " * (len(before) - len(before.lstrip()))
    return [f"{before}{function}(", f"{indent}    {arguments[:-1]}", f"{indent}){after}"]


def _forward(architecture: Architecture) -> list[str]:
    """Write the forward method; a variable is used again as soon as its value is not needed."""
    nodes = architecture.nodes
    last_use = {source: index for index, node in enumerate(nodes) for source in node.inputs}
    last_use[len(nodes) - 1] = len(nodes)
    names = module_names(architecture)
    variables: dict[int, str] = {}
    for number, node in enumerate(nodes):
        if node.op.kind == "input":
            variables[number] = _free_variable(variables.values())
    arguments = list(variables.values()) or ["x"]
    stages = _Stages()
    lines: list[str] = []
    for number, node in enumerate(nodes):
        if node.op.kind == "input":
            continue
        args = tuple(variables[item] for item in node.inputs)
        for item in set(node.inputs):
            if last_use[item] == number:
                variables[item] = ""
        variable = _free_variable(variables.values())
        variables[number] = variable
        if isinstance(node.op, Zero):
            call = f"like.new_zeros({(0, *node.shape)})".replace("(0,", "(like.shape[0],")
        else:
            call = node.op.call(f"self.{names[number]}", args)
        lines += [""] if stages.begins(node) else []
        lines += _statement(variable, call, " x ".join(map(str, node.shape)))
    if any(isinstance(node.op, Zero) for node in nodes):
        lines.insert(0, f"        like = {arguments[0]}")
    signature = ", ".join(f"{argument}: torch.Tensor" for argument in arguments)
    return [
        f"    def forward(self, {signature}) -> torch.Tensor:",
        *_purpose(architecture, arguments),
        *lines,
        f"        return {variables[len(nodes) - 1]}",
    ]


class _Stages:
    """Tells where a stage of the network begins: the first part of the scopes changes there."""

    def __init__(self) -> None:
        self._last: str | None = None

    def begins(self, node: Node) -> bool:
        """Tell whether a node is the first of its stage, and not the first of all."""
        stage, slash, _ = node.scope.partition("/")
        last, self._last = self._last, stage if slash else ""
        return last is not None and last != self._last


def _purpose(architecture: Architecture, arguments: Sequence[str]) -> list[str]:
    """Write what the forward method maps, if there is room for it on one line."""
    given = [
        f"{argument} {_batch(node.shape)}"
        for argument, node in zip(arguments, architecture.inputs, strict=False)
    ]
    line = f'        """Map {" and ".join(given)} to {_batch(architecture.output.shape)}."""'
    return [line] if given and len(line) <= _WIDTH else []


def _batch(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, ('b', *shape)))})"


def _statement(variable: str, call: str, shape: str) -> list[str]:
    """Write an assignment with the shape behind it, or above one that fills a line or more."""
    line = f"        {variable} = {call}"
    if len(line) + len(f"  # {shape}") <= _WIDTH:
        return [f"{line}  # {shape}"]
    above = f"        # {shape}"
    if len(line) <= _WIDTH:
        return [above, line]
    if call.startswith("torch.cat(["):
        items, _, rest = call.removeprefix("torch.cat([").rpartition("], ")
        inner = f"            [{items}], {rest[:-1]}"
        if len(inner) <= _WIDTH:
            return [above, f"        {variable} = torch.cat(", inner, "        )"]
        listed = [f"            [{items}],"]
        if len(listed[0]) > _WIDTH:
            many = [f"                {item}," for item in items.split(", ")]
            listed = ["            [", *many, "            ],"]
        return [
            *(above, f"        {variable} = torch.cat("),
            *listed,
            *(f"            {rest[:-1]},", "        )"),
        ]
    first, *others = call.split(" + ")
    terms = [f"            {first}", *(f"            + {item}" for item in others)]
    return [above, f"        {variable} = (", *terms, "        )"]


def _free_variable(taken: Iterable[str]) -> str:
    used = set(taken)
    for name in ("x", "y", "z", "u", "v", "w"):
        if name not in used:
            return name
    number = 1
    while f"t{number}" in used:
        number += 1
    return f"t{number}"
