import json

import pytest

from kernels.errors import NasError, UnknownNameError
from studies.config import StudyConfig

GIVEN = {"name": "a", "space": "mobile-cnn-small", "data": "digits"}


def test_json_reads_back():
    config = StudyConfig(**GIVEN, objectives=["accuracy", "latency_ms[batch=1]"], seed=7)
    assert config.objectives == ("accuracy", "latency_ms")
    assert StudyConfig(**json.loads(json.dumps(config.to_json()))) == config


def test_a_file_is_read_and_overridden(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('name="a"\nspace="x"\ndata="digits"\nobjectives=["params"]\ntrials=3\n')
    config = StudyConfig.from_toml(path, trials=4)
    assert (config.objectives, config.trials) == (("params",), 4)
    assert [str(target) for target in config.targets] == ["params"]


def test_it_is_frozen():
    with pytest.raises(Exception, match="frozen"):
        StudyConfig(**GIVEN).trials = 3


def test_unknown_settings_come_with_a_suggestion():
    with pytest.raises(UnknownNameError, match="Did you mean 'trials'"):
        StudyConfig(**GIVEN, trails=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a b"}, "'name'"),
        ({"name": ""}, "'name'"),
        ({"space": ""}, "'space'"),
        ({"objectives": []}, "'objectives'"),
        ({"objectives": ["params", "params"]}, "'objectives'"),
        ({"objectives": ["latency_ms", "latency_ms[batch=1]"]}, "each once"),
        ({"objectives": ["accuracc"]}, "Did you mean 'accuracy'"),
        ({"objectives": "accuracy"}, "'objectives'"),
        ({"trials": 0}, "'trials'.*greater than or equal to 1, got 0"),
        ({"trials": "5"}, "'trials'"),
        ({"trials": True}, "'trials'"),
        ({"seed": -1}, "'seed'"),
        ({"threads": 0}, "'threads'"),
        ({"recipe": "digits-shrt"}, "Did you mean 'digits-short'"),
        ({"sampler": "tpee"}, "Did you mean 'tpe'"),
        ({"sampler": 3}, "'sampler'"),
        ({"workers": -1}, "'workers'"),
        ({"lookahead": 0}, "'lookahead'"),
        ({"minutes": 0}, "'minutes'"),
        ({"constraints": ["params<5"]}, "metric<=number"),
        ({"constraints": ["prams<=5"]}, "Did you mean 'params'"),
        ({"constraints": ["test_accuracy>=0.5"]}, "spoil"),
        ({"funnel": ["rf_gan:0.5"]}, "Did you mean 'rf_gain'"),
        ({"funnel": ["rf_gain:half"]}, "METRIC:SHARE"),
        ({"funnel": ["rf_gain"]}, "METRIC:SHARE"),
        ({"funnel": [{"by": "rf_gain", "keep": 1.5}]}, "'funnel.0.keep'"),
        ({"funnel": [{"by": "rf_gain", "kep": 0.5}]}, "of funnel 'kep'.*Did you mean 'keep'"),
        ({"max_repeats": 0}, "'max_repeats'"),
    ],
)
def test_bad_values_give_one_clear_line(settings, message):
    with pytest.raises(NasError, match=message) as caught:
        StudyConfig(**{**GIVEN, **settings})
    assert "\n" not in str(caught.value)


def test_a_share_alone_keeps_the_best_by_the_joint_rank():
    config = StudyConfig(**{**GIVEN, "funnel": ["0.5", "rf_gain:0.25"]})
    assert [(gate.by, gate.keep) for gate in config.funnel] == [
        ("joint_rank", 0.5),
        ("rf_gain", 0.25),
    ]


def test_a_missing_setting_is_named():
    with pytest.raises(NasError, match="'space': Field required"):
        StudyConfig(name="a", data="digits")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "study.toml"
    with pytest.raises(NasError, match=r"study\.toml"):
        StudyConfig.from_toml(path)
    path.write_text("name = ")
    with pytest.raises(NasError, match=r"study\.toml"):
        StudyConfig.from_toml(path)
    path.write_text('nam = "a"')
    with pytest.raises(NasError, match=r"study.toml: Unknown setting 'nam'"):
        StudyConfig.from_toml(path)
