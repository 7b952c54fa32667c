"""Who answers a space's questions: replay, mutation, enumeration, requirements, size."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest

from search_spaces import scope
from search_spaces.architecture.graph import Value
from search_spaces.builder import NetworkBuilder
from search_spaces.choose import Chooser, Decisions, EnumerateDecider, Option, RandomDecider
from search_spaces.errors import ArchitectureError, SpaceError
from search_spaces.space import RESAMPLES, Candidate, DataSpec, Space, space
from search_spaces.zoo import load_space

DATA = DataSpec((3, 8, 8), 10)
CIFAR = DataSpec((3, 32, 32), 10)
SHIPPED = ("mobile-cnn", "mobile-cnn-small", "nas-bench-201")


def _network(data: DataSpec) -> Value:
    net = NetworkBuilder(data.input_shape)
    return net.classifier(net.input, data.classes)


@space("conditional", version=1)
def conditional(choose: Chooser, data: DataSpec) -> Value:
    """Questions that depend on answers, and rules across scopes."""
    widths = []
    for _, stage in choose.scopes("stage", 2):
        width = stage("width", (4, 8, 12))
        for _, block in stage.repeat("block", 1, 2):
            if block("kind", ("a", "b")) == "b":
                groups = block("groups", (2, 3, 4))
                block.require(width % groups == 0, "groups divide the width")
        widths.append(width)
    choose.require(widths[0] <= widths[1], "widths do not fall")
    if choose("head", (True, False)):
        choose("units", range(5, 8))
    return _network(data)


def _brute_force() -> Iterator[Decisions]:
    """The leaves of ``conditional``, written without a chooser."""

    def blocks(width: int) -> Iterator[list[tuple[str, int | None]]]:
        one = [("a", None), *[("b", g) for g in (2, 3, 4) if width % g == 0]]
        for count in (1, 2):
            for combination in product(one, repeat=count):
                yield list(combination)

    for first, second in product((4, 8, 12), repeat=2):
        if first > second:
            continue
        for pair in product(blocks(first), blocks(second)):
            base: Decisions = {}
            for s, (width, rows) in enumerate(zip((first, second), pair, strict=True)):
                base[f"stage{s}/width"] = width
                base[f"stage{s}/blocks"] = len(rows)
                for b, (kind, groups) in enumerate(rows):
                    base[f"stage{s}/block{b}/kind"] = kind
                    if groups is not None:
                        base[f"stage{s}/block{b}/groups"] = groups
            for units in (5, 6, 7):
                yield base | {"head": True, "units": units}
            yield base | {"head": False}


def _frozen(decisions: Decisions) -> tuple[tuple[str, Option], ...]:
    return tuple(decisions.items())


# Replay, determinism.


@pytest.mark.parametrize("name", SHIPPED)
def test_replay_rebuilds_the_candidate_from_json(name: str) -> None:
    found, rng = load_space(name), random.Random(0)
    for _ in range(20):
        candidate = found.sample(rng, CIFAR)
        record = json.loads(json.dumps(candidate.decisions))
        again = found.replay(record, CIFAR)
        assert again.decisions == candidate.decisions
        assert list(again.decisions) == list(candidate.decisions)
        assert again.architecture == candidate.architecture
        assert [n.scope for n in again.architecture.nodes] == [
            n.scope for n in candidate.architecture.nodes
        ]


@pytest.mark.parametrize("name", [*SHIPPED, "conditional"])
def test_same_seed_same_sequence(name: str) -> None:
    found = conditional if name == "conditional" else load_space(name)

    def sequence(seed: int) -> list[Any]:
        rng = random.Random(seed)
        first = [found.sample(rng, CIFAR) for _ in range(5)]
        return [(c.decisions, c.rejections) for c in first] + [
            found.mutate(c.decisions, rng, CIFAR).decisions for c in first
        ]

    random.seed(1)
    before = random.getstate()
    assert sequence(7) == sequence(7)
    assert sequence(7) != sequence(8)
    assert random.getstate() == before  # no global generator


def test_replay_refuses_what_does_not_fit() -> None:
    good = conditional.sample(random.Random(0), DATA).decisions
    good = good | {"head": False}
    good.pop("units", None)
    conditional.replay(good, DATA)
    with pytest.raises(SpaceError, match="no answer to 'stage0/width'"):
        conditional.replay({}, DATA)
    with pytest.raises(SpaceError, match="5 to 'stage0/width' is not among"):
        conditional.replay(good | {"stage0/width": 5}, DATA)
    with pytest.raises(SpaceError, match="rejects the record: widths do not fall"):
        conditional.replay(
            {
                "stage0/width": 8,
                "stage0/blocks": 1,
                "stage0/block0/kind": "a",
                "stage1/width": 4,
                "stage1/blocks": 1,
                "stage1/block0/kind": "a",
            },
            DATA,
        )


def test_a_record_with_answers_to_questions_never_asked_is_refused_or_kept_out() -> None:
    good = next(iter(conditional.enumerate(DATA))).decisions
    try:
        again = conditional.replay(good | {"stage9/width": 4}, DATA)
    except SpaceError:
        return
    assert again.decisions == good


# Asking.


def test_a_question_asked_twice_names_itself() -> None:
    @space("twice", version=1)
    def twice(choose: Chooser, data: DataSpec) -> Value:
        for _, stage in choose.scopes("stage", 1):
            stage("width", [1, 2])
            stage("width", [1, 2])
        return _network(data)

    for call in (lambda: twice.sample(random.Random(0), DATA), lambda: list(twice.enumerate(DATA))):
        with pytest.raises(SpaceError, match="'stage0/width' is asked twice"):
            call()
    assert scope.current() == ""


def test_the_same_scopes_opened_twice_ask_twice() -> None:
    @space("again", version=1)
    def again(choose: Chooser, data: DataSpec) -> Value:
        for _ in range(2):
            for _, stage in choose.scopes("stage", 2):
                stage("width", [1, 2])
        return _network(data)

    with pytest.raises(SpaceError, match="'stage0/width' is asked twice"):
        again.sample(random.Random(0), DATA)


def test_a_question_without_options_names_itself() -> None:
    @space("nothing", version=1)
    def nothing(choose: Chooser, data: DataSpec) -> Value:
        choose("width", [])
        return _network(data)

    with pytest.raises(SpaceError, match="'width' has no options"):
        nothing.sample(random.Random(0), DATA)


def test_errors_of_the_network_name_the_space_and_the_place() -> None:
    @space("broken", version=1)
    def broken(choose: Chooser, data: DataSpec) -> Value:
        net = NetworkBuilder(data.input_shape)
        x = net.conv(net.input, 64)
        for _, stage in choose.scopes("stage", 3):
            for b, _ in stage.repeat("block", 1, 1):
                x = net.conv(x, 64, groups=3 if stage("bad", [True]) and b == 0 else 1)
        return x

    place = "broken/stage0/block0/conv: groups 3 does not divide 64"
    with pytest.raises(ArchitectureError, match=f"^{place}"):
        broken.run(RandomDecider(random.Random(0)), DATA)
    assert scope.current() == ""
    with pytest.raises(SpaceError, match=f"1000 by the rule 'invalid network: {place}"):
        broken.sample(random.Random(0), DATA)


def test_a_function_that_raises_rejects_its_answers_and_says_where() -> None:
    @space("fragile", version=1)
    def fragile(choose: Chooser, data: DataSpec) -> Value:
        net = NetworkBuilder(data.input_shape)
        width = choose("width", [0, 8])
        return net.classifier(net.conv(net.input, 16 // width), data.classes)

    drawn = [fragile.sample(random.Random(seed), DATA) for seed in range(20)]
    assert {found.decisions["width"] for found in drawn} == {8}
    rules = {rule for found in drawn for rule in found.rejections}
    assert len(rules) == 1
    assert re.fullmatch(
        r"ZeroDivisionError in test_choose.py, line \d+: integer division or modulo by zero",
        rules.pop(),
    )


def test_scopes_name_the_nodes() -> None:
    architecture = load_space("mobile-cnn").sample(random.Random(3), CIFAR).architecture
    names = [node.scope for node in architecture.nodes]
    assert any(name.startswith("stage0/block0/") for name in names)
    assert names[1] == "stem"
    assert names[-1] == "classifier"


def test_a_space_must_return_its_output() -> None:
    @space("empty", version=1)
    def empty(choose: Chooser, data: DataSpec) -> Any:
        return None

    with pytest.raises(SpaceError, match="empty must return the network's output, got None"):
        empty.sample(random.Random(0), DATA)


# Requirements.


def _impossible(rules: Sequence[str]) -> Space:
    @space("impossible", version=1)
    def impossible(choose: Chooser, data: DataSpec) -> Value:
        runs.append(1)
        rule = rules[choose("which", range(len(rules)))]
        choose.require(False, rule)
        return _network(data)

    runs: list[int] = []
    impossible.function.runs = runs  # type: ignore[attr-defined]
    return impossible


def test_rejected_draws_are_bounded_and_the_rule_is_named() -> None:
    found = _impossible(["rare", "often", "often", "often"])
    with pytest.raises(SpaceError) as caught:
        found.sample(random.Random(0), DATA)
    assert len(found.function.runs) == RESAMPLES == 1000  # type: ignore[attr-defined]
    assert "'often'" in str(caught.value)
    assert "1000 draws" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rejections_are_counted_by_rule() -> None:
    rng = random.Random(0)
    found = [conditional.sample(rng, DATA) for _ in range(200)]
    counts = {rule for candidate in found for rule in candidate.rejections}
    assert counts == {"groups divide the width", "widths do not fall"}
    assert any(not candidate.rejections for candidate in found)


def test_samples_cover_the_space_and_keep_its_rules() -> None:
    rng = random.Random(0)
    valid = {_frozen(d) for d in _brute_force()}
    drawn = {_frozen(conditional.sample(rng, DATA).decisions) for _ in range(3000)}
    assert drawn <= valid
    assert {dict(d)["stage1/width"] for d in drawn} == {4, 8, 12}


def test_answers_are_uniform_where_nothing_is_rejected() -> None:
    rng = random.Random(0)
    found = load_space("nas-bench-201").preset("tiny", cells=1)
    counts: dict[Option, int] = {}
    for _ in range(1500):
        answer = found.sample(rng, DataSpec((3, 4, 4), 2)).decisions["edge0-3"]
        counts[answer] = counts.get(answer, 0) + 1
    expected = 1500 / 5
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    assert len(counts) == 5
    assert chi2 < 18.5  # 99.9 % for 4 degrees of freedom


# Mutation.


def _within(name: str, within: str) -> bool:
    return not within or name == within or name.startswith(f"{within}/")


@pytest.mark.parametrize(
    "within", ["", "stage0", "stage1", "stage1/block0", "stage0/width", "head"]
)
@pytest.mark.parametrize("changes", [1, 3])
def test_mutation_is_valid_differs_and_stays_within(within: str, changes: int) -> None:
    rng = random.Random(1)
    valid = {_frozen(d) for d in _brute_force()}
    for _ in range(40):
        parent = conditional.sample(rng, DATA)
        try:
            child = conditional.mutate(
                parent.decisions, rng, DATA, within=within, changes=changes
            ).decisions
        except SpaceError:  # equal widths can leave no valid one to change to
            assert parent.decisions["stage0/width"] == parent.decisions["stage1/width"]
            assert changes == 3 or within == "stage0/width"
            continue
        assert _frozen(child) in valid
        assert child != parent.decisions
        for name, old in parent.decisions.items():
            if name in child and child[name] != old:
                assert _within(name, within)
        new = child.keys() - parent.decisions.keys()
        changed = {
            n for n in child.keys() & parent.decisions.keys() if child[n] != parent.decisions[n]
        }
        assert len(changed) <= changes
        assert changed  # a new question arises only where an answer changed
        assert all(_within(name, within) or name == "units" for name in new)


def test_a_shipped_space_mutates_within_a_block() -> None:
    found, rng = load_space("mobile-cnn"), random.Random(2)
    for _ in range(20):
        parent = found.sample(rng, CIFAR)
        child = found.mutate(parent.decisions, rng, CIFAR, within="stage1/block0")
        same = parent.decisions.keys() & child.decisions.keys()
        changed = {name for name in same if parent.decisions[name] != child.decisions[name]}
        assert changed
        assert all(name.startswith("stage1/block0/") for name in changed)
        assert found.replay(child.decisions, CIFAR).architecture == child.architecture


def test_mutation_where_nothing_can_change_says_so() -> None:
    @space("fixed", version=1)
    def fixed(choose: Chooser, data: DataSpec) -> Value:
        for _, stage in choose.scopes("stage", 1):
            stage("width", [4])
        choose("head", [1, 2])
        return _network(data)

    decisions = fixed.sample(random.Random(0), DATA).decisions
    with pytest.raises(SpaceError) as caught:
        fixed.mutate(decisions, random.Random(0), DATA, within="stage0")
    assert "\n" not in str(caught.value)
    with pytest.raises(SpaceError, match="no decision lies within 'stage7'"):
        fixed.mutate(decisions, random.Random(0), DATA, within="stage7")
    with pytest.raises(SpaceError, match="no decision lies within 'stage'"):
        fixed.mutate(decisions, random.Random(0), DATA, within="stage")


# Enumeration.


def test_enumeration_visits_every_leaf_once() -> None:
    found = [_frozen(candidate.decisions) for candidate in conditional.enumerate(DATA)]
    expected = [_frozen(decisions) for decisions in _brute_force()]
    assert len(found) == len(set(found))
    assert set(found) == set(expected)


def test_enumeration_is_lazy_and_in_order_of_the_options() -> None:
    first = load_space("mobile-cnn").enumerate(CIFAR)
    one: Candidate = next(first)
    two = next(first)
    assert set(one.decisions.values()) <= {16, 32, 64, 128, True, "standard", 3, 0}
    assert two.decisions == one.decisions | {"head": 256}


def test_enumeration_of_a_space_without_questions_is_one() -> None:
    @space("single", version=1)
    def single(choose: Chooser, data: DataSpec) -> Value:
        return _network(data)

    assert [c.decisions for c in single.enumerate(DATA)] == [{}]
    assert single.size(DATA).count == 1


def test_enumeration_of_an_empty_space_ends() -> None:
    assert list(_impossible(["never"]).enumerate(DATA)) == []


def test_enumerator_survives_a_tree_that_ends_early_at_its_last_branch() -> None:
    decider, leaves = EnumerateDecider(), []
    more = True
    while more:
        first = decider.decide("a", [0, 1, 2])
        leaf = [first, decider.decide("b", [0, 1])] if first != 2 else [first]
        leaves.append(leaf)
        more = decider.advance()
    assert leaves == [[0, 0], [0, 1], [1, 0], [1, 1], [2]]


def test_exact_size_is_that_of_brute_force() -> None:
    size = conditional.size(DATA)
    count = sum(1 for _ in _brute_force())
    assert size.exact
    assert size.count == size.low == size.high == count
    assert str(size) == f"{count:,} (exact)"
