"""What holds for every sampler."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from kernels.errors import NasError, UnknownNameError
from search_spaces.errors import SpaceError
from studies.samplers import Lesson, make_sampler
from tests.unit.studies.samplers.cases import (
    BOUND,
    DIGITS,
    FAST,
    NAMES,
    branching,
    empty,
    lesson_of,
    sampler_of,
    study,
    twelve,
)

COUNTS = {"gp": 16}
"""Trials of a test: enough that each sampler models what it was told."""
each_sampler = pytest.mark.parametrize("name", NAMES)


@each_sampler
class TestEverySampler:
    def test_a_seed_gives_one_sequence(self, name):
        count = 12 if name == "gp" else 45  # its model is compared in the tests below
        assert study(sampler_of(name), count) == study(sampler_of(name), count)
        assert study(sampler_of(name), 5) != study(sampler_of(name, seed=1), 5)

    @pytest.mark.parametrize("ahead", [0, 2])
    def test_one_told_the_record_goes_on_as_if_never_stopped(self, name, ahead):
        count = COUNTS.get(name, 48)
        whole = study(sampler_of(name), count, ahead=ahead)
        for stop in (count // 4, count - 2)[name == "gp" :]:
            resumed = study(sampler_of(name), count, ahead=ahead, told=whole[:stop])
            assert resumed == whole

    def test_asking_for_a_number_again_repeats_the_proposal(self, name):
        sampler = sampler_of(name)
        study(sampler, 13)
        pending = [branching.sample(random.Random(1), DIGITS).decisions]
        once = sampler.ask(13, pending)
        sampler.ask(14, [])
        assert sampler.ask(13, pending) == once

    def test_global_generators_play_no_part_and_are_left_alone(self, name):
        def run(seed):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
            found = study(sampler_of(name), COUNTS.get(name, 45), ahead=2)
            after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
            assert before[:2] == after[:2]
            assert torch.equal(before[2], after[2])
            return found

        assert run(1) == run(2)

    def test_nothing_is_met_twice_while_others_are_left(self, name):
        sampler = sampler_of(name, twelve)
        keys = [item.candidate.architecture.key for item, _ in study(sampler, 12)]
        assert len(set(keys)) == 12
        for _, lesson in study(sampler_of(name, twelve), 12)[11:]:
            sampler.tell(lesson)
        assert sampler.ask(12, []).candidate.architecture.key in keys  # a repeat: nothing is left

    def test_pending_trials_are_not_proposed_again(self, name):
        sampler, pending, keys = sampler_of(name, twelve), [], set()
        for number in range(9):
            candidate = sampler.ask(number, pending).candidate
            pending.append(candidate.decisions)
            keys.add(candidate.architecture.key)
        assert len(keys) == 9

    def test_failures_alone_teach_nothing_and_stop_nothing(self, name):
        sampler, keys = sampler_of(name), set()
        for number in range(25):
            candidate = sampler.ask(number, []).candidate
            keys.add(candidate.architecture.key)
            sampler.tell(lesson_of(number, candidate, fail=True))
        assert len(keys) == 25

    def test_networks_from_elsewhere_are_no_trouble(self, name, caplog):
        sampler = sampler_of(name)
        foreign = {"width": 99, "block0/kind": "dense"}
        for number in range(25):
            decisions = {} if number % 2 else foreign
            sampler.tell(Lesson(number, f"baseline{number}", decisions, (float(number), 1.0)))
        candidate = sampler.ask(25, [{}, foreign]).candidate
        assert candidate.architecture == branching.replay(candidate.decisions, DIGITS).architecture

    def test_all_questions_are_explored_and_the_rule_holds(self, name):
        found = [item for item, _ in study(sampler_of(name), COUNTS.get(name, 40))]
        answers = [item.candidate.decisions for item in found]
        assert {item["blocks"] for item in answers} == {1, 2, 3}
        assert {item["block0/wide"] for item in answers} == {True, False}
        assert {item["block0/kind"] for item in answers} == {"conv", "pool"}
        assert all(item["block0/width"] != 12 for item in answers)
        assert sum(item.candidate.rejections.get("not twelve", 0) for item in found) > 0
        for item in found:
            assert json.loads(json.dumps(item.origin)) == item.origin
            assert item.origin["by"] == "sampler"

    def test_a_space_that_rejects_all_is_one_error(self, name):
        with pytest.raises(SpaceError, match="nothing is allowed"):
            sampler_of(name, empty).ask(0, [])


LOOP = """
from tests.unit.studies.samplers.cases import sampler_of, study
found = {name: [item.candidate.decisions for item, _ in study(sampler_of(name), 32)]
         for name in NAMES}
"""


def test_the_hash_seed_of_the_process_plays_no_part():
    """Some samplers keep names in sets; this process has a hash seed of its own."""
    here: dict[str, object] = {"NAMES": FAST}
    exec(LOOP, here)
    other = subprocess.run(
        [sys.executable, "-c", f"NAMES = {FAST}{LOOP}print(found)"],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == str(here["found"])


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), float("-inf")])
def test_a_lesson_is_finite(figure):
    with pytest.raises(NasError, match=r"Trial 3 .*finite"):
        Lesson(3, "k", {}, (1.0, figure))
    with pytest.raises(NasError, match=r"Trial 3 .*finite"):
        Lesson(3, "k", {}, None, {BOUND: figure})


def test_a_lesson_is_infeasible_beyond_a_bound_only():
    assert not Lesson(0, "k", {}, None, {"a": 0.0, "b": -1.0}).infeasible
    assert Lesson(0, "k", {}, None, {"a": -1.0, "b": 1e-9}).infeasible


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_a_lesson_that_does_not_fit_the_study_is_an_error(name):
    sampler = sampler_of(name, constraints=[BOUND])
    with pytest.raises(NasError, match="1 values; the study has 2"):
        sampler.tell(Lesson(0, "a", {}, (1.0,)))
    with pytest.raises(NasError, match=r"'depth <= 3'.*params <= 2500"):
        sampler.tell(Lesson(0, "a", {}, None, {"depth <= 3": 1.0}))


def test_an_unknown_name_suggests():
    with pytest.raises(UnknownNameError, match="Did you mean 'evolution'"):
        make_sampler("evolutin", twelve, DIGITS, directions=["min"], constraints=[], seed=0)
