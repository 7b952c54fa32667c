"""Stages in the order of their price, gates that drop, and a proxy that is caught."""

import random

import pytest

from evaluators.protocol import Measured
from kernels.errors import NasError
from studies.config import GateConfig
from studies.funnel import Gate, make_stages, misleads
from studies.search import Ending, run_study
from studies.storage import TrialState
from studies.workspace import Workspace
from tests.unit.studies.fakes import (
    FakeEvaluator,
    cheap_config,
    counted,
    recorded,
    size_score,
    with_costs,
)

FAKE = {"objectives": ["accuracy", "params"]}


def gate(keep, *, after=1, names=("score", "cost"), directions=("max", "min")):
    return Gate(GateConfig(by=names[0], keep=keep, after=after), names, directions)


def brute_force_place(rows, row):
    """Share of the rows that fewer rows dominate than dominate this one; larger is better."""

    def dominators(item):
        return sum(
            all(a >= b for a, b in zip(other, item, strict=True)) and other != item
            for other in [*rows, row]
        )

    mine = dominators(row)
    return mine, sum(dominators(item) < mine for item in rows) / len(rows)


def test_a_gate_keeps_the_share_it_is_told_by_a_plain_count():
    rng = random.Random(0)
    judged = gate(0.4, after=8)
    rows = []
    for number in range(60):
        row = (rng.randrange(12), -rng.randrange(12))
        judged.arrive(number, {"score": row[0], "cost": -row[1]})
        dominators, place = brute_force_place(rows, row) if rows else (0, 0.0)
        dropped = judged.verdict(number, number) is not None
        assert dropped == (number >= 8 and dominators > 0 and place >= 0.4), number
        rows.append(row)


def test_a_gate_looks_only_at_lower_numbers_and_spares_who_is_not_dominated():
    judged = gate(0.01)
    for number, (score, cost) in enumerate([(1, 1), (2, 1), (3, 1), (9, 9)]):
        judged.arrive(number, {"score": score, "cost": cost})
    judged.arrive(4, {"score": 1, "cost": 0.5})
    judged.arrive(5, {"score": 1, "cost": 1})
    assert judged.verdict(4, 4) is None
    assert "of 3 candidates before it" in judged.verdict(5, 3)
    assert judged.verdict(0, 0) is None


def test_stages_stand_by_price_with_their_bounds_and_gates():
    config = cheap_config(
        objectives=["accuracy", "latency_ms", "params"],
        constraints=["latency_ms<=3", "params<=5k"],
        funnel=["accuracy[recipe=digits-short]:0.5", "rf_gain:0.5"],
        recipe="digits-full",
    )
    final = FakeEvaluator(size_score)
    short = FakeEvaluator(size_score, metric="accuracy[recipe=digits-short]")
    latency = FakeEvaluator(size_score, metric="latency_ms")
    latency.slot = "measurement"
    stages = make_stages(config, [final, *with_costs(short), latency])
    assert [stage.name for stage in stages] == [
        "cost",
        "latency_ms",
        "accuracy[recipe=digits-short]",
        "accuracy",
    ]
    assert [[str(bound) for bound in stage.bounds] for stage in stages] == [
        ["params<=5000"],
        ["latency_ms<=3"],
        [],
        [],
    ]
    assert [[item.names for item in stage.gates] for stage in stages] == [
        [("rf_gain", "params")],
        [],
        [("accuracy[recipe=digits-short]", "latency_ms", "params")],
        [],
    ]


def test_a_gate_by_a_metric_of_unknown_direction_is_refused():
    config = cheap_config(objectives=["penalty:min"], funnel=["other:0.5"])
    evaluators = [FakeEvaluator(size_score, metric=name) for name in ("penalty", "other")]
    with pytest.raises(NasError, match="which way is other better"):
        make_stages(config, evaluators)


def test_constraints_drop_before_anything_is_paid(tmp_path):
    fake = FakeEvaluator(size_score)
    config = cheap_config(**FAKE, trials=5, constraints=["params<=3k"])
    summary = run_study(config, tmp_path, evaluators=with_costs(fake))
    assert (summary.ending, summary.complete, len(fake.paid)) == (Ending.DONE, 5, 5)
    trials = recorded(tmp_path)
    dropped = [trial for trial in trials if trial.state is TrialState.DROPPED]
    assert summary.dropped == {"cost": len(dropped)}
    assert dropped
    for trial in trials:
        within = trial.values["params"].value <= 3000
        assert (trial.state is TrialState.DROPPED) != within or trial.state is TrialState.REPEAT
    assert all("the constraint is params<=3000" in trial.reason for trial in dropped)
    assert not {trial.key for trial in dropped} & set(fake.paid)
    assert all(point.values["params"].value <= 3000 for point in summary.front)


def test_a_constraint_that_nothing_keeps_ends_the_study(tmp_path):
    config = cheap_config(trials=5, constraints=["params<=1"], max_drops=12)
    summary = run_study(config, tmp_path)
    assert (summary.ending, summary.complete) == (Ending.DROPPING, 0)
    assert "params<=1" in summary.message
    assert summary.dropped == {"cost": 12}


def test_a_short_training_decides_who_gets_the_long_one(tmp_path):
    short = FakeEvaluator(size_score, metric="accuracy[recipe=digits-short]")
    long = FakeEvaluator(size_score)
    config = cheap_config(
        objectives=["accuracy", "rf_volume"],
        recipe="digits-full",
        trials=20,
        funnel=[{"by": "accuracy[recipe=digits-short]", "keep": 0.3, "after": 5}],
    )
    summary = run_study(config, tmp_path, evaluators=[*with_costs(short), long])
    trials = recorded(tmp_path)
    dropped = [trial for trial in trials if trial.state is TrialState.DROPPED]
    assert summary.complete == len(long.paid) == 20
    assert len(short.paid) == 20 + len(dropped)
    assert summary.dropped == {"accuracy[recipe=digits-short]": len(dropped)}
    assert len(dropped) >= 5
    assert all("the stage keeps 30 %" in trial.reason for trial in dropped)


def test_a_stage_may_be_given_a_budget(tmp_path):
    config = cheap_config(**FAKE, trials=50, funnel=[{"by": "rf_gain", "keep": 0.9, "limit": 6}])
    fake = FakeEvaluator(size_score)
    summary = run_study(config, tmp_path, evaluators=with_costs(fake))
    assert (summary.ending, summary.complete) == (Ending.BUDGET, 6)
    assert "6 candidates went on from the stage rf_gain" in summary.message
    again = run_study(config, tmp_path, evaluators=with_costs(fake))
    assert (again.ending, again.complete, len(fake.paid)) == (Ending.BUDGET, 6, 6)


def test_a_proxy_that_ranks_worse_than_size_is_switched_off_and_says_so(tmp_path):
    class Wrong(FakeEvaluator):
        slot = "inline"

        def evaluate(self, architecture):
            return [Measured("rf_gain", -float(architecture.params))]

    class Costs(FakeEvaluator):
        slot = "inline"

        def evaluate(self, architecture):
            return [Measured("params", float(architecture.params))]

    config = cheap_config(**FAKE, trials=40, funnel=[{"by": "rf_gain", "keep": 0.9, "after": 30}])
    evaluators = [
        Costs(size_score, metric="params"),
        Wrong(size_score, metric="rf_gain"),
        FakeEvaluator(size_score),
    ]
    run_study(config, tmp_path, evaluators=evaluators)
    with Workspace.of(tmp_path).open() as repository:
        events = repository.events(repository.study("cheap").id)
    off = [event.data for event in events if event.kind == "proxy off"]
    assert len(off) == 1
    assert off[0]["metric"] == "rf_gain"
    assert "that of params 1.00" in off[0]["reason"]
    assert not [trial for trial in recorded(tmp_path) if trial.state is TrialState.DROPPED]


def test_a_proxy_is_judged_by_rank_correlation_once_enough_is_trained():
    size, truth = list(range(25)), [value**2 for value in range(25)]
    assert misleads(truth, size, truth) is None
    swapped = [1, 0, *range(2, 25)]
    assert "0.99" not in (misleads([0.0] * 25, size, truth) or "0.99")
    assert misleads(swapped, size, truth) is not None
    assert misleads(swapped[:19], size[:19], truth[:19]) is None


def test_an_interrupted_study_with_a_funnel_equals_one_that_was_not(tmp_path):
    config = cheap_config(
        **FAKE,
        sampler="evolution",
        trials=15,
        constraints=["params<=8k"],
        funnel=[{"by": "rf_gain", "keep": 0.6, "after": 5}],
        lookahead=3,
    )
    run_study(config, tmp_path / "whole", evaluators=with_costs(FakeEvaluator(size_score)))
    for stop in (2, 4, 5):
        paid = 0

        def score(architecture, stop=stop):
            nonlocal paid
            paid += 1
            if paid == stop:
                raise KeyboardInterrupt
            return size_score(architecture)

        with pytest.raises(KeyboardInterrupt):
            run_study(config, tmp_path / "parts", evaluators=with_costs(FakeEvaluator(score)))
    run_study(config, tmp_path / "parts", evaluators=with_costs(FakeEvaluator(size_score)))
    assert counted(recorded(tmp_path / "parts")) == counted(recorded(tmp_path / "whole"))
