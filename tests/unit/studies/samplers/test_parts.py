"""The parts of samplers: window, ranking, breeding."""

import random
import time

import numpy as np
import pytest

from search_spaces.zoo.mobile_cnn import mobile_cnn_small
from studies.pareto import dominates, non_dominated
from studies.samplers import Lesson
from studies.samplers.breeding import changed, cross, mutate
from studies.samplers.questions import changeable_names
from studies.samplers.ranking import best, crowding
from studies.samplers.window import Window
from tests.unit.studies.samplers.cases import DIGITS, branching, sampler_of

DIRECTIONS = ["min", "max"]


def window_of(lessons, **limits):
    window = Window(DIRECTIONS, ["a", "b"], **limits)
    for lesson in lessons:
        window.add(lesson)
    return window


def lesson(number, values=None, **violations):
    return Lesson(number, f"k{number}", {"x": number}, values, violations)


class TestWindow:
    def test_it_holds_the_front_and_the_newest(self):
        rng = random.Random(0)
        lessons = [lesson(n, (rng.random(), rng.random())) for n in range(300)]
        window = window_of(lessons, newest=20, front=100)
        front = set(non_dominated([item.values for item in lessons], DIRECTIONS))
        assert [e.lesson.number for e in window.entries()] == sorted({*front, *range(280, 300)})

    def test_it_stays_bounded_when_all_are_on_the_front(self):
        lessons = [lesson(n, (float(n), float(n))) for n in range(500)]
        numbers = [e.lesson.number for e in window_of(lessons, newest=20, front=30).entries()]
        assert len(numbers) == 50
        assert numbers == sorted(numbers)
        assert numbers[0] == 0  # an end of the front has most room

    def test_infeasible_lessons_are_never_on_its_front(self):
        lessons = [lesson(0, (0.0, 9.0), a=1.0), *(lesson(n, (5.0, n / 9)) for n in range(1, 9))]
        assert [e.lesson.number for e in window_of(lessons, newest=2, front=9).entries()] == [7, 8]

    def test_an_architecture_is_kept_once_and_only_if_it_teaches(self):
        window = window_of([lesson(0), lesson(1, None, a=-1.0), lesson(2, None, a=1.0)])
        assert window.count == 1
        assert window.add(lesson(2, (1.0, 1.0))) is None
        assert window.add(lesson(0, (1.0, 1.0))) is not None  # had failed at first

    def test_violations_of_different_units_weigh_the_same(self):
        window = window_of([lesson(0, None, a=1e6), lesson(1, None, b=1e-3)])
        small = window.violation(lesson(2, None, a=5e5, b=-7.0))
        large = window.violation(lesson(3, None, a=5e5, b=1e-3))
        assert 0.25 <= small <= 0.5
        assert 0.5 <= large - small <= 1.0
        assert window.violation(lesson(4, (1.0, 1.0), a=-3.0)) == 0.0


class TestRanking:
    def test_feasible_first_then_ranks_then_the_least_violating(self):
        rng = np.random.default_rng(0)
        values = rng.integers(0, 8, (60, 2)).astype(float)
        violations = np.where(rng.random(60) < 0.4, rng.random(60), 0.0)
        order = best(values, violations, 60)
        assert sorted(order) == list(range(60))
        left = [index for index in order if violations[index] == 0]
        assert order[: len(left)] == left
        tail = [violations[index] for index in order[len(left) :]]
        assert tail == sorted(tail)
        while left:  # each rank comes before what it dominates
            front = {
                i
                for i in left
                if not any(dominates(values[j], values[i], ["min"] * 2) for j in left)
            }
            assert set(left[: len(front)]) == front
            left = left[len(front) :]

    def test_no_more_than_asked_for(self):
        assert best(np.array([[3.0], [1.0], [2.0]]), np.zeros(3), 2) == [1, 2]
        assert best(np.empty((0, 2)), np.empty(0), 5) == []

    def test_crowding_by_hand(self):
        found = crowding(np.array([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0]]))
        assert found.tolist() == [np.inf, 2.0, np.inf]
        assert crowding(np.array([[1.0, 1.0], [1.0, 1.0]])).tolist() == [0.0, 0.0]


class TestBreeding:
    def test_a_mutation_changes_little(self):
        rng = random.Random(0)
        parent = mobile_cnn_small.sample(rng, DIGITS).decisions
        names = changeable_names(parent, mobile_cnn_small, DIGITS)
        kept = []
        for _ in range(200):
            child = mutate(parent, names, rng, mobile_cnn_small, DIGITS).decisions
            assert child != parent
            kept.append(sum(parent[n] == child.get(n) for n in parent) / len(parent))
        assert np.median(kept) > 0.8

    def test_a_child_of_two_has_their_answers_where_they_gave_some(self):
        rng = random.Random(1)
        for _ in range(100):
            one, two = (mobile_cnn_small.sample(rng, DIGITS).decisions for _ in range(2))
            child = cross(one, two, rng, mobile_cnn_small, DIGITS)
            for name, answer in child.decisions.items():
                known = {parent[name] for parent in (one, two) if name in parent}
                assert answer in known or name not in {**one, **two}

    def test_scopes_are_inherited_whole(self):
        rng = random.Random(2)
        one = {**dict.fromkeys(("stem", "blocks"), 3), "stem": 4}
        one |= {f"block{i}/{q}": a for i in range(3) for q, a in LOW.items()}
        two = one | {f"block{i}/{q}": a for i in range(3) for q, a in HIGH.items()}
        seen = set()
        for _ in range(60):
            child = cross(one, two, rng, branching, DIGITS).decisions
            blocks = [{q: child[f"block{i}/{q}"] for q in LOW} for i in range(3)]
            assert all(block in (LOW, HIGH) for block in blocks)
            seen.add(tuple(block == LOW for block in blocks))
        assert len(seen) == 8  # every mixture of the three blocks

    def test_what_changed_is_named(self):
        assert changed({"a": 1, "b": 2, "gone": 0}, {"a": 1, "b": 3, "new": 4}) == ["b", "new"]

    def test_questions_with_one_option_cannot_change(self):
        decisions = branching.sample(random.Random(0), DIGITS).decisions
        names = changeable_names(decisions, branching, DIGITS)
        assert set(names) == set(decisions) - {"stem"}


LOW = {"wide": False, "width": 2, "kind": "conv", "kernel": 1}
HIGH = {"wide": True, "width": 16, "kind": "conv", "kernel": 5}


def test_the_origin_names_parent_and_change():
    sampler = sampler_of("evolution")
    lessons, kinds = {}, set()
    for number in range(80):
        proposal = sampler.ask(number, [])
        origin, decisions = proposal.origin, proposal.candidate.decisions
        kinds.add(origin["kind"])
        if "parent" in origin:
            assert origin["change"] == changed(lessons[origin["parent"]].decisions, decisions)
        key, size = (
            proposal.candidate.architecture.key,
            float(proposal.candidate.architecture.params),
        )
        lessons[number] = Lesson(number, key, decisions, (size, -size))
        sampler.tell(lessons[number])
    assert kinds == {"random", "mutation", "crossover"}


@pytest.mark.parametrize("name", ["evolution", "random", "tpe"])
def test_to_tell_costs_little_however_many_were_told(name):
    sampler = sampler_of(name)
    rng = random.Random(0)
    lessons = [lesson(n, (rng.random(), rng.random())) for n in range(20_000)]
    for item in lessons[:-200]:
        sampler.tell(item)
    seconds = []
    for item in lessons[-200:]:
        start = time.perf_counter()
        sampler.tell(item)
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 1e-3
