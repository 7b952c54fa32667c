"""Hardware-aware architecture search: the Python face of the tool.

Names load when they are first used, so that ``import nas`` stays instant and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.errors import NasError as NasError
    from nas.api import Point as Point
    from nas.api import Study as Study
    from nas.api import open_study as open_study
    from nas.api import search as search
    from nas.measuring import measure as measure
    from search_spaces.architecture import Architecture as Architecture
    from search_spaces.build import build as build
    from search_spaces.builder import NetworkBuilder as NetworkBuilder
    from search_spaces.export.compare import compare as compare
    from search_spaces.export.load import load as load
    from search_spaces.space import DataSpec as DataSpec
    from search_spaces.space import space as space
    from search_spaces.trace import trace as trace
    from search_spaces.zoo import load_space as load_space
    from studies.measurements import measurements as measurements

_HOMES = {
    "Architecture": "search_spaces.architecture",
    "DataSpec": "search_spaces.space",
    "NasError": "kernels.errors",
    "NetworkBuilder": "search_spaces.builder",
    "Point": "nas.api",
    "Study": "nas.api",
    "build": "search_spaces.build",
    "compare": "search_spaces.export.compare",
    "load": "search_spaces.export.load",
    "load_space": "search_spaces.zoo",
    "measure": "nas.measuring",
    "measurements": "studies.measurements",
    "open_study": "nas.api",
    "search": "nas.api",
    "space": "search_spaces.space",
    "trace": "search_spaces.trace",
}

__all__ = [
    "Architecture",
    "DataSpec",
    "NasError",
    "NetworkBuilder",
    "Point",
    "Study",
    "build",
    "compare",
    "load",
    "load_space",
    "measure",
    "measurements",
    "open_study",
    "search",
    "space",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
