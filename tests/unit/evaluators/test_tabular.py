"""Tables of figures: what they say, and what is wrong with them in one line."""

import gzip
from pathlib import Path

import pytest

from evaluators.protocol import EvaluationError
from evaluators.tabular import Table, TabularEvaluator
from kernels.errors import NasError
from search_spaces.space import DataSpec
from search_spaces.zoo.nas_bench_201 import nas_bench_201

DATA = DataSpec((3, 32, 32), 10)
DENSE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|"
MIXED = "|none~0|+|avg_pool_3x3~0|none~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
DECISIONS = {
    "edge0-1": "none",
    "edge0-2": "avg_pool_3x3",
    "edge1-2": "none",
    "edge0-3": "nor_conv_1x1",
    "edge1-3": "none",
    "edge2-3": "skip_connect",
}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv.gz"
    first.write_text(f"index,arch_str,accuracy\n07,{DENSE},93.5\n3,{MIXED},61\n")
    second.write_bytes(gzip.compress(b"index,ms\n3,1.5\n07,9\n"))
    return [first, second]


def test_files_are_joined_by_index_which_stays_text(files):
    table = Table.load(files)
    assert list(table.columns["index"]) == ["07", "3"]
    assert table.figures("ms").tolist() == [9.0, 1.5]
    assert table.row(DECISIONS) == 1


def test_an_evaluator_looks_networks_up(files):
    evaluator = TabularEvaluator(
        Table.load(files), {"accuracy": "accuracy", "latency_ms": "ms"}, nas_bench_201, DATA
    )
    network = nas_bench_201.replay(DECISIONS, DATA).architecture
    figures = {item.metric: item.value for item in evaluator.evaluate(network)}
    assert figures == {"accuracy": 61.0, "latency_ms": 1.5}
    other = nas_bench_201.replay(
        DECISIONS | {"edge0-1": "skip_connect", "edge1-3": "nor_conv_3x3"}, DATA
    )
    with pytest.raises(EvaluationError, match="no row"):
        evaluator.evaluate(other.architecture)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("index,ms\n07,1\n07,2\n", "names each row once"),
        ("ms\n1\n", "names each row once"),
        ("index,ms\n07,1\n4,2\n", "its rows are not those of"),
        ("index,accuracy\n07,1\n3,2\n", "'accuracy' too"),
        ("index,ms\n07\n3,2\n", "line 2: expected 2 cells, got 1"),
        ("index,ms,ms\n07,1,1\n", "two columns have one name"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(files, tmp_path, text, words):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(NasError, match=words) as caught:
        Table.load([files[0], tmp_path / "c.csv"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.csv", "a.csv.gz"])
def test_a_file_that_cannot_be_read_is_one_line(files, tmp_path, name):
    (tmp_path / "a.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(NasError, match="Cannot read the table"):
        Table.load([tmp_path / name])


def test_figures_are_finite_numbers(files, tmp_path):
    (tmp_path / "c.csv").write_text("index,ms\n07,nan\n3,2\n")
    table = Table.load([files[0], tmp_path / "c.csv"])
    with pytest.raises(NasError, match="'nan' in row 07"):
        table.figures("ms")
    with pytest.raises(NasError, match="column of the table 'acuracy'"):
        table.figures("acuracy")
