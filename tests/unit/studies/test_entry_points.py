"""Spaces and evaluators that other installed distributions offer."""

import sys

import pytest

from kernels.errors import NasError
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space, space_names
from studies.search import run_study
from studies.storage import TrialState
from tests.unit.studies.fakes import cheap_config, recorded

MODULE = """
from search_spaces.builder import NetworkBuilder
from search_spaces.space import space

@space("their-space", version=3)
def their_space(choose, data):
    net = NetworkBuilder(data.input_shape)
    width = choose("width", [4, 6, 8, 12, 16])
    return net.classifier(net.conv(net.input, width, kernel=3), data.classes)

def tensors(model, data):
    return len(list(model.parameters()))
"""
ENTRIES = """
[paretonas.spaces]
their-space = their_package:their_space
no-space = their_package:tensors
torn-space = their_package:missing
[paretonas.evaluators]
tensors = their_package:tensors
torn = their_torn_package:tensors
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder as ``pip install`` leaves it."""
    site = tmp_path / "site"
    about = site / "their_package-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "their_package.py").write_text(MODULE)
    (site / "their_torn_package.py").write_text("raise OSError('a library\\nis missing')\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("their_package", None)


@pytest.mark.usefixtures("installed")
def test_a_study_of_an_installed_space_by_an_installed_evaluator(tmp_path):
    assert "their-space" in space_names()
    config = cheap_config(
        space="their-space",
        objectives=["tensors:min", "params"],
        evaluators=["tensors"],
        trials=3,
        workers=1,  # another process finds them too
    )
    summary = run_study(config, tmp_path / "w")
    assert (summary.complete, summary.failed) == (3, 0)
    complete = [trial for trial in recorded(tmp_path / "w") if trial.state is TrialState.COMPLETE]
    assert {trial.values["tensors"].value for trial in complete} == {5.0}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "their-spce"}, "Did you mean 'their-space'"),
        ({"space": "no-space"}, "no-space is not a space"),
        ({"space": "torn-space"}, r"'torn-space' \(their_package:missing\) cannot be loaded"),
        ({"evaluators": ["tensor"]}, "Did you mean 'tensors'"),
        ({"evaluators": ["torn"]}, "cannot be loaded: OSError: a library is missing"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(tmp_path, settings, message):
    with pytest.raises(NasError, match=message) as caught:
        run_study(cheap_config(objectives=["tensors:min"], **settings), tmp_path / "w")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "w" / "record.db").exists()


@pytest.mark.usefixtures("installed")
def test_an_installed_space_is_a_space_like_the_others():
    found = load_space("their-space")
    assert (found.name, found.version) == ("their-space", 3)
    assert found.size(DataSpec((1, 8, 8), 10)).count == 5
