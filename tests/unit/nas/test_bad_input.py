"""Everything that can be wrong with what a user gives, one row each, through the command line.

A row of the first table is bad input: one line on standard error that says the cause and what to
do, exit code 2, and the record that was there is as it was. A row of the second is a candidate that
goes wrong: a failed trial with its reason, and the study goes on to its end.

Workers that hang, die, or grow beyond a limit, and disks that fill up while something is saved, are
in tests/unit/studies/test_faults.py; all that a damaged or full database does is in
tests/unit/studies/storage/test_failures.py.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from studies import asker, supply
from studies.storage import TrialRecord, TrialState
from studies.workspace import Workspace
from tests.unit.nas.conftest import Run

SPACE = """
from search_spaces.builder import NetworkBuilder
from search_spaces.space import space

@space("own", version=1)
def own(choose, data):
    net = NetworkBuilder(data.input_shape)
    width = choose("width", list(range(4, 44, 2)))
    {line}
    return net.classifier(net.conv(net.input, width, kernel=3), data.classes)
"""
EVALUATORS = """
import time

def wrong(model):
    return len(next(model.parameters())) % 3 == 0

def raises(model, data):
    if wrong(model):
        raise ValueError("no such layer\\nsecond line")
    return 1.0

def hangs(model, data):
    while wrong(model):
        time.sleep(0.01)
    return 1.0

def nan(model, data):
    return float("nan") if wrong(model) else 1.0

def endless(model, data):
    return float("-inf") if wrong(model) else 1.0

def words(model, data):
    return "good" if wrong(model) else 1.0
"""


@pytest.fixture
def nas(inside: Run) -> Run:
    return inside


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all kinds of bad files, and one good study in ``run``."""
    monkeypatch.chdir(tmp_path)
    for name, line in {
        "good": "pass",
        "raises": "raise KeyError('depth')",
        "endless": "\n    while True: pass",
        "asks": "\n    for i in iter(int, 1): choose(str(len(choose.decisions)), [1, 2])",
        "rejects": "choose.require(width > 99, 'wide enough')",
        "returns": "return 3",
    }.items():
        (tmp_path / f"{name}.py").write_text(SPACE.format(line=line))
    (tmp_path / "syntax.py").write_text("def (:\n")
    (tmp_path / "evaluators.py").write_text(EVALUATORS)
    (tmp_path / "data.py").write_text("def fails():\n    raise OSError('no\\nserver')\n")
    (tmp_path / "torn.toml").write_text('space = "good.py"\ntrials = [\n')
    (tmp_path / "typo.toml").write_text('space = "good.py"\ntrails = 3\n')
    (tmp_path / "gate.toml").write_text('space = "good.py"\nfunnel = [{by = "macs", kep = 0.5}]\n')
    (tmp_path / "kind.toml").write_text('space = "good.py"\ntrials = "many"\n')
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 and nothing else")
    (tmp_path / "torn.json").write_text('{"format": ')
    _write_data(tmp_path)
    _write_records(tmp_path)
    return tmp_path


def _write_data(folder: Path) -> None:
    images = np.random.default_rng(0).random((40, 8, 8))
    np.savez(folder / "nothing.npz")
    np.savez(folder / "empty.npz", x=images[:0], y=np.arange(0))
    np.savez(folder / "oneclass.npz", x=images, y=np.zeros(40, int))
    np.savez(folder / "nan.npz", x=np.where(images > 0.99, np.nan, images), y=np.arange(40) % 2)
    np.savez(folder / "short.npz", x=images, y=np.arange(39) % 2)
    np.savez(folder / "pickled.npz", x=np.array([{}, {}]), y=np.arange(2))
    (folder / "no-images" / "cat").mkdir(parents=True)
    (folder / "no-images" / "dog").mkdir()


def _write_records(folder: Path) -> None:
    for name in ("garbage", "cut", "newer", "other"):
        (folder / name).mkdir()
    (folder / "garbage" / "record.db").write_bytes(b"certainly no database, however long" * 99)
    for name in ("cut", "newer"):
        Workspace(folder / name).open().close()
    content = (folder / "cut" / "record.db").read_bytes()
    (folder / "cut" / "record.db").write_bytes(content[: len(content) // 2])
    for name, statement in (
        ("newer", "UPDATE nas_alembic_version SET version_num = 'v99'"),
        ("other", "CREATE TABLE study (x)"),
    ):
        with closing(sqlite3.connect(folder / name / "record.db")) as db, db:
            db.execute(statement)


GOOD = ("good.py", "--workers", 0, "--trials", 3, "--objectives", "macs,params", "--out", "run")


def search(*arguments: object) -> tuple[object, ...]:
    """The good study with something else."""
    return ("search", *GOOD, *arguments)


def measure(*arguments: object) -> tuple[object, ...]:
    """A measurement on the CPU, into the good study's record, with something else."""
    return ("measure", "good.py", "--device", "cpu", "--out", "run", *arguments)


BAD: dict[str, tuple[tuple[object, ...], str]] = {
    # spaces
    "unknown space": (("search", "mobile-cn"), "Did you mean 'mobile-cnn'?"),
    "missing space file": (("search", "missing.py"), "There is no Python file"),
    "space file of another language": (("search", "syntax.py"), "cannot be loaded: SyntaxError"),
    "file without a space": (("search", "evaluators.py"), "must hold one space"),
    "space that raises": (("search", "raises.py"), "KeyError in raises.py, line 9: 'depth'"),
    "space that never ends": (("search", "endless.py"), "it was at endless.py, line 10: does a"),
    "space that asks for ever": (("search", "asks.py"), "does a loop in it never end?"),
    "space that rejects all": (("search", "rejects.py"), "by the rule 'wide enough'"),
    "space without a network": (("search", "returns.py"), "must return the network's output"),
    # settings
    "unknown objective": (search("--objectives", "acuracy"), "Did you mean 'accuracy'?"),
    "unknown metric in a constraint": (search("--constraint", "parms<=3"), "Did you mean 'params'"),
    "unknown metric in a gate": (search("--funnel", "rf_gan:0.5"), "Did you mean 'rf_gain'?"),
    "unknown qualifier": (search("--objectives", "latency_ms[bach=2]"), "Did you mean 'batch'?"),
    "the test split as an objective": (search("--objectives", "test_accuracy"), "spoil it"),
    "constraint without a number": (search("--constraint", "params<=few"), "metric<=number"),
    "malformed TOML": (("search", "--config", "torn.toml"), "Cannot read the settings file torn"),
    "unknown TOML key": (("search", "--config", "typo.toml"), "Did you mean 'trials'?"),
    "unknown key of a table": (("search", "--config", "gate.toml"), "Did you mean 'keep'?"),
    "TOML value of a wrong kind": (("search", "--config", "kind.toml"), "'trials'"),
    "unknown flag": (search("--trails", 3), "--trials"),
    "unknown command": (("serch",), "search"),
    "unknown sampler": (search("--sampler", "tpee"), "Did you mean 'tpe'?"),
    "unknown recipe": (search("--recipe", "ful"), "Did you mean 'full'?"),
    "missing recipe file": (search("--recipe", "no.toml", "--objectives", "accuracy"), "no.toml"),
    "unknown device": (search("--device", "cuda:9"), "cuda"),
    "unknown baseline": (search("--baseline", "torchvision:resnet81"), "'resnet18'"),
    "missing architecture": (search("--enqueue", "no.json"), "Cannot read the architecture no"),
    "torn architecture": (search("--enqueue", "torn.json"), "Cannot read the architecture torn"),
    "missing evaluator": (search("--evaluator", "evaluators.py:rises"), "Did you mean 'raises'?"),
    "evaluator without a metric": (search("--evaluator", "evaluators.py:nan"), "as an objective"),
    "other settings than recorded": (search("--seed", 5), "with seed 0, not 5. Give the same"),
    # measurements
    "nothing to measure": (("measure",), "Name a space or a network"),
    "unknown metric to measure": (measure("--metric", "latency"), "Did you mean 'latency_ms'?"),
    "metric of no device": (measure("--metric", "accuracy"), "is not measured on a device"),
    "device that is not there": (measure("--device", "cuda:9"), "There is no device 'cuda:9'"),
    "conditions of another device": (measure("--metric", "latency_ms[mode=graph]"), "need a GPU"),
    "missing network": (("measure", "no.json"), "Expected an architecture as a JSON file"),
    "unknown space to measure": (("measure", "mobile-cn"), "Did you mean 'mobile-cnn'?"),
    "list of no run": (("measure", "--list"), "Name the run"),
    "list of no record": (("measure", "--list", "mobile-cnn"), "There is no record"),
    "export of another kind": (("measure", "run", "--export", "x.xls"), "NAME.csv or NAME.json"),
    # data
    "unknown data": (search("--data", "digit"), "Did you mean 'digits'?"),
    "missing data": (search("--data", "npz:no.npz"), "no.npz"),
    "unreadable data": (search("--data", "npz:torn.npz"), "not a readable .npz"),
    "pickled data": (search("--data", "npz:pickled.npz"), "not a readable .npz"),
    "data file without arrays": (search("--data", "npz:nothing.npz"), "expected arrays x and y"),
    "empty data": (search("--data", "npz:empty.npz"), "none empty"),
    "one-class data": (search("--data", "npz:oneclass.npz"), "at least two classes"),
    "NaN pixels": (search("--data", "npz:nan.npz"), "have NaN pixels"),
    "labels that do not fit": (search("--data", "npz:short.npz"), "40 images but 39 labels"),
    "folder without images": (search("--data", "folder:no-images"), "holds no image"),
    "function that raises": (search("--data", "data.py:fails"), "raised OSError: no server"),
    # records
    "no record": (("show", "nowhere"), "There is no record"),
    "corrupted record": (("show", "garbage"), "is not a database"),
    "record cut short": (("search", *GOOD[:-1], "cut"), "is damaged"),
    "newer record": (("search", *GOOD[:-1], "newer"), "Use the release that wrote it"),
    "database of something else": (("front", "other"), "is no record of studies"),
    "unknown study": (("show", "run", "--study", "rn"), "Did you mean 'run'?"),
    "unknown trial": (("show", "run", 77), "no trial of the number or key '77'"),
    "unknown format": (("studies", "export", "run", "run", "x", "--format", "cvs"), "'csv'"),
    "file in the way": (("studies", "export", "run", "run", "no/such/x.csv"), "Cannot write"),
    "network without data": (("train", "input 1x8x8; gap; flatten; linear 10"), "Name the data"),
    "network of other data": (("train", "input 3x8x8; gap; flatten; linear 10", "--data", "digits"),
                              "the data 'digits' has images"),
}  # fmt: skip


@pytest.mark.parametrize("row", BAD)
def test_bad_input_is_one_line_and_loses_nothing(
    nas: Run, here: Path, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, message = BAD[row]
    assert nas("search", *GOOD)[0] == 0
    before = dump(here / "run")
    with monkeypatch.context() as patch:
        if row == "space that never ends":
            patch.setattr(asker, "ASK_SECONDS", 1.0)
        code, out, problems = nas(*arguments)
    assert message in problems
    assert problems.startswith("nas: ")
    assert problems.count("\n") == 1, problems
    assert (code, out) == (2, "")
    assert dump(here / "run") == before
    assert nas("search", *GOOD)[0] == 0, "the good study is still there and goes on"


def dump(place: Path) -> list[str]:
    """All that a record holds, but for who leads the studies."""
    with closing(sqlite3.connect(place / "record.db")) as db:
        return [line for line in db.iterdump() if '"event"' not in line and "lease" not in line]


@pytest.mark.parametrize(
    ("row", "workers", "reason"),
    [
        ("raises", 0, "ValueError: no such layer"),
        ("raises", 1, "ValueError: no such layer"),
        ("hangs", 0, "exceeded the limit of 0.6 s"),
        ("nan", 0, "The evaluator returned nan for score."),
        ("endless", 0, "The evaluator returned -inf for score."),
        ("words", 0, "The evaluator returned no number"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_candidate_that_goes_wrong_is_a_failed_trial(
    nas: Run, row: str, workers: int, reason: str
) -> None:
    evaluator = ("--evaluator", f"evaluators.py:{row}", "--objectives", "score:max,params")
    limits = ("--trial-minutes", 0.01, "--workers", workers, "--sampler", "random")
    code, out, _ = nas("search", "good.py", "--trials", 4, *evaluator, *limits, "--json")
    summary = json.loads(out)
    assert (code, summary["ending"], summary["complete"]) == (0, "done", 4)
    failed = [trial for trial in trials() if trial.state is TrialState.FAILED]
    assert len(failed) == summary["failed"] > 0
    for trial in failed:
        assert reason in trial.reason
        assert "\n" not in trial.reason
        assert trial.values.keys() >= {"params"}, "what was paid before is kept"
    assert not {trial.number for trial in failed} & {item["trial"] for item in summary["front"]}
    assert failed[0].reason in nas("show", "runs/good")[1]


def trials() -> list[TrialRecord]:
    with Workspace(Path("runs/good")).open(create=False) as repository:
        return repository.trials(repository.study("good").id)


@pytest.mark.usefixtures("here")
def test_a_training_that_runs_out_of_memory_is_a_failed_trial(nas: Run) -> None:
    """Networks of many terabytes among good ones; nothing can give them room."""
    from search_spaces.architecture import Architecture

    huge = Architecture.parse("input 1x8x8; conv 2000000000000 k3; gap; flatten; linear 10")
    Path("huge.json").write_text(json.dumps(huge.to_json()))
    settings = ("--objectives", "accuracy,params", "--enqueue", "huge.json", "--trials", 1)
    recipe = ("--recipe", "short?epochs=1", "--workers", 0)
    code, out, _ = nas("search", "good.py", *settings, *recipe, "--json")
    assert (code, json.loads(out)["complete"]) == (0, 1)
    first = trials()[0]
    assert (first.state, first.key) == (TrialState.FAILED, huge.key)
    assert first.reason.startswith("out of memory: ")


@pytest.mark.usefixtures("here")
def test_a_study_whose_candidates_all_fail_ends_with_code_1(nas: Run) -> None:
    settings = ("--objectives", "accuracy,params", "--workers", 1, "--max-failures", 1)
    limit = ("--trial-memory-mb", 50, "--trials", 3)
    code, out, _ = nas("search", "good.py", *settings, *limit, "--json")
    summary = json.loads(out)
    assert (code, summary["ending"], summary["complete"]) == (1, "failing", 0)
    assert "exceeded the limit of 50 MiB" in summary["message"]


def test_a_full_disk_is_one_line_before_anything_is_paid(
    nas: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up while something is saved is in test_faults.py and test_failures.py."""
    evaluator = ("--evaluator", "evaluators.py:raises", "--objectives", "score:max,params")
    arguments = ("search", "good.py", "--trials", 3, *evaluator, "--workers", 0)
    with monkeypatch.context() as full:
        full.setattr(supply, "MIN_FREE_BYTES", 1 << 60)
        code, out, problems = nas(*arguments)
    assert (code, out, problems.count("\n")) == (2, "", 1)
    assert "make room and give the same command to go on" in problems
    assert [trial.state for trial in trials()] == [TrialState.RUNNING]
    assert nas(*arguments)[0] == 0
    assert all(trial.state is not TrialState.RUNNING for trial in trials())


def test_a_file_in_the_way_of_a_result_is_one_line(nas: Run, here: Path) -> None:
    assert nas("search", *GOOD)[0] == 0
    (here / "run" / "front.csv").mkdir()
    code, _, problems = nas("front", "run")
    assert (code, problems.count("\n")) == (2, 1)
    assert "front.csv" in problems


def test_a_front_is_not_confirmed_by_another_recipe(nas: Run, here: Path) -> None:
    recipe = here / "mine.toml"
    recipe.write_text('base = "short"\nepochs = 1\n')
    settings = ("--objectives", "accuracy,params", "--recipe", "mine.toml", "--workers", 0)
    assert nas("search", "good.py", *settings, "--trials", 1)[0] == 0
    recipe.write_text('base = "short"\nepochs = 2\n')
    code, out, problems = nas("front", "runs/good", "--confirm", 2)
    assert (code, out, problems.count("\n")) == (2, "", 1)
    assert "The recipe is not what the study was made with" in problems
    code, _, problems = nas("search", "good.py", *settings, "--trials", 2)
    assert (code, "with recipe '" in problems) == (2, True)
