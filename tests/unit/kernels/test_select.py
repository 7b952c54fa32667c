import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import kernels
import kernels.environment
import kernels.select as select_module
from kernels.device import Device
from kernels.errors import NasError, UnknownNameError
from kernels.registry import Registry
from kernels.select import (
    Implementation,
    explain,
    implementations,
    load,
    register_implementation,
    select,
)
from kernels.workload import Workload

CPU = Device("cpu", 0, "test CPU", None, 2, 1 << 30)
CARD = Device("cuda", 0, "test card", (9, 0), 132, 80 << 30)
WORK = Workload("toy", ((1, 4),), (1, 4), (("width", 4),))


def _needs_card(workload: Workload, device: Device) -> str | None:
    return None if device.kind == "cuda" else "needs a GPU"


def _needs_eight(workload: Workload, device: Device) -> str | None:
    return None if workload.attr("width") == 8 else "width is not 8"


def _always(workload: Workload, device: Device) -> str | None:
    return None


@pytest.fixture(autouse=True)
def toy_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swap the registry for one with a toy operator; the systems are enrolled in the real one."""
    implementations("sliding_channel")
    monkeypatch.setattr(select_module, "_REGISTRY", Registry("implementation"))
    monkeypatch.delenv("NAS_KERNEL_TOY", raising=False)
    for name, refuses, preference in (
        ("plain", _always, 0),
        ("fast", _needs_card, 20),
        ("eight", _needs_eight, 30),
        ("better", _always, 10),
    ):
        register_implementation(
            Implementation("toy", name, "math:floor", refuses, preference, f"the {name} one")
        )


def test_the_most_preferred_that_does_not_refuse_is_chosen() -> None:
    assert select(WORK, CPU).name == "better"
    assert select(WORK, CARD).name == "fast"
    assert select(Workload("toy", (), (), (("width", 8),)), CPU).name == "eight"
    assert [entry.name for entry in implementations("toy")] == ["eight", "fast", "better", "plain"]


def test_equal_preference_goes_by_name() -> None:
    for name in ("b", "a", "c"):
        register_implementation(Implementation("tie", name, "math:floor", _always, 1, ""))
    assert select(Workload("tie", (), ()), CPU).name == "a"


def test_force_takes_any_that_can_run() -> None:
    assert select(WORK, CPU, force="plain").name == "plain"


def test_a_forced_one_that_refuses_raises_with_its_reason() -> None:
    with pytest.raises(NasError, match=r"'fast' cannot run toy.*test CPU.*: needs a GPU\."):
        select(WORK, CPU, force="fast")


def test_the_environment_forces_and_the_argument_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_KERNEL_TOY", "plain")
    assert select(WORK, CPU).name == "plain"
    assert select(WORK, CPU, force="better").name == "better"
    monkeypatch.setenv("NAS_KERNEL_TOY", "eight")
    with pytest.raises(NasError, match=r"'eight' cannot run.*width is not 8.*NAS_KERNEL_TOY"):
        select(WORK, CPU)
    monkeypatch.setenv("NAS_KERNEL_TOY", "")
    assert select(WORK, CPU).name == "better"


def test_a_forced_name_that_does_not_exist_raises() -> None:
    with pytest.raises(UnknownNameError, match=r"implementation of toy 'betr'.*'better'\?"):
        select(WORK, CPU, force="betr")


def test_nothing_that_runs_raises_with_every_reason() -> None:
    register_implementation(Implementation("hard", "x", "math:floor", _needs_card, 1, ""))
    register_implementation(Implementation("hard", "y", "math:floor", _needs_eight, 0, ""))
    work = Workload("hard", (), (), (("width", 4),))
    with pytest.raises(NasError, match=r"x: needs a GPU; y: width is not 8\."):
        select(work, CPU)
    assert {choice.status for choice in explain(work, CPU).choices} == {"refused"}


def test_an_unknown_operator_and_a_double_name_raise() -> None:
    with pytest.raises(UnknownNameError, match="Unknown operator 'toi'"):
        select(Workload("toi", (), ()), CPU)
    with pytest.raises(NasError, match="twice"):
        register_implementation(Implementation("toy", "plain", "math:ceil", _always, 0, ""))


def test_explain_agrees_with_select_and_prints_a_table() -> None:
    explanation = explain(WORK, CPU)
    assert [(choice.implementation.name, choice.status) for choice in explanation.choices] == [
        ("eight", "refused"),
        ("fast", "refused"),
        ("better", "chosen"),
        ("plain", "available"),
    ]
    assert str(explanation).splitlines() == [
        "toy[1x4 width=4] dense float32 contiguous on cpu (test CPU)",
        "  eight   refused    width is not 8",
        "  fast    refused    needs a GPU",
        "  better  chosen     the better one",
        "  plain   available  the plain one",
    ]


def test_explain_shows_what_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_KERNEL_TOY", "plain")
    explanation = explain(WORK, CPU)
    assert explanation.forced == "plain"
    assert [choice.status for choice in explanation.choices][2:] == ["available", "chosen"]
    assert "forced: NAS_KERNEL_TOY=plain" in str(explanation)
    monkeypatch.setenv("NAS_KERNEL_TOY", "fast")
    assert "chosen" not in {choice.status for choice in explain(WORK, CPU).choices}


def test_load_imports_the_function() -> None:
    assert load(select(WORK, CPU))(2.5) == 2


@pytest.mark.parametrize("entry", ["math:no_such", "no_such_module_here:f"])
def test_load_names_what_is_missing(entry: str) -> None:
    with pytest.raises(NasError, match=f"'x' of toy cannot be loaded from '{entry}'"):
        load(Implementation("toy", "x", entry, _always, 0, ""))


def test_choosing_imports_no_torch_and_the_package_has_no_version() -> None:
    code = (
        "import sys, kernels, kernels.device, kernels.select as s\n"
        "from kernels.sliding_channel.implementations import sliding_channel_workload as w\n"
        "print(s.explain(w((1, 8, 2, 2), 8, cg=2, co=0.5), kernels.device.detect('cpu')))\n"
        "assert 'torch' not in sys.modules\n"
        "assert not hasattr(kernels, '__version__')\n"
    )
    root = Path(kernels.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "chosen" in done.stdout


def test_docstring_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert doctest.testmod(select_module).failed == 0
    assert doctest.testmod(kernels.environment).failed == 0
