"""The rules of the house that no linter knows, and every example in a docstring."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("kernels", "search_spaces", "evaluators", "studies", "dashboards", "nas")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

PAGES = sorted((ROOT / "dashboards" / "static").rglob("*.*"))


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _examples() -> list[tuple[str, ModuleType]]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for path in FILES:
        if ">>>" in path.read_text(encoding="utf-8") and path.name != "__main__.py":
            module = importlib.import_module(_module_name(path))
            found += [(test.name, module) for test in finder.find(module) if test.examples]
    return found


@pytest.mark.parametrize(("name", "module"), _examples(), ids=lambda item: str(item))
def test_examples_in_docstrings(name: str, module: ModuleType) -> None:
    from search_spaces.builder import NetworkBuilder
    from search_spaces.space import DataSpec

    extra = {"NetworkBuilder": NetworkBuilder, "DataSpec": DataSpec}
    tests = {test.name: test for test in doctest.DocTestFinder().find(module, extraglobs=extra)}
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(tests[name])
    assert results.attempted > 0
    assert results.failed == 0


def test_kernels_has_no_version() -> None:
    """Hugging Face ships a package of that name; its users test for a range of versions."""
    import kernels

    assert not hasattr(kernels, "__version__")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_of_the_page_stay_readable(path: Path) -> None:
    """A script is at most 400 lines; no line of it or of the style is over 100 columns."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 400 or path.suffix != ".js"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    """A file is at most 400 lines, a function at most 60; the environment is read in one place."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= 60, f"{node.name} is too long"
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            assert path.relative_to(ROOT) == Path("kernels/environment.py")
