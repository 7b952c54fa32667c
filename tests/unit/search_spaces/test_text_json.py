"""The written forms of a network: they round-trip, and malformed ones are one clear error."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from search_spaces.architecture import SCHEMA, Architecture
from search_spaces.architecture.graph import Value
from search_spaces.architecture.node import Variant
from search_spaces.errors import ArchitectureError
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space
from tests.networks import raw_graphs

CIFAR = DataSpec((3, 32, 32), 10)
thorough = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
fuzz = settings(thorough, max_examples=500)

TEXT = (
    "input 8x8x8; conv 8 k3 bn relu; sliding 8 co0.25 bn; add @1,2; conv 8 k3 bn relu ~1; gap; "
    "flatten; dropout p0.1; linear 10 | shfl_bw(V=64,density=0.25) on 1,4 | w1a2 on 8"
)


def _check(architecture: Architecture) -> None:
    again = Architecture.parse(architecture.text)
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert (again.text, again.key) == (architecture.text, architecture.key)
    assert again.topology_key == architecture.topology_key
    document = json.dumps(architecture.to_json())
    read = Architecture.from_json(document)
    assert read == architecture
    assert read.nodes == architecture.nodes  # scopes too
    assert read.regions == architecture.regions
    assert read.to_json() == architecture.to_json() == json.loads(document)
    assert "\n" not in architecture.text
    assert len(architecture.key) == 32


@pytest.mark.parametrize("name", ["mobile-cnn", "mobile-cnn-small", "nas-bench-201"])
def test_candidates_round_trip(name: str) -> None:
    space, rng = load_space(name), random.Random(0)
    for _ in range(25):
        _check(space.sample(rng, CIFAR).architecture)


@thorough
@given(raw_graphs(), st.data())
def test_random_graphs_with_variants_round_trip(output: Value, data: st.DataObject) -> None:
    architecture = Architecture.freeze(output)
    left = [number for number, node in enumerate(architecture.nodes) if node.inputs]
    for number in range(data.draw(st.integers(0, 2))):
        if not left:
            break
        chosen = data.draw(st.sets(st.sampled_from(left), min_size=1))
        left = [item for item in left if item not in chosen]
        variant = data.draw(
            st.sampled_from(["w1a2", "shfl_bw(density=0.25,V=64)", "fp32x3(n=1e-3)"])
        )
        before = architecture
        architecture = architecture.with_variant(chosen, variant)
        assert architecture.key != before.key
        assert architecture.topology_key == before.topology_key
        assert number or architecture.dense() == before
    _check(architecture)


def test_text_of_a_network_with_everything() -> None:
    architecture = Architecture.parse(TEXT)
    assert architecture.text == TEXT
    _check(architecture)
    assert architecture.nodes[4].tie == 1
    assert [str(region) for region in architecture.regions] == [
        "shfl_bw(V=64,density=0.25) on 1,4",
        "w1a2 on 8",
    ]


def test_keys_are_these_ones() -> None:
    """A key names files and rows of other processes and years; changing one needs a new SCHEMA."""
    assert SCHEMA == 1
    small = Architecture.parse("input 1x8x8; conv 4 k3 bn relu; gap; flatten; linear 10")
    assert small.key == small.topology_key == GOLDEN["small"]
    assert Architecture.parse(TEXT).key == GOLDEN["everything"]


GOLDEN = {
    "small": "c48ec8cadbd57e16ed1772c7624c223b",
    "everything": "7211734940cc881e6a6cfac8b233636d",
}


def test_scopes_are_written_but_not_hashed() -> None:
    document = Architecture.parse(TEXT).to_json()
    renamed = copy.deepcopy(document)
    for number, node in enumerate(renamed["nodes"]):
        node["scope"] = f"other/{number}"
    first, second = Architecture.from_json(document), Architecture.from_json(renamed)
    assert (first.key, first.topology_key, first) == (second.key, second.topology_key, second)
    assert second.nodes[1].scope == "other/1"
    assert second.to_json()["nodes"][1]["scope"] == "other/1"


# What is refused, and how.

MALFORMED = [
    *("", ";", " ", "|", "input", "input 3x8x8;", "input 3x8x8; conv", "conv 8", "nothing 3"),
    *(
        "input 3x8x8; conv 8 @1",
        "input 3x8x8; conv 8 @-1",
        "input 3x8x8; conv 8 @0,0",
        "input 3 @0",
    ),
    *("input 3x8x8; conv 8 @", "input 3x8x8; conv 8 @0 @0", "input 3x8x8; conv 8 @x", "@0", "~0"),
    *("input 3x8x8; conv 8 ~0", "input 3x8x8; conv 8 ~1", "input 3x8x8; conv 8; conv 8 ~1"),
    *("input 3x8x8; gap; gap ~1", "input 3x8x8; conv 8 ~", "input 3x8x8; conv 8 @²"),
    *(
        "input 3x8x8 | w1a2",
        "input 3x8x8 | w1a2 on",
        "input 3x8x8 | w1a2 on 1",
        "input 3x8x8 | on 0",
    ),
    *("input 3x8x8 | w1a2 on 0 | w1a2 on 0", "input 3x8x8 | W1 on 0", "input 3x8x8 | a(b) on 0"),
    *(
        "input 3x8x8 | a(b=1,b=2) on 0",
        "input 3x8x8 | a(b=1=2) on 0",
        "input 3x8x8 | a(b=c;d) on 0",
    ),
    *("input 3x8x8; sliding 8 co1/0", "input 3x8x8; conv " + "9" * 5000, "input 3x8x8; \0conv 8"),
    *("input 3x8x8; conv 8 k-1", "input 3x8x8; linear 8", "input 3x8x8; add @0,7"),
    "input 3x8x8; conv 8 @" + "9" * 5000,
    "input " + "x".join(["9" * 1000] * 5) + "; flatten; linear 4 @0",
]


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: text[:40])
def test_malformed_texts_are_one_error(text: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        Architecture.parse(text)
    assert "\n" not in str(caught.value)


def test_errors_name_the_node_at_fault() -> None:
    with pytest.raises(ArchitectureError, match=r"conv1: groups 3 does not divide 8"):
        Architecture.parse("input 3x8x8; conv 8 g3; gap")
    with pytest.raises(ArchitectureError, match=r"^node 1 \('convv 8'\): .*Did you mean 'conv'"):
        Architecture.parse("input 3x8x8; convv 8; gap")


_PIECES = st.sampled_from(
    [
        *(
            "@",
            "~",
            ";",
            "|",
            " on ",
            "x",
            ",",
            " ",
            "0",
            "-1",
            "9" * 30,
            "k",
            "bn",
            "conv",
            "add",
            "input",
        ),
        *(
            "@0",
            "~1",
            "co1/0",
            "nan",
            "(",
            ")",
            "=",
            "\0",
            "\n",
            "٣",
            "²",
            "é",
            "1e999",
            "p0.5",
            "; zero 3",
        ),
    ]
)


def _read_or_refused(read: Callable[[], Architecture]) -> None:
    """Anything but our error passes through and fails the test."""
    problem = ""
    found = None
    try:
        found = read()
    except ArchitectureError as refused:
        problem = str(refused)
    assert "\n" not in problem
    if found is not None:
        assert Architecture.parse(found.text).text == found.text


@fuzz
@given(st.data())
def test_mutilated_texts_raise_nothing_but_our_error(data: st.DataObject) -> None:
    text = TEXT
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 6)))
        text = text[:start] + data.draw(st.one_of(_PIECES, st.just(""))) + text[end:]
    _read_or_refused(lambda: Architecture.parse(text))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            found += _paths(item, (*path, key))
    return found


DOCUMENT = Architecture.parse(TEXT).to_json()
PATHS = _paths(DOCUMENT)
_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([10**30, 1.5, float("inf"), float("nan"), "", "conv", "1/0", "x", "é\ud800"]),
    st.sampled_from([[], {}, [[1]], [0], [1, 1], [True], ["a"], {"a": 1}, [-1], [3.0]]),
)


@fuzz
@given(st.data())
def test_mutilated_documents_raise_nothing_but_our_error(data: st.DataObject) -> None:
    document = copy.deepcopy(DOCUMENT)
    if data.draw(st.booleans()):
        document.pop("key")
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(PATHS))
        holder: Any = document
        try:
            for key in path[:-1]:
                holder = holder[key]
            if data.draw(st.booleans()):
                holder[path[-1]] = data.draw(_JUNK)
            elif isinstance(holder, list):
                holder.insert(path[-1], holder[data.draw(st.integers(0, len(holder) - 1))])
            else:
                holder.pop(path[-1])
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            assume(False)
    _read_or_refused(lambda: Architecture.from_json(document))


@pytest.mark.parametrize(
    "document",
    [
        *(
            "",
            "{",
            "null",
            "[]",
            "3",
            '"input 3"',
            "{}",
            "NaN",
            '{"format": "paretonas.architecture"}',
        ),
        *("[" * 100_000, '{"a": ' + "9" * 5000 + "}", "\ud800"),
    ],
    ids=lambda document: document[:20],
)
def test_other_documents_are_one_error(document: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        Architecture.from_json(document)
    assert "\n" not in str(caught.value)


def test_what_the_schema_does_not_say_is_refused() -> None:
    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(ArchitectureError, match=match):
            Architecture.from_json({**DOCUMENT, **changes})

    refused("schema 2.*newer release", schema=SCHEMA + 1)
    refused("schema 0", schema=0)
    refused("'torch'", format="torch")
    refused("changed or damaged", key="0" * 32)
    refused("extra|Extra", colour="red")
    refused("nodes", nodes=[])
    assert Architecture.from_json({**DOCUMENT, "key": None}).key == DOCUMENT["key"]


def test_a_changed_network_does_not_keep_its_key() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["nodes"][-1]["attrs"]["out_features"] = 11
    with pytest.raises(ArchitectureError, match="changed or damaged"):
        Architecture.from_json(document)


def test_documents_hold_every_attribute() -> None:
    """A default changed by a later release must not change what an old document means."""
    conv = DOCUMENT["nodes"][1]["attrs"]
    assert conv == {
        "out_channels": 8,
        "kernel": [3, 3],
        "stride": [1, 1],
        "padding": [1, 1],
        "dilation": [1, 1],
        "groups": 1,
        "bias": False,
        "norm": "bn",
        "eps": 1e-5,
        "momentum": 0.1,
        "act": "relu",
    }


# Variants.


def test_variants_are_one_text_however_written() -> None:
    assert str(Variant.parse(" shfl_bw(density=0.25,V=64) ")) == "shfl_bw(V=64,density=0.25)"
    assert Variant.parse("a(b=1,c=2)") == Variant.parse("a(c=2,b=1)")
    assert str(Variant.parse("w1a2")) == str(Variant.parse("w1a2()")) == "w1a2"


def test_variants_do_not_overlap_and_name_nodes() -> None:
    architecture = Architecture.parse(TEXT)
    with pytest.raises(ArchitectureError, match="node 4 is in two regions"):
        architecture.with_variant([4, 5], "w1a2")
    for numbers in ([], [-1], [9], [0, 99]):
        with pytest.raises(ArchitectureError, match="are no nodes"):
            architecture.with_variant(numbers, "w1a2")
    assert architecture.dense().key == architecture.topology_key
    assert architecture.dense().dense() is not architecture
