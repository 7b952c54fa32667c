"""What the tests of samplers share: small spaces with conditions, and a study without a driver."""

from __future__ import annotations

from collections import deque
from typing import Any

from search_spaces.builder import NetworkBuilder
from search_spaces.space import Candidate, DataSpec, space
from studies.samplers import SAMPLERS, Lesson, Proposal, Sampler, make_sampler

DIGITS = DataSpec((1, 8, 8), 10)
NAMES = tuple(SAMPLERS)
FAST = tuple(name for name in NAMES if name != "gp")
BOUND = "params <= 2500"


@space("branching", version=1)
def branching(choose, data):
    """One to three blocks; only convolutions are asked for a kernel, and a rule."""
    net = NetworkBuilder(data.input_shape)
    x = net.conv(net.input, choose("stem", [4]), kernel=3)
    for _, block in choose.repeat("block", 1, 3):
        wide = block("wide", [True, False])
        width = block("width", [8, 12, 16] if wide else [2, 3])
        choose.require(width != 12, "not twelve")
        if block("kind", ["conv", "pool"]) == "conv":
            x = net.conv(x, width, kernel=block("kernel", [1, 3, 5]))
        else:
            x = net.avg_pool(net.conv(x, width, kernel=1), kernel=3, stride=1, padding=1)
    return net.classifier(x, data.classes)


@space("twelve", version=1)
def twelve(choose, data):
    """Twelve architectures."""
    net = NetworkBuilder(data.input_shape)
    x = net.conv(net.input, choose("width", [4, 6, 8, 10]), kernel=choose("kernel", [1, 3, 5]))
    return net.classifier(x, data.classes)


@space("empty", version=1)
def empty(choose, data):
    """Nothing."""
    choose("width", [1, 2])
    choose.require(False, "nothing is allowed")


def sampler_of(name: str, of: Any = branching, *, seed: int = 0, constraints=()) -> Sampler:
    return make_sampler(
        name, of, DIGITS, directions=["min", "max"], constraints=constraints, seed=seed
    )


def worth(candidate: Candidate) -> tuple[float, ...]:
    """Return what is to be small, and what is to be large."""
    return (float(candidate.architecture.macs), float(candidate.architecture.params) ** 0.5)


def lesson_of(number: int, candidate: Candidate, *, fail: bool = False, **settings: Any) -> Lesson:
    values = None if fail else worth(candidate)
    return Lesson(number, candidate.architecture.key, candidate.decisions, values, **settings)


def study(
    sampler: Sampler, count: int, *, ahead: int = 0, told=()
) -> list[tuple[Proposal, Lesson]]:
    """Ask and tell, as a driver does that asks ``ahead`` trials before it tells; every fifth fails.

    What was told goes to the sampler first, as from a record.
    """
    found = list(told)
    waiting = deque(found[-ahead:] if ahead else ())
    for _, lesson in found[: len(found) - len(waiting)]:
        sampler.tell(lesson)
    for number in range(len(found), count):
        while len(waiting) > ahead:
            sampler.tell(waiting.popleft()[1])
        proposal = sampler.ask(number, [item.candidate.decisions for item, _ in waiting])
        found.append((proposal, lesson_of(number, proposal.candidate, fail=number % 5 == 4)))
        waiting.append(found[-1])
    return found
