"""What an export says: safe names whatever people chose, and source that reads like a person's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.export.names import one_line, safe_name
from search_spaces.export.reload_text import reload_text
from search_spaces.export.values import Facts, Figure, Form, Format, Preprocessing
from search_spaces.export.write import Order, export_network
from search_spaces.ops import Conv, Input, parse_op
from search_spaces.source import Form as SourceForm
from search_spaces.source import generate
from search_spaces.source_layout import import_lines
from search_spaces.space import EXAMPLES
from search_spaces.zoo import load_space, space_names
from tests.exporting import reloaded_differences, trained
from tests.unit.search_spaces.test_ops import CASES

NET = Architecture.parse(
    "input 3x6x6; conv 8 k3 bn relu; sliding 8 bn; dropout p0.1 path; add @1,3; gap; flatten; "
    "linear 3"
)

# Names that people chose.

HOSTILE = [
    *("../../etc/passwd", "/etc/passwd", "a'b\"c", "line\nbreak", "class", "", ".", "..", "-rf"),
    *("x" * 10_000, "con", "NUL.txt", "\0", "\ud800", "变量", "a b", "$(reboot)", "`id`", "%s{0}"),
    *("C:\\Windows", "a/../b", "trailing.", " ", "~root", "a|b", "<script>", "name\u202etxt"),
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:20])
def test_hostile_names_give_safe_files(name: str) -> None:
    made = safe_name(name)
    assert 0 < len(made) <= 60
    assert made.isascii()
    assert made[0].isalnum()
    assert not set(made) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert ".." not in made
    assert made.split(".")[0].lower() not in {"con", "nul"}
    assert safe_name(made) == made


@pytest.mark.parametrize("to", ["python", "pt2", "onnx"])
def test_hostile_layers_are_exported_under_safe_names(to: Format, tmp_path: Path) -> None:
    x = Value(Input.of(shape=(4, 5, 5)), (), HOSTILE[0])
    for scope in [*HOSTILE, "forward", "training", "self", "torch", "lambda", "__class__"]:
        x = Value(Conv.of(4, 1, norm="bn", act="tanh"), (x,), scope)
    found = reloaded_differences([Architecture.freeze(x)], tmp_path, (to,))
    assert isinstance(found[0, to], float)
    assert found[0, to] <= 1e-5  # type: ignore[operator]
    assert all(item.is_file() for item in (tmp_path / "net0").iterdir())
    assert sorted(item.name for item in tmp_path.iterdir()) == [f"cases0-{to}", "net0"]


def test_safe_names_stay_apart_and_good_ones_as_they_are() -> None:
    assert len({safe_name(name) for name in HOSTILE}) == len(HOSTILE)
    assert [safe_name(name) for name in ("digits", "run-2_b.v1")] == ["digits", "run-2_b.v1"]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:20])
def test_hostile_names_stay_within_their_line_of_the_card(name: str) -> None:
    def card(text: str) -> str:
        facts = Facts(text, text, 1, {text: Figure(1.0, unit=text)}, {text: text}, {text: text})
        classes = Preprocessing((3, 6, 6), (0.1,) * 3, (0.2,) * 3, (text, "dog", "hen"))
        return Order(facts=facts, preprocessing=classes).card(NET)

    written = card(name)
    assert len(written.splitlines()) <= len(card("digits").splitlines()) + 1
    assert "<script>" not in written
    assert max(map(len, written.splitlines())) < 700
    written.encode()


def test_a_line_of_markdown_is_one_line() -> None:
    assert one_line("a\n# b | `c` <d>") == r"a \# b \| \`c\` \<d\>"
    assert one_line("peak_memory_mb _d_") == r"peak_memory_mb \_d\_"
    assert len(one_line("x" * 10_000)) == 120


# Text that a person might have written.


PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def _ruff(*arguments: str) -> str:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    done = subprocess.run([ruff, *arguments], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout[-3000:] + done.stderr[-500:]


def _assert_clean(folder: Path) -> None:
    """Hold generated files to the rules that this project's own files keep."""
    options = ("--config", str(PROJECT), "--no-cache")
    scripts = ("--per-file-ignores", "reload.py:T201")  # a script prints
    assert not _ruff("check", str(folder), *options, *scripts)
    assert not _ruff("format", "--check", "--diff", str(folder), *options)


@pytest.mark.parametrize("to", [("python",), ("python", "safetensors")])
@pytest.mark.parametrize("form", ["plain", "packed"])
def test_every_python_file_is_formatted_and_clean(
    form: Form, to: tuple[Format, ...], tmp_path: Path
) -> None:
    export_network(NET, trained(NET), tmp_path / "out", Order(form=form, to=to))
    _assert_clean(tmp_path / "out")


@pytest.mark.parametrize("form", ["plain", "packed"])
def test_the_script_of_a_language_model_is_formatted_and_clean(form: Form, tmp_path: Path) -> None:
    for weights in (False, True):
        script = reload_text(form, ("kernels.errors",), weights=weights, language=True)
        (tmp_path / str(weights)).mkdir()
        (tmp_path / str(weights) / "reload.py").write_text(script)
    _assert_clean(tmp_path)


@pytest.mark.parametrize("join", ["add", "concat"])
def test_sums_and_joins_of_any_width_are_formatted(join: str, tmp_path: Path) -> None:
    for count in (2, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 60):
        branches = "; ".join(f"conv 4 k{2 * i + 1} @0" for i in range(count))
        numbers = ",".join(str(i + 1) for i in range(count))
        source = generate(Architecture.parse(f"input 4x9x9; {branches}; {join} @{numbers}"))
        (tmp_path / f"net{count}.py").write_text(source)
    _assert_clean(tmp_path)


def test_many_inputs_and_long_names_are_formatted(tmp_path: Path) -> None:
    for count in (1, 2, 3, 4, 5, 6, 7, 8, 20):
        inputs = [Value(Input.of(shape=(4, 5, i + 1)), (), f"in{i}") for i in range(count)]
        wide = [Value(Conv.of(4, 1), (x,), f"{'long/' * 20}{i}") for i, x in enumerate(inputs)]
        pooled = [Value(parse_op("gap"), (x,), "") for x in wide]
        joined = Value(parse_op("concat"), tuple(pooled), "join") if count > 1 else pooled[0]
        (tmp_path / f"net{count}.py").write_text(generate(Architecture.freeze(joined)))
    _assert_clean(tmp_path)


@pytest.mark.parametrize("form", ["plain", "native"])
def test_every_operator_is_formatted(form: SourceForm, tmp_path: Path) -> None:
    for kind, rows in CASES.items():
        for number, (text, shapes) in enumerate(rows):
            sources = [Value(Input.of(shape=s), (), f"in{i}") for i, s in enumerate(shapes)]
            network = Architecture.freeze(Value(parse_op(text), tuple(sources), "here"))
            path = tmp_path / f"{kind}{number}.py".replace("-", "_")
            path.write_text(generate(network, form=form))
    _assert_clean(tmp_path)


@pytest.mark.parametrize("form", ["plain", "native"])
def test_candidates_of_every_space_are_formatted(form: SourceForm, tmp_path: Path) -> None:
    for space in map(load_space, space_names()):
        for seed in range(5):
            network = space.sample(Random(seed), EXAMPLES[space.reads]).architecture
            path = tmp_path / f"{space.name}{seed}.py".replace("-", "_")
            path.write_text(generate(network, form=form))
    _assert_clean(tmp_path)


def test_imports_of_many_layers_stand_on_lines_of_their_own() -> None:
    assert import_lines("layers", ["Cache", "Rotary"]) == ["from layers import Cache, Rotary"]
    long = ["A" * 50, "B" * 50]
    lines = import_lines("layers", long)
    assert lines == ["from layers import (", f"    {long[0]},", f"    {long[1]},", ")"]


def test_blocks_stand_apart_and_the_shapes_are_said() -> None:
    x = Value(Input.of(shape=(3, 8, 8)), (), "")
    for scope in ("stem", "s0/a", "s0/b", "s1/b0/c", "s1/b0/d/e", "s1/b1/c", "head"):
        x = Value(Conv.of(4, 3, act="relu"), (x,), scope)
    lines = [line.strip() for line in generate(Architecture.freeze(x)).splitlines()]
    forward = lines[lines.index("def forward(self, x: torch.Tensor) -> torch.Tensor:") + 1 :]
    assert forward == [
        '"""Map x (b, 3, 8, 8) to (b, 4, 8, 8)."""',
        "x = self.stem(x)  # 4 x 8 x 8",
        "",
        "x = self.s0_a(x)  # 4 x 8 x 8",
        "x = self.s0_b(x)  # 4 x 8 x 8",
        "",
        "x = self.s1_b0_c(x)  # 4 x 8 x 8",
        "x = self.s1_b0_d_e(x)  # 4 x 8 x 8",
        "",
        "x = self.s1_b1_c(x)  # 4 x 8 x 8",
        "",
        "return self.head(x)  # 4 x 8 x 8",
    ]
