import doctest

import pytest

import kernels.registry
from kernels.errors import NasError, UnknownNameError
from kernels.registry import Registry


def _shapes() -> Registry[int]:
    shapes = Registry[int]("shape")
    for name, sides in (("square", 4), ("triangle", 3), ("trapezium", 4)):
        shapes.add(name, sides)
    return shapes


def test_get_returns_what_was_added() -> None:
    assert _shapes().get("triangle") == 3
    assert "triangle" in _shapes()
    assert "circle" not in _shapes()


def test_names_are_sorted_and_filtered_by_wildcard() -> None:
    assert _shapes().names() == ["square", "trapezium", "triangle"]
    assert _shapes().names("tr*") == ["trapezium", "triangle"]
    assert list(_shapes()) == [("square", 4), ("trapezium", 4), ("triangle", 3)]


def test_a_name_is_taken_once_and_the_first_entry_stays() -> None:
    shapes = _shapes()
    with pytest.raises(NasError, match="shape 'square' is registered twice"):
        shapes.add("square", 5)
    assert shapes.get("square") == 4


def test_an_unknown_name_lists_the_known_ones_and_the_closest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        _shapes().get("sqare")
    assert str(caught.value) == (
        "Unknown shape 'sqare'. Known: square, trapezium, triangle. Did you mean 'square'?"
    )


def test_register_is_a_decorator_that_returns_its_argument() -> None:
    rules = Registry[type]("rule")

    @rules.register("first")
    class First:
        pass

    assert rules.get("first") is First


def test_docstring_examples() -> None:
    assert doctest.testmod(kernels.registry).failed == 0
