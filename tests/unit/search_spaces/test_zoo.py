"""The spaces that ship, against the tables and papers they come from; spaces in users' files."""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from pathlib import Path

import pytest
import torch

from kernels.errors import NasError, UnknownNameError
from search_spaces.build import build
from search_spaces.choose import Option
from search_spaces.errors import SpaceError
from search_spaces.space import Candidate, DataSpec, Space
from search_spaces.zoo import load_space, space_names
from search_spaces.zoo.mobile_cnn import BASE, KINDS, SMALL
from search_spaces.zoo.nas_bench_201 import (
    EDGES,
    OPERATIONS,
    from_string,
    nas_bench_201,
    to_string,
)

CIFAR = DataSpec((3, 32, 32), 10)
TABLE = Path(__file__).parents[4] / "shared" / "data" / "nas" / "nb201.csv.gz"


# NAS-Bench-201.


@lru_cache(maxsize=1)
def _table() -> list[dict[str, str]]:
    if not TABLE.is_file():
        pytest.skip(f"needs the NAS-Bench-201 table at {TABLE} (shared data beside the repository)")
    with gzip.open(TABLE, "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _live_edges(decisions: Mapping[str, Option]) -> set[tuple[int, int]]:
    """Edges on a path from the first node to the last."""
    there = {edge for edge in EDGES if decisions[f"edge{edge[0]}-{edge[1]}"] != "none"}
    reached, needed = {0}, {3}
    for source, target in sorted(there):
        if source in reached:
            reached.add(target)
    for source, target in sorted(there, reverse=True):
        if target in needed:
            needed.add(source)
    return {(s, t) for s, t in there if s in reached and t in needed}


def _has_dead_convolution(decisions: Mapping[str, Option]) -> bool:
    live = _live_edges(decisions)
    return any(
        str(decisions[f"edge{s}-{t}"]).startswith("nor_conv") and (s, t) not in live
        for s, t in EDGES
    )


def _every_cell() -> list[dict[str, Option]]:
    return [
        {f"edge{s}-{t}": operation for (s, t), operation in zip(EDGES, row, strict=True)}
        for row in product(OPERATIONS, repeat=6)
    ]


def test_every_string_and_its_decisions_give_each_other() -> None:
    strings = set()
    for decisions in _every_cell():
        line = to_string(decisions)
        assert from_string(line) == decisions
        assert list(from_string(line)) == [f"edge{s}-{t}" for s, t in EDGES]
        strings.add(line)
    assert len(strings) == 15_625


def test_strings_are_those_of_the_table() -> None:
    assert {row["arch_str"] for row in _table()} == {to_string(d) for d in _every_cell()}


@pytest.mark.parametrize(
    "line",
    [
        *("", "|", "|nor_conv_3x3~0|", "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~1|"),
        "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|none~0|+|none~1|none~0|+|none~0|none~1|none~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|none~3|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|; rm",
    ],
)
def test_other_strings_are_refused(line: str) -> None:
    with pytest.raises(SpaceError) as caught:
        from_string(line)
    assert "\n" not in str(caught.value)


def test_records_of_other_spaces_are_no_strings() -> None:
    with pytest.raises(SpaceError, match="edge0-1 must be one of"):
        to_string({"stem": 16})


def test_params_and_flops_are_the_tables() -> None:
    """Convolutions on dead edges have parameters in the table, and none in a normalised network."""
    rows = [(from_string(row["arch_str"]), row) for row in _table()]
    whole = [(d, row) for d, row in rows if not _has_dead_convolution(d)]
    assert len(rows) - len(whole) == DEAD_CONVOLUTIONS
    for decisions, row in random.Random(0).sample(whole, 200):
        architecture = nas_bench_201.replay(decisions, CIFAR).architecture
        if not architecture.live:
            continue
        assert architecture.params == int(row["params"]), row["arch_str"]
        assert architecture.macs == int(row["flops"]), row["arch_str"]


DEAD_CONVOLUTIONS = 4250
"""Cells of the 15,625 with a convolution on an edge that no path uses."""


def test_params_with_dead_convolutions_differ_by_just_those() -> None:
    rows = [(from_string(row["arch_str"]), row) for row in _table()]
    dead = [(d, row) for d, row in rows if _has_dead_convolution(d) and _live_edges(d)]
    for decisions, row in random.Random(0).sample(dead, 40):
        missing = 0
        for s, t in set(EDGES) - _live_edges(decisions):
            kernel = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}.get(str(decisions[f"edge{s}-{t}"]), 0)
            missing += sum(5 * (kernel * c * c + 2 * c) for c in (16, 32, 64) if kernel)
        architecture = nas_bench_201.replay(decisions, CIFAR).architecture
        assert architecture.params + missing == int(row["params"]), row["arch_str"]


def test_the_largest_cell() -> None:
    line = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    line += "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    architecture = nas_bench_201.replay(from_string(line), CIFAR).architecture
    assert architecture.params == 1_531_546
    assert round(architecture.macs / 1e6, 2) == 220.12
    assert sum(p.numel() for p in build(architecture).parameters()) == 1_531_546


def _distinct(cells: int) -> tuple[int, int, int]:
    """Return the numbers of topology keys, of dead cells, and of cells without a live edge."""
    found = nas_bench_201.preset("nb201", cells=cells)
    keys, dead, cut = set(), 0, 0
    for decisions in _every_cell():
        architecture = found.replay(decisions, CIFAR).architecture
        keys.add(architecture.topology_key)
        dead += not architecture.live
        cut += not _live_edges(decisions)
        assert architecture.live == bool(_live_edges(decisions))
    return len(keys), dead, cut


def test_distinct_and_dead_cells_of_a_sample() -> None:
    """Distinct among 800 of the cells; live by graph search and by the network is the same."""
    found = nas_bench_201.preset("nb201", cells=1)
    keys = set()
    for decisions in random.Random(0).sample(_every_cell(), 800):
        architecture = found.replay(decisions, CIFAR).architecture
        keys.add(architecture.topology_key)
        assert architecture.live == bool(_live_edges(decisions))
    assert len(keys) == SAMPLE_KEYS


SAMPLE_KEYS = 511
DISTINCT_KEYS = 6147
DEAD_CELLS = 341


@pytest.mark.slow
@pytest.mark.parametrize("cells", [1, 5])
def test_distinct_and_dead_cells_of_the_whole_space(cells: int) -> None:
    keys, dead, cut = _distinct(cells)
    assert dead == cut == DEAD_CELLS
    assert keys == DISTINCT_KEYS


def test_cells_known_to_be_the_same_network() -> None:
    same = [
        # node 1 or node 2 as the only middle node of a path of one convolution
        "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|",
        "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|",
        "|skip_connect~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|",
        "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
        "|avg_pool_3x3~0|+|none~0|avg_pool_3x3~1|+|nor_conv_3x3~0|none~1|none~2|",
    ]
    keys = {nas_bench_201.replay(from_string(line), CIFAR).architecture.key for line in same}
    assert len(keys) == 1


# mobile-cnn.


def _samples(name: str, count: int, data: DataSpec = CIFAR) -> list[Candidate]:
    found, rng = load_space(name), random.Random(0)
    return [found.sample(rng, data) for _ in range(count)]


@pytest.mark.parametrize(("name", "settings"), [("mobile-cnn", BASE), ("mobile-cnn-small", SMALL)])
def test_mobile_candidates_are_within_their_settings(name: str, settings: object) -> None:
    ranges = BASE if settings is BASE else SMALL
    kinds = set()
    for candidate in _samples(name, 60):
        answers = candidate.decisions
        assert answers["stem"] in ranges.stem
        assert answers["head"] in ranges.head
        kinds |= {value for key, value in answers.items() if key.endswith("/kind")}
        ops = [node.op.kind for node in candidate.architecture.nodes]
        sliding = [key for key in answers if key.endswith("/kind") and answers[key] == "sliding"]
        assert ops.count("sliding") == len(sliding)
        assert {key.removesuffix("cg") for key in answers if key.endswith("/cg")} == {
            key.removesuffix("kind") for key in sliding
        }
        for s, widths in enumerate(ranges.widths):
            assert answers[f"stage{s}/width"] in widths
            assert ranges.depth[0] <= int(answers[f"stage{s}/blocks"] or 0) <= ranges.depth[1]
        maps = [node.shape for node in candidate.architecture.nodes if len(node.shape) == 3]
        assert min(shape[1] for shape in maps if shape[1] > 1) == 32 // 2 ** (
            len(ranges.widths) - 1
        )
        assert candidate.architecture.output.shape == (10,)
        assert candidate.architecture.live
    assert kinds == set(KINDS)


@pytest.mark.parametrize("name", ["mobile-cnn", "mobile-cnn-small"])
def test_mobile_candidates_run(name: str) -> None:
    for candidate in _samples(name, 5):
        module = build(candidate.architecture)
        assert module(torch.randn(2, 3, 32, 32)).shape == (2, 10)
        assert sum(p.numel() for p in module.parameters()) == candidate.architecture.params


def test_mobile_cnn_halves_large_images_at_the_stem() -> None:
    for size, expected in ((32, 32), (64, 32), (224, 112)):
        (candidate,) = _samples("mobile-cnn", 1, DataSpec((3, size, size), 10))
        assert candidate.architecture.nodes[1].shape[1:] == (expected, expected)


def test_mobile_cnn_rejects_windows_that_do_not_come_out_even() -> None:
    """Width 6 of an own preset is no multiple of 4; the rule is named and counted."""
    import dataclasses

    odd = dataclasses.replace(SMALL, stem=(6,), expansions=(1,), cg=(2, 4))
    space = load_space("mobile-cnn").preset("odd", settings=odd)
    rng = random.Random(0)
    found = [space.sample(rng, CIFAR) for _ in range(60)]
    rules = {rule for candidate in found for rule in candidate.rejections}
    assert rules == {"cg divides the channels"}
    never = dataclasses.replace(odd, stem=(3,), cg=(2,), widths=((3,),) * 3)
    space = load_space("mobile-cnn").preset("never", settings=never)
    for candidate in (space.sample(rng, CIFAR) for _ in range(20)):
        assert "sliding" not in candidate.decisions.values()


def test_presets_keep_version_and_function() -> None:
    small = load_space("mobile-cnn-small")
    assert (small.name, small.version) == ("mobile-cnn-small", load_space("mobile-cnn").version)


# Finding spaces.


def test_shipped_names_load() -> None:
    assert {"mobile-cnn", "mobile-cnn-small", "nas-bench-201"} <= set(space_names())
    for name in space_names():
        found = load_space(name)
        assert isinstance(found, Space)
        assert found.name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'mobil-cnn'.*Did you mean 'mobile-cnn'"):
        load_space("mobil-cnn")


ONE = """
from dataclasses import dataclass

from search_spaces.builder import NetworkBuilder
from search_spaces.space import space


@dataclass
class Setting:
    width: int


@space("one", version=3)
def one(choose, data):
    net = NetworkBuilder(data.input_shape)
    x = net.conv(net.input, Setting(choose("width", [4, 8])).width, kernel=3)
    return net.classifier(x, data.classes)
"""
TWO = (
    ONE
    + """

two = one.preset("two")
from search_spaces.zoo.mobile_cnn import mobile_cnn
"""
)


def _write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_space_in_a_file(tmp_path: Path) -> None:
    path = _write(tmp_path, ONE)
    for reference in (str(path), f"{path}:one"):
        found = load_space(reference)
        assert (found.name, found.version) == ("one", 3)
        assert len(list(found.enumerate(CIFAR))) == 2


def test_a_file_with_several_spaces_needs_a_name(tmp_path: Path) -> None:
    path = _write(tmp_path, TWO)
    assert load_space(f"{path}:two").name == "two"
    with pytest.raises(SpaceError, match="It holds: one, two"):
        load_space(str(path))
    with pytest.raises(UnknownNameError, match="Did you mean 'two'"):
        load_space(f"{path}:twoo")


def test_two_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = load_space(str(_write(tmp_path / "a", ONE)))
    second = load_space(str(_write(tmp_path / "b", ONE.replace("[4, 8]", "[4, 8, 16]"))))
    assert len(list(first.enumerate(CIFAR))) == 2
    assert len(list(second.enumerate(CIFAR))) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "nothing_of_that_name"),
        ("raise ValueError('first\\nsecond')\n", "first"),
        ("x = 1\n", "must hold one space"),
        ("", "It holds: none"),
        ("import sys\nsys.exit('stop')\n", "stop"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(NasError) as caught:
        load_space(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "latin.py").write_bytes(b"x = '\xff'\n")
    for name in ("none.py", "none.py:one", "folder.py", "latin.py"):
        with pytest.raises(SpaceError) as caught:
            load_space(str(tmp_path / name))
        assert name.partition(":")[0] in str(caught.value)
        assert "\n" not in str(caught.value)
