"""The flags of ``nas search``: made from the settings of a study, so that both always agree."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from nas.commands.shared import (
    Names,
    complete_data,
    complete_metrics,
    complete_recipe,
    complete_sampler,
    complete_space,
    items_of,
)
from studies.config import StudyConfig

POSITIONAL = "space"
"""The one setting that is an argument, not a flag."""

_PLAIN = (str, int, float, bool)
_COMPLETIONS: dict[str, Names] = {
    "data": complete_data,
    "objectives": complete_metrics,
    "recipe": complete_recipe,
    "sampler": complete_sampler,
}


def flags_of(name: str) -> list[str]:
    """Return the flags of a setting; a list can be named in the singular too.

    Example:
        >>> flags_of("trial_minutes"), flags_of("constraints"), flags_of("enqueue")
        (['--trial-minutes'], ['--constraint', '--constraints'], ['--enqueue'])
    """
    flag = f"--{name.replace('_', '-')}"
    if _takes_many(StudyConfig.model_fields[name]) and name.endswith("s"):
        return [flag.removesuffix("s"), flag]
    return [flag]


def parameters() -> list[inspect.Parameter]:
    """Return a parameter for each setting, as typer reads parameters; None: not given."""
    about = _descriptions()
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_annotation(name, field, about.get(name, "")),
        )
        for name, field in StudyConfig.model_fields.items()
    ]


def given_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, as :class:`StudyConfig` takes them.

    Example:
        >>> given_settings({"objectives": ["params,latency_ms[batch=8,cache=cold]"], "seed": None})
        {'objectives': ('params', 'latency_ms[batch=8,cache=cold]')}
    """
    settings: dict[str, Any] = {}
    for name in StudyConfig.model_fields:
        value = values.get(name)
        if value is None:
            continue
        if isinstance(value, list):
            value = tuple(value)
        if name == "objectives":
            value = items_of(value)
        settings[name] = value
    return settings


def _annotation(name: str, field: FieldInfo, text: str) -> Any:
    if name == POSITIONAL:
        argument = typer.Argument(help=text, autocompletion=complete_space)
        return Annotated[str | None, argument]
    kind: Any = list[str] if _takes_many(field) else _scalar(field.annotation)
    shown = _default(field)
    option = typer.Option(
        *flags_of(name),
        help=f"{text} {shown}".strip(),
        metavar=_metavar(name, field),
        autocompletion=_COMPLETIONS.get(name),
        show_default=False,
    )
    return Annotated[kind | None, option]


def _takes_many(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _scalar(annotation: Any) -> type:
    """Return the plain type of a setting, without None."""
    kinds = [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [item for item in get_args(annotation) if item is not type(None)]
    if len(kinds) != 1 or kinds[0] not in _PLAIN:
        raise TypeError(f"No flag can be made for a setting of type {annotation}.")
    kind: type = kinds[0]
    return kind


_METAVARS = {
    "objectives": "METRIC,...",
    "constraints": "METRIC<=NUMBER",
    "funnel": "[METRIC:]SHARE",
    "rungs": "EPOCH:SHARE|halving",
    "ray": "auto|local|HOST:PORT",
    "baselines": "torchvision:NAME",
    "from_model": "MODEL",
    "variants": "KIND",
    "enqueue": "FILE.json",
    "evaluators": "FILE.py:NAME",
    "device": "cpu|cuda|cuda:N",
}


def _metavar(name: str, field: FieldInfo) -> str:
    if name in _METAVARS:
        return _METAVARS[name]
    return {int: "N", float: "X"}.get(_scalar(field.annotation), name.upper())


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required() or value is None or value == ():
        return ""
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return f"[{text}]"


def _descriptions() -> dict[str, str]:
    """Return what the class says of each setting: the ``Attributes:`` of its docstring."""
    body = (inspect.getdoc(StudyConfig) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    entries = re.split(r"^ {4}(?=\w+: )", body, flags=re.MULTILINE)
    found = {}
    for entry in filter(None, entries):
        name, _, text = entry.partition(": ")
        sentence = " ".join(text.replace("``", "").split())
        found[name] = f"{sentence[:1].upper()}{sentence[1:]}"
    return found


def signed(function: Callable[..., None], extra: list[inspect.Parameter]) -> Callable[..., None]:
    """Return a function of the settings and some more, for typer to read."""

    def command(**values: Any) -> None:
        function(**values)

    everything = [*parameters(), *extra]
    command.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in everything}
    return command
