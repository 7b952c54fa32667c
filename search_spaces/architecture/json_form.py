"""The JSON form of a network: complete, versioned, readable without the space that made it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kernels.errors import NasError
from search_spaces.architecture.graph import Value, assign_variant, share_parameters
from search_spaces.architecture.node import Node, Region, Variant
from search_spaces.errors import ArchitectureError
from search_spaces.ops import OPS, make_op

FORMAT = "paretonas.architecture"


class _NodeForm(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    op: str
    attrs: dict[str, int | float | str | bool | list[int] | None] = Field(default_factory=dict)
    inputs: list[int] = Field(default_factory=list)
    scope: str = ""
    tie: int | None = None


class _RegionForm(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    nodes: list[int]
    variant: str


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)
    form: str = Field(alias="format")
    version: int = Field(alias="schema")
    nodes: list[_NodeForm] = Field(min_length=1)
    regions: list[_RegionForm] = Field(default_factory=list)
    key: str | None = None


class Read(NamedTuple):
    """A network read from JSON, not yet frozen.

    Attributes:
        output: the last node.
        key: the key the document claims, if it does.
    """

    output: Value
    key: str | None


def write(
    nodes: Sequence[Node], regions: Sequence[Region], *, schema: int, key: str
) -> dict[str, Any]:
    """Return the JSON form as plain dictionaries and lists."""
    return {
        "format": FORMAT,
        "schema": schema,
        "key": key,
        "nodes": [
            {
                "op": node.op.kind,
                "attrs": node.op.to_json(),
                "inputs": list(node.inputs),
                "scope": node.scope,
                **({} if node.tie is None else {"tie": node.tie}),
            }
            for node in nodes
        ],
        "regions": [
            {"nodes": list(region.nodes), "variant": str(region.variant)} for region in regions
        ],
    }


def read(document: str | Mapping[str, Any], *, schema: int) -> Read:
    """Read the JSON form into a graph.

    Raises:
        ArchitectureError: it is not such a document, of a newer schema, or no valid network.
    """
    try:
        raw = json.loads(document) if isinstance(document, str) else document
        form = _Form.model_validate(raw)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArchitectureError(f"Not an architecture document: {place}: {first['msg']}") from None
    except (ValueError, RecursionError) as problem:
        raise ArchitectureError(f"Not a JSON document: {problem}") from None
    if form.form != FORMAT or not 1 <= form.version <= schema:
        raise ArchitectureError(
            f"Cannot read {form.form!r} of schema {form.version}; this version reads {FORMAT!r} "
            f"up to schema {schema}. A newer release may."
        )
    values: list[Value] = []
    for number, node in enumerate(form.nodes):
        values.append(_read_node(node, number, values))
    for region in form.regions:
        members = [_pick(item, values, "region") for item in region.nodes]
        assign_variant(members, Variant.parse(region.variant))
    return Read(values[-1], form.key)


def _read_node(node: _NodeForm, number: int, values: Sequence[Value]) -> Value:
    place = node.scope or f"node {number}"
    try:
        op = make_op(OPS.get(node.op), dict(node.attrs))
    except NasError as problem:
        raise ArchitectureError(f"{place}: {problem}") from None
    inputs = tuple(_pick(item, values, place) for item in node.inputs)
    value = Value(op, inputs, node.scope)
    if node.tie is not None:
        share_parameters(value, _pick(node.tie, values, place))
    return value


def _pick(number: int, values: Sequence[Value], place: str) -> Value:
    if not 0 <= number < len(values):
        raise ArchitectureError(f"{place}: {number} does not name an earlier node")
    return values[number]
