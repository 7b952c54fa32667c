"""The job of ``nas measure``: networks measured into a run's record."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from evaluators.accuracy.data import load_dataset
from kernels.device import detect
from kernels.errors import NasError
from nas.figures import figure
from nas.jobs.common import Json
from nas.jobs.improving import traced
from nas.jobs.measurements import Asked, is_network, run_of
from nas.jobs.spaces import patient_space
from nas.jobs.training import find_architecture
from nas.output import progress
from search_spaces.architecture import Architecture
from studies.measuring import Measurement, measure, measuring_evaluators, members
from studies.workspace import Workspace


def measured(
    asked: Sequence[str],
    *,
    metrics: Sequence[str],
    trials: int,
    seed: int,
    data: str,
    input_shape: str | None,
    repeat: int,
    device: str | None,
    out: Path | None,
    database: str | None,
) -> Json:
    """Measure networks, each figure once a run.

    Args:
        asked: networks (see :func:`networks_of`), and spaces to draw some of.
        metrics: what to measure.
        trials: networks of each space.
        seed: of the draws.
        data: that the networks of a space are made for.
        input_shape: of one sample, for a model of torchvision's.
        repeat: measurements that a figure is the mean of.
        device: where to measure.
        out: directory of the run; None: see :func:`run_of`.
        database: URL of the server that keeps the record, if the directory does not say so yet.

    Raises:
        NasError: a name is unknown, the device is not there, or the record cannot be used.
    """
    begin = time.perf_counter()
    target = detect(device)
    total = len(measuring_evaluators(metrics, target, repeat=repeat))
    networks, count = networks_of(asked, data=data, trials=trials, seed=seed, shape=input_shape)
    run = run_of(asked, out)
    place = Workspace.of(run) if database is None else Workspace.of(run).with_database(database)
    said = 0

    def say(item: Measurement) -> None:
        nonlocal said
        said += 1
        progress(f"[{said}/{count * total}] {item.architecture.key[:8]} {_came(item)}")

    found = measure(networks, metrics, place, device=target, repeat=repeat, on_figure=say)
    return {
        "run": str(run),
        "device": str(target),
        "seconds": time.perf_counter() - begin,
        "wanted": count,
        "measurements": [_json(item) for item in found],
    }


def networks_of(
    asked: Sequence[Asked], *, data: str, trials: int, seed: int, shape: str | None = None
) -> tuple[Iterator[Architecture], int]:
    """Find the networks that are meant, and draw those of spaces.

    Args:
        asked: each an architecture, a space, or a reference: a JSON file, ``RUN:KEY``, the text
            form or ``torchvision:NAME`` of a network; a name or ``FILE.py[:NAME]`` of a space.
        data: that the networks of a space are made for.
        trials: networks of each space.
        seed: of the draws.
        shape: of one sample, for a model of torchvision's.

    Returns:
        the networks, drawn as they are taken; and how many there are at most.

    Raises:
        NasError: one of them cannot be found or read.
    """
    if not asked:
        raise NasError("Name a space or a network: nas measure SPACE, or JSON file, RUN:KEY, text.")
    parts: list[Iterator[Architecture]] = []
    count = 0
    for item in asked:
        if isinstance(item, Architecture):
            parts.append(iter((item,)))
        elif isinstance(item, str) and is_network(item):
            parts.append(iter((_read(item, shape),)))
        else:
            space = patient_space(item)
            parts.append(members(space, load_dataset(data).spec, trials, seed=seed))
            count += trials - 1
        count += 1
    return chain.from_iterable(parts), count


def _read(reference: str, shape: str | None) -> Architecture:
    if reference.startswith("torchvision:"):
        return traced(reference, shape)
    return find_architecture(reference)[0]


def _came(item: Measurement) -> str:
    """Say what became of a figure."""
    if item.figure is None:
        return f"{item.metric} failed: {item.reason}"
    ends = {"value": item.figure.value, "low": item.figure.low, "high": item.figure.high}
    stored = ", stored" if item.how == "stored" else ""
    disturbed = f", DISTURBED: {'; '.join(item.disturbed)}" if item.disturbed else ""
    return f"{item.metric} {figure(item.metric, ends)}{stored}{disturbed}"


def _json(item: Measurement) -> Json:
    found = {} if item.figure is None else dataclasses.asdict(item.figure)
    return {
        "network": item.architecture.key,
        "text": item.architecture.text,
        "metric": item.metric,
        "how": item.how,
        "reason": item.reason,
        "value": found.get("value"),
        "low": found.get("low"),
        "high": found.get("high"),
        "detail": found.get("detail", {}),
    }
