from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.errors import NasError
from studies.pareto import dominates, hypervolume, non_dominated

# A coarse grid, so that ties and duplicates are common.
coordinate = st.integers(0, 5).map(float)
triple = st.tuples(coordinate, coordinate, coordinate)
points = st.lists(triple, max_size=15)
ways = st.tuples(*[st.sampled_from(["min", "max"])] * 3)


@given(triple, triple, triple, ways)
def test_dominance_is_a_strict_partial_order(a, b, c, directions):
    assert not dominates(a, a, directions)
    assert not (dominates(a, b, directions) and dominates(b, a, directions))
    if dominates(a, b, directions) and dominates(b, c, directions):
        assert dominates(a, c, directions)


@given(points, ways)
def test_the_front_is_what_nothing_dominates(rows, directions):
    expected = [
        index
        for index, row in enumerate(rows)
        if not any(dominates(other, row, directions) for other in rows)
    ]
    assert non_dominated(rows, directions) == expected


def test_duplicates_are_all_kept():
    assert non_dominated([(1, 2), (2, 1), (1, 2), (2, 2)], ["min", "min"]) == [0, 1, 2]


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_what_is_not_finite_is_never_on_a_front(bad):
    rows = [(0.5, 1.0), (bad, 0.0), (0.9, bad)]
    for directions in (["max", "min"], ["min", "max"], ["min", "min"]):
        assert non_dominated(rows, directions) == [0]
    assert non_dominated([(bad, bad)], ["min", "min"]) == []
    assert hypervolume(rows, (1.0, 2.0), ["min", "min"]) == 0.5


def test_nothing_has_no_front_and_no_volume():
    assert non_dominated([], ["min", "max"]) == []
    assert hypervolume([], (1.0, 1.0), ["min", "min"]) == 0.0


def test_one_objective_keeps_the_best_of_all():
    assert non_dominated([(3,), (1,), (2,), (1,)], ["min"]) == [1, 3]
    assert hypervolume([(3,), (1,)], (4,), ["min"]) == 3.0


@given(points, ways)
def test_hypervolume_counts_the_cells_it_covers(rows, directions):
    reference = [5.0 if direction == "min" else 0.0 for direction in directions]
    cells = {
        (x, y, z)
        for row in rows
        for x in _cells(row[0], directions[0])
        for y in _cells(row[1], directions[1])
        for z in _cells(row[2], directions[2])
    }
    assert hypervolume(rows, reference, directions) == pytest.approx(len(cells))


def _cells(value, direction):
    return range(int(value), 5) if direction == "min" else range(int(value))


@given(points, triple, ways)
def test_hypervolume_never_shrinks_with_a_point_more(rows, extra, directions):
    reference = [6.0 if direction == "min" else -1.0 for direction in directions]
    before = hypervolume(rows, reference, directions)
    after = hypervolume([*rows, extra], reference, directions)
    if any(dominates(row, extra, directions) or row == extra for row in rows):
        assert after == pytest.approx(before)
    else:
        assert after > before


def test_wrong_shapes_are_refused():
    with pytest.raises(NasError, match="2 objectives"):
        non_dominated([(1, 2, 3)], ["min", "min"])
    with pytest.raises(NasError, match="reference"):
        hypervolume([(1, 2)], (nan, 1), ["min", "min"])
