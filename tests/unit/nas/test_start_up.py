"""The command line and the Python face start at once: nothing heavy loads before it is needed."""

from __future__ import annotations

import subprocess
import sys
import time

HEAVY = (
    "torch",
    "ray",
    "plotly",
    "optuna",
    "sqlalchemy",
    "cupy",
    "torchvision",
    "sklearn",
    "numpy",
)


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_nas_loads_nothing_heavy() -> None:
    assert not _modules_after("import nas") & set(HEAVY)


def test_command_line_module_loads_nothing_heavy() -> None:
    assert not _modules_after("import nas.cli") & set(HEAVY)


def test_spaces_and_scores_need_no_torch() -> None:
    statement = (
        "from random import Random; import nas; from evaluators.cost import analytic_cost; "
        "from evaluators.proxies.receptive_field import receptive_field; "
        "a = nas.load_space('mobile-cnn').sample(Random(0), nas.DataSpec((3, 32, 32), 10))"
        ".architecture; analytic_cost(a); receptive_field(a)"
    )
    assert not _modules_after(statement) & set(HEAVY)


def test_help_answers_within_the_limit() -> None:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "nas", "--help"], capture_output=True, text=True, check=True
        )
        times.append(time.perf_counter() - start)
        assert "search" in done.stdout
    assert min(times) <= 0.3, f"fastest of five took {min(times):.2f} s"


def test_every_public_name_loads() -> None:
    import nas

    assert all(getattr(nas, name) is not None for name in nas.__all__)
