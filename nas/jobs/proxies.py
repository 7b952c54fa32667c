"""The jobs of ``nas proxies``: scores against a table, and against a study's own training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from evaluators.analytic import AnalyticEvaluator
from evaluators.proxies.agreement import Agreement, agreement
from evaluators.proxies.fusion import FUSED, SINGLE, fuse, oriented
from evaluators.tabular import Table, TextDecider
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
    say: Callable[[str], None],
) -> Json:
    """Score the networks of a table and compare the ranking with their qualities.

    Args:
        files: of the table.
        truth: columns of qualities, more being better; those of NAS-Bench-201 if none.
        space: what the rows are candidates of.
        networks: how many live ones to take, at random; 0 for all.
        say: told how far it is.

    Raises:
        NasError: the table cannot be used, or has no live network.
    """
    table = Table.load(files)
    names = list(truth) or [name for name in _TRUTHS if name in table.columns]
    if not names:
        raise NasError("Name a column of qualities with --truth.")
    qualities = {name: table.figures(name) for name in names}
    rows, figures, seconds = _figures(table, load_space(space), networks, say)
    scores = {name: oriented(figures[name], way) for name, way in SINGLE.items()}
    scores[FUSED] = fuse(figures)
    return {
        "files": [str(file) for file in files],
        "networks": len(rows),
        "seconds_each": seconds / len(rows),
        "truths": {
            name: {
                proxy: agreement(values, quality[rows])._asdict()
                for proxy, values in scores.items()
            }
            for name, quality in qualities.items()
        },
    }


def _figures(
    table: Table, space: Space, count: int, say: Callable[[str], None]
) -> tuple[list[int], dict[str, list[float]], float]:
    """Return rows of live networks, their figures by name, and the seconds it took to score."""
    data = EXAMPLES[space.reads]
    evaluator = AnalyticEvaluator()
    order = list(range(len(table)))
    if count:
        Random(_SAMPLE_SEED).shuffle(order)
    rows: list[int] = []
    figures: dict[str, list[float]] = {name: [] for name in evaluator.metrics}
    seconds = 0.0
    for row in order:
        network = space.run(TextDecider(table.answers[row]), data).architecture
        if not network.live:
            continue
        begin = time.perf_counter()
        found = evaluator.evaluate(network)
        seconds += time.perf_counter() - begin
        rows.append(row)
        for item in found:
            figures[item.metric].append(item.value)
        if len(rows) % _SAY_EVERY == 0:
            say(f"{len(rows):,} networks")
        if len(rows) == count:
            break
    if not rows:
        raise NasError("No row of the table is a network that the input passes through.")
    return rows, figures, seconds


def bench_text(result: Json) -> str:
    """Write what :func:`bench` found."""
    lines = [
        f"{result['networks']:,} networks; {1e3 * result['seconds_each']:.2f} ms each to score by "
        "arithmetic"
    ]
    for truth, found in result["truths"].items():
        ordered = sorted(found.items(), key=lambda item: -item[1]["tau"])
        rows = [[name, *_cells(Agreement(**item))] for name, item in ordered]
        lines += ["", text_table([truth, *_HEADER], rows)]
    return "\n".join(lines)


_HEADER = ("rho", "tau-b", "better half", "best tenth", "finds", "best")


def _cells(item: Agreement) -> list[str]:
    correlations = [f"{value:.3f}" for value in item[:4]]
    return [*correlations, f"{item.found:.2f}", f"{item.best:.2f}"]


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
