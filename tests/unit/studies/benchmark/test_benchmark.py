"""The benchmark of samplers, on a table of twelve rows whose truth is arithmetic."""

import json
import runpy
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from kernels.errors import NasError
from studies.benchmark.race import Course, race
from studies.benchmark.score import Score, geometric_mean, paid_until, scores, shortfalls
from studies.benchmark.suite import Entry, run_suite
from studies.benchmark.task import Task

SPACE = """
from search_spaces.builder import NetworkBuilder
from search_spaces.space import space


@space("twelve", version=1)
def twelve(choose, data):
    net = NetworkBuilder(data.input_shape)
    x = net.conv(net.input, choose("width", [4, 6, 8, 10]), kernel=choose("kernel", [1, 3, 5]))
    return net.classifier(x, data.classes)
"""
EXAMPLE = Path(__file__).parents[4] / "examples" / "gpt_table.py"
SURROGATES = Path(__file__).parents[5] / "shared/data/nas/hwgpt_surrogates.npz"
WIDTHS, KERNELS = (4, 6, 8, 10), (1, 3, 5)


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
    folder: Path = tmp_path_factory.mktemp("table")
    (folder / "twelve.py").write_text(SPACE)
    rows = [
        f"{width}-{kernel},{width},{kernel},{80 + width},{width * kernel}"
        for width in WIDTHS
        for kernel in KERNELS
    ]
    lines = ["index,answer:width,answer:kernel,accuracy,ms", *rows]
    (folder / "table.csv").write_text("\n".join(lines))
    return Task((str(folder / "table.csv"),), ("accuracy", "ms"), f"{folder / 'twelve.py'}:twelve")


def test_the_truth_of_a_task(task):
    """Kernel 1 is on the front at each width; the reference is 70 and 10 ms."""
    assert [task.table.columns["index"][row] for row in task.front] == ["4-1", "6-1", "8-1", "10-1"]
    assert task.reference == (70.0, 10.0)
    # 14 points above 70 for 6 ms, 2 more for 4 ms, 2 more for 2 ms; 10 ms is the reference itself.
    whole = 14 * 6 + 2 * 4 + 2 * 2
    assert task.share(task.front) == pytest.approx(1.0)
    assert task.share([0]) == pytest.approx(14 * 6 / whole)


@pytest.mark.parametrize("sampler", ["ehvi", "evolution", "optuna:random", "optuna:tpe"])
def test_a_race_pays_for_rows_once(task, sampler):
    course = race(task, sampler, seed=1, paid=9, pending=2)
    assert len(set(course.rows)) == len(course.rows) == 9
    assert course.trials >= 9
    assert race(task, sampler, seed=1, paid=9, pending=2).rows == course.rows


def test_what_is_free_is_told_to_the_sampler(task):
    course = race(replace(task, columns=("accuracy?", "ms?")), "ehvi", seed=0, paid=12)
    assert len(course.rows) == 12


def test_a_suite_keeps_what_is_done(task, tmp_path):
    entries = [Entry(task, name, seed, 6) for name in ("random", "optuna:nsga2") for seed in (0, 1)]
    seen: list[tuple[int, int]] = []

    def suite(wanted):
        return run_suite(
            wanted,
            processes=2,
            file=tmp_path / "races.jsonl",
            report=lambda *count: seen.append(count),
        )

    courses = suite(entries)
    assert seen[0] == (0, 4)
    assert seen[-1] == (4, 4)
    assert suite(entries) == courses
    assert seen[-1] == (4, 4)
    assert len((tmp_path / "races.jsonl").read_text().splitlines()) == 4
    (longer,) = suite([replace(entries[0], paid=8)])
    assert longer.rows[:6] == courses[0].rows
    (tmp_path / "races.jsonl").write_text("{}\n")
    with pytest.raises(NasError, match="line 1: expected a race"):
        suite(entries)


def test_an_unknown_sampler_or_column_is_one_line(task):
    for wrong in (
        Entry(task, "optuna:tpee", 0, 3),
        Entry(replace(task, columns=("accuracy", "latency")), "random", 0, 3),
    ):
        with pytest.raises(NasError, match="Unknown"):
            run_suite([wrong], processes=1, file=None, report=lambda *_: None)
    with pytest.raises(NasError, match="A task is a quality and costs"):
        replace(task, columns=("accuracy",))


def course(*rows):
    return Course(rows, trials=len(rows), ask_ms=1.0, cpu_seconds=0.0)


def test_curves_are_means_and_spreads_of_shares(task):
    entries = [Entry(task, "random", seed, 2) for seed in (0, 1)]
    (score,) = scores(entries, [course("4-5", "4-1"), course("4-1", "6-1", "8-1")])
    whole = 14 * 6 + 2 * 4 + 2 * 2
    mean = [14 * 6 / whole / 2, (14 * 6 + 14 * 6 + 2 * 4) / whole / 2]
    assert score.curve == pytest.approx(mean)
    assert score.spread[0] == pytest.approx(np.std([0, 14 * 6 / whole], ddof=1))
    assert score.hours == pytest.approx([1.0, 2.0])  # an hour each, one after the other
    assert paid_until(score, 0.5) == 2
    assert paid_until(score, 0.99) is None


def test_results_come_in_order_with_several_in_flight(task):
    entry = Entry(task, "random", 0, 4, pending=3)
    (score,) = scores([entry], [course("4-1", "6-1", "8-1", "10-1")])
    assert score.hours == pytest.approx([1.0, 1.0, 1.0, 2.0])


def test_shortfalls_compare_with_the_best_of_optuna_at_that_budget(task):
    def score(sampler, last):
        curve = np.array([0.0, last])
        return Score(task, sampler, 1, 1, curve, 0 * curve, 0 * curve, 0.0, 2.0)

    found = [score("ehvi", 0.9), score("optuna:tpe", 0.8), score("optuna:random", 0.6)]
    assert shortfalls(found, 2) == {(task.name, "ehvi", 1): pytest.approx(0.5)}
    assert shortfalls(found, 3) == {}
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert geometric_mean([0.0, 2.0]) == 0.0


def test_the_command_prints_what_the_best_of_optuna_misses(task, tmp_path, capsys):
    from nas.jobs import benchmark

    said: list[str] = []
    result = benchmark.bench(
        tables=[Path(task.files[0])],
        space=task.space,
        tasks=["accuracy,ms", "accuracy,ms?"],
        samplers=["ehvi", "optuna:random"],
        seeds=2,
        first_seed=0,
        paid=50,
        pending=[1],
        processes=2,
        file=tmp_path / "races.jsonl",
        say=said.append,
    )
    json.dumps(result)
    assert said[-1] == "8 of 8 searches done"
    assert all(row["curve"][-1] == 1.0 for row in result["scores"])  # all twelve rows
    text = benchmark.bench_text(result)
    assert "12 rows, 4 on the front; reference accuracy 70, ms 10" in text


def test_the_example_of_a_table_of_ones_own_holds_its_whole_space(tmp_path):
    rng = np.random.default_rng(0)
    sizes = {"perplexity": [80, 128, 128, 128, 128, 1], "bfloat16_memory": [27, 8, 8, 8, 8, 1]}
    weights = {}
    for name, widths in sizes.items():
        for layer in range(1, 6):
            shape = widths[layer], widths[layer - 1]
            weights[f"s.{name}.w{layer}"] = rng.standard_normal(shape) / shape[1] ** 0.5
            weights[f"s.{name}.b{layer}"] = rng.random(shape[0])
    np.savez(tmp_path / "surrogates.npz", **weights)
    written = tmp_path / "gpt.csv.gz"
    runpy.run_path(str(EXAMPLE))["main"](tmp_path / "surrogates.npz", written)
    gpt = Task((str(written),), ("-perplexity", "memory"), str(EXAMPLE))
    of, data = gpt.searched
    assert len(gpt.table) == 3 * 3 * 2 * 3**3 * 3**3
    for seed in range(5):
        gpt.table.row(of.sample(Random(seed), data).decisions)  # fails where there is none


@pytest.mark.skipif(not SURROGATES.exists(), reason="no ../shared/data/nas/hwgpt_surrogates.npz")
def test_the_example_of_a_table_predicts_what_its_source_does(tmp_path):
    """The smallest and the largest network of the space, as the data's own notes give them."""
    example = runpy.run_path(str(EXAMPLE))
    smallest = {"width": 192, "depth": 10, "bias": False}
    largest = {"width": 768, "depth": 12, "bias": True}
    for third in range(3):
        smallest |= {f"third{third}/ratio": 2, f"third{third}/heads": 4}
        largest |= {f"third{third}/ratio": 4, f"third{third}/heads": 12}
    hot, scaled = map(np.array, zip(*map(example["describe"], (smallest, largest)), strict=True))
    with np.load(SURROGATES) as weights:
        perplexity = example["predict"](weights, "s.perplexity", hot)
        memory = example["predict"](weights, "s.bfloat16_memory", scaled)
    assert perplexity == pytest.approx([43.0, 21.3], abs=0.05)
    assert memory == pytest.approx([93.6, 1041.0], abs=0.5)
