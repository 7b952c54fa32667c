"""The jobs of ``nas proxies``: scores against a table, and against a study's own training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean, pstdev
from typing import NamedTuple

from evaluators.accuracy.data import Dataset, load_dataset
from evaluators.analytic import AnalyticEvaluator
from evaluators.proxies.agreement import Agreement, agreement
from evaluators.proxies.fusion import (
    FUSED,
    FUSED_PROBED,
    PROBED,
    SINGLE,
    Floats,
    fuse,
    oriented,
)
from evaluators.proxies.untrained import IMAGES, UntrainedEvaluator
from evaluators.tabular import Table, TextDecider
from kernels.device import detect
from kernels.errors import NasError
from nas.jobs.common import Json
from nas.jobs.fresh import Scored, score_fresh
from nas.tables import table as text_table
from search_spaces.architecture import Architecture
from search_spaces.space import EXAMPLES, Space
from search_spaces.zoo import load_space

_TRUTHS = ("cifar10_test_200", "cifar100_test_200")
_SAMPLE_SEED = 0
_SAY_EVERY = 500


def bench(
    files: Sequence[Path],
    *,
    truth: Sequence[str],
    space: str,
    networks: int,
    proxies: Sequence[str],
    seeds: int,
    data: str | None,
    device: str | None,
    processes: int,
    out: Path | None,
    say: Callable[[str], None],
) -> Json:
    """Score the networks of a table and compare the ranking with their qualities.

    Args:
        files: of the table.
        truth: columns of qualities, more being better; those of NAS-Bench-201 if none.
        space: what the rows are candidates of.
        networks: how many live ones to take, at random; 0 for all.
        proxies: scores of fresh networks to compute too.
        seeds: how often each of these is computed, with weights and images of its own.
        data: the data set of the table, whose images the scores see that compare samples; None:
            noise, and networks for images of 3x32x32 and 10 classes.
        device: where they are computed.
        processes: how many at a time.
        out: a file of each network's scores, from which an interrupted run goes on.
        say: told how far it is.

    Raises:
        NasError: the table cannot be used, or has no live network.
    """
    table = Table.load(files)
    names = list(truth) or [name for name in _TRUTHS if name in table.columns]
    if not names:
        raise NasError("Name a column of qualities with --truth.")
    qualities = {name: table.figures(name) for name in names}
    dataset = None if data is None else _images_of(data)
    evaluators = _fresh(proxies, seeds, dataset, device)
    scored = _scored(table, load_space(space), networks, dataset, say)
    found = score_fresh(scored.networks, evaluators, processes=processes, file=out, say=say)
    columns = _columns(scored.figures, proxies, found)
    return {
        "files": [str(file) for file in files],
        "networks": len(scored.rows),
        "seeds": seeds,
        "seconds_each": scored.seconds / len(scored.rows),
        "fresh_seconds_each": fmean(item.seconds for row in found for item in row) if found else 0,
        "truths": {
            name: {
                proxy: _over_seeds([agreement(values, quality[scored.rows]) for values in found])
                for proxy, found in columns.items()
            }
            for name, quality in qualities.items()
        },
    }


def _images_of(data: str) -> Dataset:
    dataset = load_dataset(data)
    if not isinstance(dataset, Dataset):
        raise NasError(f"The data set {data!r} has no images.")
    return dataset


def _fresh(
    proxies: Sequence[str], seeds: int, data: Dataset | None, device: str | None
) -> list[UntrainedEvaluator]:
    if not proxies:
        return []
    place = detect(device).torch_name
    images = None if data is None else data.train.batch(slice(0, IMAGES))
    return [
        UntrainedEvaluator(proxies, seed=seed, device=place, images=images) for seed in range(seeds)
    ]


def _columns(
    figures: Mapping[str, list[float]], proxies: Sequence[str], found: Sequence[Sequence[Scored]]
) -> dict[str, list[Floats]]:
    """Return each score of all networks, more being better, once or once a seed."""
    fresh = [{name: [item.scores[name] for item in row] for name in proxies} for row in found]
    columns = {name: [oriented(figures[name], way)] for name, way in SINGLE.items()}
    columns |= {name: [oriented(column[name], "max") for column in fresh] for name in proxies}
    columns[FUSED] = [fuse(figures)]
    if set(proxies) >= set(PROBED) - set(figures):
        columns[FUSED_PROBED] = [fuse({**figures, **column}, PROBED) for column in fresh]
    return columns


class _Scored(NamedTuple):
    """Live networks, their rows, their figures by name, and the seconds that these took."""

    networks: list[Architecture]
    rows: list[int]
    figures: dict[str, list[float]]
    seconds: float


def _scored(
    table: Table, space: Space, count: int, dataset: Dataset | None, say: Callable[[str], None]
) -> _Scored:
    """Build networks in a fixed random order and score them until there are enough."""
    data = EXAMPLES[space.reads] if dataset is None else dataset.spec
    analytic = AnalyticEvaluator()
    order = list(range(len(table)))
    if count:
        Random(_SAMPLE_SEED).shuffle(order)
    result = _Scored([], [], {name: [] for name in analytic.metrics}, 0.0)
    seconds = 0.0
    for row in order:
        network = space.run(TextDecider(table.answers[row]), data).architecture
        if not network.live:
            continue
        begin = time.perf_counter()
        found = analytic.evaluate(network)
        seconds += time.perf_counter() - begin
        result.networks.append(network)
        result.rows.append(row)
        for item in found:
            result.figures[item.metric].append(item.value)
        if len(result.rows) % _SAY_EVERY == 0:
            say(f"{len(result.rows):,} networks")
        if len(result.rows) == count:
            break
    if not result.rows:
        raise NasError("No row of the table is a network that the input passes through.")
    return result._replace(seconds=seconds)


def _over_seeds(found: Sequence[Agreement]) -> Json:
    """Return the mean over seeds of each figure, and the deviation of the correlations."""
    columns = dict(zip(Agreement._fields, zip(*found, strict=True), strict=True))
    means = {name: fmean(item) for name, item in columns.items()}
    return {**means, **{f"{name}_deviation": pstdev(columns[name]) for name in ("rho", "tau")}}


def bench_text(result: Json) -> str:
    """Write what :func:`bench` found."""
    lines = [
        f"{result['networks']:,} networks; {1e3 * result['seconds_each']:.2f} ms each to score by "
        "arithmetic"
    ]
    seeds = result["seeds"]
    if result["fresh_seconds_each"]:
        lines.append(
            f"scores of fresh networks: {result['fresh_seconds_each']:.3f} s each, all together; "
            + (f"mean and deviation over {seeds} seeds" if seeds > 1 else "one seed")
        )
    for truth, found in result["truths"].items():
        ordered = sorted(found.items(), key=lambda item: -item[1]["tau"])
        rows = [[name, *_cells(item)] for name, item in ordered]
        lines += ["", text_table([truth, *_HEADER], rows)]
    return "\n".join(lines)


_HEADER = ("rho", "tau-b", "better half", "best tenth", "finds", "best")


def _cells(item: Json) -> list[str]:
    return [
        _with_deviation(item, "rho"),
        _with_deviation(item, "tau"),
        f"{item['half']:.3f}",
        f"{item['tenth']:.3f}",
        f"{item['found']:.2f}",
        f"{item['best']:.2f}",
    ]


def _with_deviation(item: Json, name: str) -> str:
    deviation = item[f"{name}_deviation"]
    return f"{item[name]:.3f}" + (f" +- {deviation:.3f}" if deviation else "")


def check(run: Path, study: str | None) -> Json:
    """Compare what ranks candidates for nothing with what a study's training found.

    Raises:
        NasError: there is no such study, or it trains nothing.
    """
    from nas.jobs.common import study_name
    from studies.trust import trust

    return dataclasses.asdict(trust(run, study_name(run, study)))


def check_text(result: Json) -> str:
    """Write what :func:`check` found."""
    rows = [
        [item["proxy"], f"{item['tau']:.3f}", f"{item['rho']:.3f}", "off" if item["off"] else ""]
        for item in result["proxies"]
    ]
    count, enough = result["trained"], result["enough"]
    head = f"{result['study']}: {count} trained candidates, judged by {result['target']}"
    tail = "off: ranks them worse than their parameter count does"
    if count < enough:
        tail = f"From {enough} trained candidates on, a proxy worse than params is switched off."
    return "\n".join([head, text_table(["proxy", "tau-b", "rho", ""], rows, left=(0, 3)), tail])
