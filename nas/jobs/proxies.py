"""The jobs of ``nas proxies``: scores against a table, and against a study's own training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import fmean, pstdev
from typing import NamedTuple

from evaluators.analytic import AnalyticEvaluator
from evaluators.proxies.agreement import Agreement, agreement
from evaluators.proxies.fusion import FUSED, FUSED_PROBED, PROBED, SINGLE, fuse, oriented
from evaluators.proxies.untrained import UntrainedEvaluator
from evaluators.tabular import Table, TextDecider
from kernels.device import detect
from kernels.errors import NasError
from nas.jobs.common import Json
from nas.tables import table as text_table
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
    device: str | None,
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
        device: where they are computed.
        say: told how far it is.

    Raises:
        NasError: the table cannot be used, or has no live network.
    """
    table = Table.load(files)
    names = list(truth) or [name for name in _TRUTHS if name in table.columns]
    if not names:
        raise NasError("Name a column of qualities with --truth.")
    qualities = {name: table.figures(name) for name in names}
    torch_device = detect(device).torch_name if proxies else "cpu"
    fresh = [
        UntrainedEvaluator(proxies, seed=seed, device=torch_device)
        for seed in range(seeds if proxies else 0)
    ]
    scored = _scored(table, load_space(space), networks, fresh, say)
    columns = {name: [oriented(scored.figures[name], way)] for name, way in SINGLE.items()}
    columns |= {name: [oriented(found[name], "max") for found in scored.fresh] for name in proxies}
    columns[FUSED] = [fuse(scored.figures)]
    if set(proxies) >= set(PROBED) - set(scored.figures):
        columns[FUSED_PROBED] = [
            fuse({**scored.figures, **found}, PROBED) for found in scored.fresh
        ]
    return {
        "files": [str(file) for file in files],
        "networks": len(scored.rows),
        "seeds": seeds,
        "seconds_each": scored.seconds / len(scored.rows),
        "fresh_seconds_each": scored.fresh_seconds / len(scored.rows) / max(len(fresh), 1),
        "truths": {
            name: {
                proxy: _over_seeds([agreement(values, quality[scored.rows]) for values in found])
                for proxy, found in columns.items()
            }
            for name, quality in qualities.items()
        },
    }


class _Scored(NamedTuple):
    """Rows of live networks, their figures by name, and the same of fresh ones, a seed each."""

    rows: list[int]
    figures: dict[str, list[float]]
    fresh: list[dict[str, list[float]]]
    seconds: float
    fresh_seconds: float


def _scored(
    table: Table,
    space: Space,
    count: int,
    evaluators: Sequence[UntrainedEvaluator],
    say: Callable[[str], None],
) -> _Scored:
    """Build networks in a fixed random order and score them until there are enough."""
    data = EXAMPLES[space.reads]
    analytic = AnalyticEvaluator()
    order = list(range(len(table)))
    if count:
        Random(_SAMPLE_SEED).shuffle(order)
    rows: list[int] = []
    figures: dict[str, list[float]] = {name: [] for name in analytic.metrics}
    fresh = [{name: list[float]() for name in item.metrics} for item in evaluators]
    seconds = fresh_seconds = 0.0
    for row in order:
        network = space.run(TextDecider(table.answers[row]), data).architecture
        if not network.live:
            continue
        begin = time.perf_counter()
        found = analytic.evaluate(network)
        seconds += time.perf_counter() - begin
        rows.append(row)
        for item in found:
            figures[item.metric].append(item.value)
        for evaluator, column in zip(evaluators, fresh, strict=True):
            begin = time.perf_counter()
            for name, value in evaluator.scores(network).items():
                column[name].append(value)
            fresh_seconds += time.perf_counter() - begin
        if len(rows) % (_SAY_EVERY if not evaluators else 20) == 0:
            say(f"{len(rows):,} networks")
        if len(rows) == count:
            break
    if not rows:
        raise NasError("No row of the table is a network that the input passes through.")
    return _Scored(rows, figures, fresh, seconds, fresh_seconds)


def _over_seeds(found: Sequence[Agreement]) -> Json:
    """Return the mean over seeds of each figure, and the deviation of Kendall's."""
    means = {
        name: fmean(item)
        for name, item in zip(Agreement._fields, zip(*found, strict=True), strict=True)
    }
    return {**means, "tau_deviation": pstdev(item.tau for item in found)}


def bench_text(result: Json) -> str:
    """Write what :func:`bench` found."""
    lines = [
        f"{result['networks']:,} networks; {1e3 * result['seconds_each']:.2f} ms each to score by "
        "arithmetic"
    ]
    if result["fresh_seconds_each"]:
        lines.append(
            f"scores of fresh networks: {result['fresh_seconds_each']:.3f} s each, all together; "
            f"mean over {result['seeds']} seeds"
        )
    for truth, found in result["truths"].items():
        ordered = sorted(found.items(), key=lambda item: -item[1]["tau"])
        rows = [[name, *_cells(item)] for name, item in ordered]
        lines += ["", text_table([truth, *_HEADER], rows)]
    return "\n".join(lines)


_HEADER = ("rho", "tau-b", "better half", "best tenth", "finds", "best")


def _cells(item: Json) -> list[str]:
    deviation = f" +- {item['tau_deviation']:.3f}" if item["tau_deviation"] else ""
    return [
        f"{item['rho']:.3f}",
        f"{item['tau']:.3f}{deviation}",
        f"{item['half']:.3f}",
        f"{item['tenth']:.3f}",
        f"{item['found']:.2f}",
        f"{item['best']:.2f}",
    ]


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
