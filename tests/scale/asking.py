"""What the default sampler takes for a proposal: ``python -m tests.scale.asking``."""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from search_spaces.space import DataSpec
from search_spaces.zoo import load_space
from studies.config import StudyConfig
from studies.samplers import Lesson, Sampler, make_sampler

_AT = (100, 1_000, 10_000, 100_000)
_COUNT = 50
"""Proposals of which the median is taken."""
DIGITS = DataSpec((1, 8, 8), 10)


def measure(name: str, space: str, trials: int) -> dict[int, tuple[float, float]]:
    """Return ms of an ask and of a tell after so many trials, the medians of 50.

    Multiply-accumulates are to be many and parameters few, so that the front grows.
    """
    sampler = make_sampler(
        name, load_space(space), DIGITS, directions=["max", "min"], constraints=[], seed=0
    )
    found: dict[int, tuple[float, float]] = {}
    asks: list[float] = []
    tells: list[float] = []
    for number in range(trials + 1):
        asked, told = _trial(sampler, number)
        asks, tells = [*asks[1 - _COUNT :], asked], [*tells[1 - _COUNT :], told]
        if number in _AT:
            found[number] = 1e3 * statistics.median(asks), 1e3 * statistics.median(tells)
    return found


def _trial(sampler: Sampler, number: int) -> tuple[float, float]:
    begin = time.perf_counter()
    proposal = sampler.ask(number, [])
    asked = time.perf_counter()
    network = proposal.candidate.architecture
    values = (float(network.macs) ** 0.5, float(network.params))
    lesson = Lesson(number, network.key, proposal.candidate.decisions, values)
    middle = time.perf_counter()
    sampler.tell(lesson)
    return asked - begin, time.perf_counter() - middle


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--space", default="mobile-cnn")
    parser.add_argument("--sampler", default=StudyConfig.model_fields["sampler"].default)
    given = parser.parse_args()
    for trials, (ask, tell) in measure(given.sampler, given.space, given.trials).items():
        sys.stdout.write(
            f"{given.sampler}, {given.space}, {trials:,} trials: ask {ask:.1f} ms, "
            f"tell {tell:.2f} ms\n"
        )


if __name__ == "__main__":
    main()
