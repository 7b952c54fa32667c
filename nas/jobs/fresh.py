"""Scores of many fresh networks: in several processes, each one on disk as soon as it is known."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from evaluators.proxies.untrained import UntrainedEvaluator
from kernels.errors import NasError
from search_spaces.architecture import Architecture

_SAY_EVERY = 20


class Scored(NamedTuple):
    """What one network came to with one seed: its scores by name, and the seconds they took."""

    scores: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Job:
    """One network to be scored with one seed.

    Attributes:
        key: of both, and of all that the scores follow from.
        seed: place of the evaluator among those of all seeds.
        text: of the network.
    """

    key: str
    seed: int
    text: str


def score_fresh(
    networks: Sequence[Architecture],
    evaluators: Sequence[UntrainedEvaluator],
    *,
    processes: int,
    file: Path | None,
    say: Callable[[str], None],
) -> list[list[Scored]]:
    """Score networks by each evaluator; equal networks once, and those not that a file holds.

    Args:
        networks: all live.
        evaluators: the same scores with one seed each; all networks of a seed before the next.
        processes: how many at a time; of several each has one thread.
        file: JSON lines, one a network and seed; each is added as it is known.
        say: told how far it is.

    Returns:
        for each evaluator what each network came to.

    Raises:
        NasError: the file is none of ours, or a network cannot be scored.
    """
    keys = [[item.cache_key(network) for network in networks] for item in evaluators]
    found = {} if file is None else _read(file)
    jobs = {
        key: Job(key, seed, network.text)
        for seed, column in enumerate(keys)
        for key, network in zip(column, networks, strict=True)
        if key not in found
    }
    held = len({key for column in keys for key in column} - jobs.keys())
    if held:
        say(f"{held:,} fresh networks are in {file}")
    for done, (job, scored) in enumerate(_run(list(jobs.values()), evaluators, processes), start=1):
        found[job.key] = scored
        if file is not None:
            _add(file, job, scored)
        if done % _SAY_EVERY == 0:
            say(f"{held + done:,} of {held + len(jobs):,} fresh networks")
    return [[found[key] for key in column] for column in keys]


def _run(
    jobs: Sequence[Job], evaluators: Sequence[UntrainedEvaluator], processes: int
) -> Iterator[tuple[Job, Scored]]:
    if processes == 1 or len(jobs) < 2:
        for job in jobs:
            yield job, _score(evaluators[job.seed], job.text)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        running = {pool.submit(_score, evaluators[job.seed], job.text): job for job in jobs}
        try:
            for future in as_completed(running):
                yield running.pop(future), future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _score(evaluator: UntrainedEvaluator, text: str) -> Scored:
    begin = time.perf_counter()
    scores = evaluator.scores(Architecture.parse(text))
    return Scored(scores, time.perf_counter() - begin)


def _read(file: Path) -> dict[str, Scored]:
    """Read what was known before; a last line that a cut off run left unfinished is dropped."""
    if not file.exists():
        return {}
    found = {}
    text = file.read_text(encoding="utf-8")
    whole, _, torn = text.rpartition("\n")
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            record = json.loads(line)
            found[record["key"]] = Scored(dict(record["scores"]), float(record["seconds"]))
        except (ValueError, KeyError, TypeError):
            raise NasError(f"{file}, line {number}: expected scores of a fresh network.") from None
    if torn:
        if not whole and not torn.startswith('{"key"'):
            raise NasError(f"{file}, line 1: expected scores of a fresh network.")
        with file.open("r+b") as lines:
            lines.truncate(len(text.encode()) - len(torn.encode()))
    return found


def _add(file: Path, job: Job, scored: Scored) -> None:
    record = {"key": job.key, "seed": job.seed, **scored._asdict()}
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")
