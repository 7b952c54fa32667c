"""Where things are printed: results on standard output, how work goes on on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def progress(line: str) -> None:
    """Say how work goes on."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def show(result: Result, *, as_json: bool, text: Callable[[Result], str]) -> None:
    """Print a result, as one JSON document or for people."""
    print(json.dumps(result, indent=1) if as_json else text(result), flush=True)  # noqa: T201
