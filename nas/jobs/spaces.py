"""The jobs of ``nas spaces`` and ``nas bench``: sizes of spaces, speed of drawing and recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from kernels.errors import NasError, UnknownNameError
from nas.bench import candidate_throughput, record_costs
from nas.jobs.common import Json
from nas.tables import table
from search_spaces.size import Size
from search_spaces.space import DataSpec, Space
from search_spaces.zoo import load_space, space_names
from studies.deadline import with_deadline

RUN_SECONDS = 30.0
"""How long a space may take to describe one network; those that ship take about a millisecond."""


def patient_space(name: str) -> Space:
    """Find a space, and make its runs end.

    Raises:
        NasError: there is no such space.
    """
    return with_deadline(load_space(name), RUN_SECONDS)


def spaces(
    names: Sequence[str], input_shape: str, classes: int, *, say: Callable[[str], None]
) -> list[Json]:
    """Return name, version and size of search spaces; ``say`` is told which is counted."""
    try:
        shape = tuple(int(size) for size in input_shape.split("x"))
        if len(shape) != 3 or min(shape) < 1 or classes < 1:
            raise ValueError
    except ValueError:
        raise NasError(
            f"Expected --input-shape CxHxW and --classes, got {input_shape!r} and {classes}."
        ) from None
    rows = []
    for name in names or space_names():
        space = patient_space(name)
        say(f"Counting {space.name} ...")
        size = space.size(DataSpec(shape, classes))
        rows.append({"name": space.name, "version": space.version, **size_json(size)})
    return rows


def spaces_text(rows: Sequence[Json]) -> str:
    """Write spaces as a table."""
    cells = [[row["name"], str(row["version"]), row["size"]] for row in rows]
    return table(["space", "version", "candidates"], cells, left=(0, 2))


def size_json(size: Size) -> Json:
    """Return the size of a space as plain values."""
    return {"size": str(size), **dataclasses.asdict(size)}


def bench(
    what: str, space: str, *, seconds: float, trials: int, say: Callable[[str], None]
) -> Json:
    """Measure the throughput of candidates, or what it costs to record trials."""
    if what == "candidates":
        result = candidate_throughput(
            patient_space(space), DataSpec((3, 32, 32), 10), seconds=seconds
        )
        return {"space": space, **dataclasses.asdict(result)}
    if what == "record":
        return {"space": space, **dataclasses.asdict(record_costs(space, trials, say=say))}
    raise UnknownNameError("benchmark", what, ["candidates", "record"])


def bench_text(result: Json) -> str:
    """Say how fast candidates are drawn, or recorded."""
    if "trials" in result:
        return (
            f"{result['first']:.2f} ms a trial in the first 1,000 of {result['trials']:,}, "
            f"{result['last']:.2f} ms in the last (p90 {result['p90']:.2f}); "
            f"front read in {result['front'] / 1e3:.2f} s, summary in "
            f"{result['summary'] / 1e3:.2f} s"
        )
    return (
        f"{result['median']:,.0f} candidates a second on one core (p10 {result['p10']:,.0f}, "
        f"p90 {result['p90']:,.0f}; {result['candidates']:,} of {result['space']}, "
        f"{result['nodes']:.1f} nodes each)"
    )
