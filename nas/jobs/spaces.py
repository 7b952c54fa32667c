"""The jobs of ``nas spaces`` and ``nas bench``: sizes of spaces, speed of drawing and recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from kernels.errors import NasError
from nas.bench import candidate_throughput, record_costs
from nas.jobs.common import Json
from nas.tables import table
from search_spaces.size import Size
from search_spaces.space import EXAMPLES, DataSpec, Reads, Space
from search_spaces.zoo import load_space, space_names
from studies.deadline import with_deadline

RUN_SECONDS = 30.0
"""How long a space may take to describe one network; those that ship take about a millisecond."""


def patient_space(name: str | Space) -> Space:
    """Find a space, where it is not given, and make its runs end.

    Raises:
        NasError: there is no such space.
    """
    return with_deadline(load_space(name) if isinstance(name, str) else name, RUN_SECONDS)


def spaces(
    names: Sequence[str],
    input_shape: str | None,
    classes: int | None,
    *,
    say: Callable[[str], None],
) -> list[Json]:
    """Return name, version and size of search spaces.

    Args:
        names: of the spaces; all if none.
        input_shape: ``CxHxW`` of images, or the number of tokens of text; by default an example of
            what each space reads.
        classes: of images; of text, the size of the vocabulary.
        say: told which is counted.

    Raises:
        NasError: the shape cannot be read, or a space that is named reads something else.
    """
    given = None if input_shape is None else _spec(input_shape, classes)
    found = [patient_space(name) for name in names or space_names()]
    if given is not None and not names:
        found = [space for space in found if space.reads == given.kind]
    rows = []
    for space in found:
        say(f"Counting {space.name} ...")
        size = space.size(given or _example(space.reads, classes))
        rows.append({"name": space.name, "version": space.version, **size_json(size)})
    return rows


def _example(reads: Reads, classes: int | None) -> DataSpec:
    spec = EXAMPLES[reads]
    return spec if classes is None else _spec("x".join(map(str, spec.input_shape)), classes)


def shape_of(text: str) -> tuple[int, ...]:
    """Read the shape of one sample: ``CxHxW``, or a number of tokens.

    Raises:
        NasError: it is none.
    """
    try:
        shape = tuple(int(size) for size in text.split("x"))
        if len(shape) not in (1, 3) or min(shape) < 1:
            raise ValueError
    except ValueError:
        raise NasError(
            f"Expected --input-shape CxHxW (or a number of tokens), got {text!r}."
        ) from None
    return shape


def _spec(input_shape: str, classes: int | None) -> DataSpec:
    shape = shape_of(input_shape)
    if classes is not None and classes < 1:
        raise NasError(f"Expected a positive number of --classes, got {classes}.")
    text = len(shape) == 1
    number = classes or EXAMPLES["text" if text else "images"].classes
    return DataSpec(shape, number, number if text else 0)


def spaces_text(rows: Sequence[Json]) -> str:
    """Write spaces as a table."""
    cells = [[row["name"], str(row["version"]), row["size"]] for row in rows]
    return table(["space", "version", "candidates"], cells, left=(0, 2))


def size_json(size: Size) -> Json:
    """Return the size of a space as plain values."""
    return {"size": str(size), **dataclasses.asdict(size)}


def bench_candidates(space: str, seconds: float) -> Json:
    """Measure the throughput of candidates.

    Args:
        space: where they are drawn from.
        seconds: processor time to spend.

    Raises:
        NasError: there is no such space, or it is too small.
    """
    found = patient_space(space)
    result = candidate_throughput(found, EXAMPLES[found.reads], seconds=seconds)
    return {"space": space, **dataclasses.asdict(result)}


def bench_candidates_text(result: Json) -> str:
    """Say how fast candidates are drawn."""
    return (
        f"{result['median']:,.0f} candidates a second on one core (p10 {result['p10']:,.0f}, "
        f"p90 {result['p90']:,.0f}; {result['candidates']:,} of {result['space']}, "
        f"{result['nodes']:.1f} nodes each)"
    )


def bench_record(space: str, trials: int, *, say: Callable[[str], None]) -> Json:
    """Measure what it costs to record trials.

    Args:
        space: where candidates are drawn from.
        trials: how many to record.
        say: told of the progress.

    Raises:
        NasError: there is no such space, or it is too small.
    """
    return {"space": space, **dataclasses.asdict(record_costs(space, trials, say=say))}


def bench_record_text(result: Json) -> str:
    """Say how fast trials are recorded, and a study read."""
    return (
        f"{result['first']:.2f} ms a trial in the first 1,000 of {result['trials']:,}, "
        f"{result['last']:.2f} ms in the last (p90 {result['p90']:.2f}); "
        f"front read in {result['front'] / 1e3:.2f} s, summary in "
        f"{result['summary'] / 1e3:.2f} s; resumed in {result['resume'] / 1e3:.2f} s"
    )
