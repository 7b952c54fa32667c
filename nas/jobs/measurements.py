"""What ``nas measure`` names and keeps: which run is meant, and what its record holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kernels.errors import NasError
from kernels.references import is_file_reference
from nas.jobs.common import Json
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from search_spaces.zoo import plain_name
from studies.measurements import export_measurements, measurements, row_json

LOOSE = "measured"
"""Below ``runs``, the run of networks that are of no space and of no other run."""

Asked = str | Space | Architecture


def run_of(asked: Sequence[Asked], out: Path | None = None) -> Path:
    """Return the directory of the run that is meant.

    Args:
        asked: what is measured, or the run itself.
        out: the directory, where it is named.

    Raises:
        NasError: nothing is named.
    """
    if out is not None:
        return out
    if not asked:
        raise NasError("Name the run: nas measure --list RUN.")
    first = asked[0]
    if isinstance(first, Architecture):
        return Path("runs") / LOOSE
    if isinstance(first, Space):
        return Path("runs") / plain_name(first.name)
    if is_network(first):
        run, colon, _ = first.rpartition(":")
        return Path(run) if colon and Path(run).is_dir() else Path("runs") / LOOSE
    if not is_file_reference(first) and (Path(first).is_dir() or Path(first).name != first):
        return Path(first)  # no space is called so
    return Path("runs") / plain_name(first)


def recorded(run: Path) -> Json:
    """Return what was measured in a run, oldest first."""
    return {"run": str(run), "measurements": [row_json(row) for row in measurements(run)]}


def exported(run: Path, path: Path) -> Json:
    """Write what was measured in a run to a file."""
    return {"run": str(run), "file": str(path), "measurements": export_measurements(run, path)}


def is_network(reference: str) -> bool:
    """Tell whether a reference names a network, and no space."""
    if reference.lstrip().startswith("input ") or reference.startswith("torchvision:"):
        return True
    if is_file_reference(reference):
        return False
    return ":" in reference or reference.endswith(".json") or Path(reference).is_file()
