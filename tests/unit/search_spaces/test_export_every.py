"""Every operator, every space and traced models, reloaded where this project is not importable.

The long runs say what they saw: ``pytest -m slow -o log_cli=true --log-cli-level=INFO``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from evaluators.audit.cases import Case, largest_difference, own_rounding, write_cases
from evaluators.audit.process import run_where_due
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.build import build
from search_spaces.export.values import FORMATS, Format
from search_spaces.export.write import Order, example_inputs, export_network
from search_spaces.ops import OPS, Embedding, Input, parse_op
from search_spaces.space import DataSpec
from search_spaces.trace import trace
from search_spaces.zoo import load_space
from tests.exporting import reloaded_differences
from tests.unit.search_spaces.test_ops import CASES
from tests.unit.search_spaces.test_trace import NODES, model

TOLERANCE = 1e-5
IMAGES = DataSpec((3, 32, 32), 10)
TEXT = DataSpec((32,), 65, 65)
SHARES = {
    "mobile-cnn-small": 2,
    "mobile-cnn": 3,
    "nas-bench-201": 5,
    "vit-small": 1,
    "decoder-lm-small": 1,
}
_AT_ONCE = 20
_log = logging.getLogger(__name__)


def _of_one(text: str, shapes: tuple[tuple[int, ...], ...]) -> Architecture:
    op = parse_op(text)
    ids = op.vocabulary if isinstance(op, Embedding) else 0
    sources = tuple(
        Value(Input.of(shape=shape, vocabulary=ids), (), f"in{i}") for i, shape in enumerate(shapes)
    )
    return Architecture.freeze(Value(op, sources, "here"))


OPERATORS = [_of_one(text, shapes) for rows in CASES.values() for text, shapes in rows]


def _sample(name: str, rng: Random) -> Architecture:
    space = load_space(name)
    return space.sample(rng, TEXT if space.reads == "text" else IMAGES).architecture


def _assert_same(
    architectures: list[Architecture], folder: Path, to: tuple[Format, ...], **options: object
) -> dict[str, float]:
    """Hold each network in each format to the tolerance; return the largest difference of each."""
    found = reloaded_differences(architectures, folder, to, **options)  # type: ignore[arg-type]
    assert len(found) == len(architectures) * len(to)
    wrong = {
        (kind, architectures[number].text[:200]): item
        for (number, kind), item in found.items()
        if isinstance(item, str) or not item <= TOLERANCE
    }
    assert not wrong
    return {kind: max(item for (_, other), item in found.items() if other == kind) for kind in to}


def test_every_operator_as_python(tmp_path: Path) -> None:
    assert set(CASES) == set(OPS.names())
    _assert_same(OPERATORS, tmp_path, ("python",))


@pytest.mark.parametrize("name", sorted(SHARES))
def test_a_candidate_of_each_space_in_every_format(name: str, tmp_path: Path) -> None:
    _assert_same([_sample(name, Random(4))], tmp_path, FORMATS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(CASES))
def test_every_operator_in_every_format(kind: str, tmp_path: Path) -> None:
    worst = _assert_same([_of_one(*row) for row in CASES[kind]], tmp_path, FORMATS)
    _log.info("%s: %s", kind, worst)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part"),
    [(name, part) for name, parts in SHARES.items() for part in range(parts)],
)
@pytest.mark.timeout(7200)
def test_random_candidates_in_every_format(name: str, part: int, tmp_path: Path) -> None:
    """Of convolutions 200 networks: 40 of the small space, 60 of the large one, 100 cells.

    And 20 vision transformers and 20 language models.
    """
    rng = Random(f"{name} {part}")
    some = [_sample(name, rng) for _ in range(_AT_ONCE)]
    _log.info("%s, part %d: %s", name, part, _assert_same(some, tmp_path, FORMATS))


@pytest.mark.slow
def test_packed_programs_compute_the_same(tmp_path: Path) -> None:
    rng = Random(2)
    some = [_sample("mobile-cnn-small", rng) for _ in range(5)]
    assert any(node.op.kind == "sliding" for item in some for node in item.nodes)
    _assert_same(some, tmp_path, ("python", "pt2"), form="packed")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NODES))
@pytest.mark.timeout(1800)
def test_traced_models_are_exported_as_they_were(name: str, tmp_path: Path) -> None:
    """The module that outputs are compared with is torchvision's own, not one of ours."""
    original = model(name)
    architecture = trace(original, (3, 224, 224))
    assert architecture.weights is not None
    worst = _assert_same_as(original.eval(), architecture, tmp_path)
    _log.info("%s: %s", name, worst)


def _assert_same_as(
    original: torch.nn.Module, architecture: Architecture, folder: Path
) -> dict[str, float]:
    export_network(architecture, build(architecture), folder / "out", Order(to=FORMATS))
    cases = []
    for batch in (7, 1):
        inputs = tuple(example_inputs(architecture, batch))
        with torch.no_grad():
            cases.append(Case(inputs, False, original(*inputs), {}))
    named = write_cases(cases, folder)
    jobs = [
        {
            "task": "outputs",
            "directory": str(folder / "out"),
            "format": kind,
            "device": "cpu",
            "cases": named,
            "results": str(folder / f"outputs-{kind}"),
            "alone": kind != "safetensors",
        }
        for kind in FORMATS
    ]
    assert run_where_due(jobs, threads=2) == [{}] * len(FORMATS)
    worst = {}
    for job in jobs:
        kind = job["format"]
        worst[kind] = largest_difference(cases, load_file(str(job["results"])))
        tolerance = TOLERANCE
        if kind == "onnx":  # deep networks: float32 itself is coarser than the tolerance
            tolerance = max(TOLERANCE, 3 * own_rounding(original, cases))
        assert worst[kind] <= tolerance, kind
    return worst
