import os
import statistics
import subprocess
import sys

import pytest
from optuna.trial import TrialState

from search_spaces.builder import NetworkBuilder
from search_spaces.choose import RandomDecider
from search_spaces.errors import SpaceError
from search_spaces.space import DataSpec, space
from search_spaces.zoo.mobile_cnn import mobile_cnn_small
from studies.samplers import OptunaSampler, make_sampler
from tests.unit.studies.fakes import cheap_config

DIGITS = DataSpec((1, 8, 8), 10)


@space("shifting", version=1)
def shifting(choose, data):
    """The same question with other options, and a rule."""
    net = NetworkBuilder(data.input_shape)
    x = net.conv(net.input, choose("only", [4]), kernel=3)
    wide = choose("wide", [True, False])
    width = choose("width", [8, 12, 16] if wide else [2, 3])
    choose.require(width != 12, "not twelve")
    return net.classifier(net.conv(x, width), data.classes)


def sampler_of(name, of=mobile_cnn_small, **settings):
    return make_sampler(cheap_config(sampler=name, **settings), of, DIGITS)


def worth(candidate):
    return [float(candidate.architecture.macs), float(candidate.architecture.params)]


def run(sampler, count, told=()):
    """Ask and tell; every fifth candidate fails."""
    told = list(told)
    for number in range(len(told), count):
        candidate = sampler.ask(number)
        values = None if number % 5 == 4 else worth(candidate)
        sampler.tell(candidate.decisions, values)
        told.append((candidate.decisions, values))
    return told


@pytest.mark.parametrize("name", ["tpe", "random", "nsga2"])
class TestContract:
    def test_a_seed_gives_one_sequence(self, name):
        assert run(sampler_of(name), 30) == run(sampler_of(name), 30)
        assert run(sampler_of(name), 5) != run(sampler_of(name, seed=1), 5)

    @pytest.mark.parametrize("stop", [3, 15, 27])
    def test_one_rebuilt_from_what_was_told_goes_on_as_if_never_stopped(self, name, stop):
        whole = run(sampler_of(name), 34)
        rebuilt = sampler_of(name)
        for decisions, values in whole[:stop]:
            rebuilt.tell(decisions, values)
        assert run(rebuilt, 34, told=whole[:stop]) == whole

    def test_asking_for_a_number_again_repeats_the_proposal(self, name):
        sampler = sampler_of(name)
        run(sampler, 13)
        assert sampler.ask(13).decisions == sampler.ask(13).decisions

    def test_options_may_change_with_other_answers(self, name):
        sampler = sampler_of(name, shifting)
        found = []
        for number in range(25):
            found.append(sampler.ask(number))
            sampler.tell(found[-1].decisions, worth(found[-1]))
        assert {candidate.decisions["wide"] for candidate in found} == {True, False}
        assert all(candidate.decisions["width"] != 12 for candidate in found)

    def test_rejections_are_counted(self, name):
        sampler = sampler_of(name, shifting)
        counts = [sampler.ask(number).rejections.get("not twelve", 0) for number in range(30)]
        assert sum(counts) > 0

    def test_a_space_that_rejects_all_is_one_error(self, name):
        @space("empty", version=1)
        def empty(choose, data):
            choose("width", [1, 2])
            choose.require(False, "nothing is allowed")

        with pytest.raises(SpaceError, match="nothing is allowed"):
            sampler_of(name, empty).ask(0)


@pytest.mark.parametrize(("name", "count"), [("tpe", 45), ("nsga2", 120)])
def test_what_is_told_is_learnt(name, count):
    sampler = OptunaSampler(name, mobile_cnn_small, DIGITS, directions=["min"], seed=3)
    sizes = []
    for number in range(count):
        candidate = sampler.ask(number)
        sizes.append(candidate.architecture.macs)
        sampler.tell(candidate.decisions, [float(sizes[-1])])
    assert statistics.median(sizes[-15:]) < 0.5 * statistics.median(sizes[:15])


def test_whole_numbers_may_be_told():
    sampler = sampler_of("tpe")
    for number in range(15):
        candidate = sampler.ask(number)
        cost = candidate.architecture.params
        sampler.tell(candidate.decisions, [cost, cost])
    assert sampler.ask(15).architecture.live  # TPE models the whole numbers from the 11th ask on


def test_no_trial_stays_running():
    sampler = sampler_of("tpe", shifting)
    for number in range(12):
        candidate = sampler.ask(number)
        sampler.tell(candidate.decisions, worth(candidate))
    states = [trial.state for trial in sampler._study.get_trials(deepcopy=False)]
    assert set(states) == {TrialState.FAIL, TrialState.COMPLETE}
    assert states.count(TrialState.COMPLETE) == 12


def test_a_record_that_no_longer_fits_is_left_out(caplog):
    sampler = sampler_of("tpe", shifting)
    sampler.tell({"only": 4, "wide": True, "width": 99}, [1.0, 2.0])
    assert "no longer fits" in caplog.text
    assert sampler.ask(0).architecture.params > 0


def test_the_hash_seed_of_the_process_plays_no_part():
    """Optuna keeps parameters in sets; this process has a hash seed of its own."""
    script = f"""
from search_spaces.zoo.mobile_cnn import mobile_cnn_small
from studies.samplers import OptunaSampler
from search_spaces.space import DataSpec
data = DataSpec((1, 8, 8), 10)
sampler = OptunaSampler("tpe", mobile_cnn_small, data, directions=["min"], seed=0)
{LOOP}
"""
    found: dict[str, object] = {}
    sampler = OptunaSampler("tpe", mobile_cnn_small, DIGITS, directions=["min"], seed=0)
    exec(LOOP, {"sampler": sampler, "found": found})
    other = subprocess.run(
        [sys.executable, "-c", f"found = {{}}{script}print(found)"],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == str(found)


LOOP = """
for number in range(16):
    candidate = sampler.ask(number)
    sampler.tell(candidate.decisions, [float(candidate.architecture.macs)])
    found[number] = candidate.decisions
"""


def test_the_decider_contract_is_that_of_the_others():
    from random import Random

    candidate = shifting.run(RandomDecider(Random(0)), DIGITS)
    assert list(sampler_of("tpe", shifting).ask(0).decisions) == list(candidate.decisions)
