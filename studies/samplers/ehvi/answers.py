"""Answers to questions as vectors, so that points that were asked other questions compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from search_spaces.choose import Option

Array = npt.NDArray[np.float64]


def encode(position: int, options: Sequence[Option]) -> Array:
    """Return the vector of an answer; half its squared distance to another is between 0 and 1.

    Two answers differ by 1; where all options are numbers, by one half, and by up to another half
    as far as they are apart in rank.

    Example:
        >>> encode(1, ["conv", "pool"]).tolist()
        [0.0, 1.0]
    """
    count = len(options)
    chosen = np.zeros(count)
    chosen[position] = 1.0
    if count < 3 or not all(_is_number(item) for item in options):
        return chosen
    order = sorted(range(count), key=lambda index: (options[index], index))
    steps = (np.arange(count - 1) < order.index(position)) / np.sqrt(count - 1)
    return np.concatenate([chosen * np.sqrt(0.5), steps])


Columns = Mapping[str, tuple[int, int]]
"""Where the vectors of a question begin and end, by question."""


def columns_of(points: Iterable[Mapping[str, Array]]) -> Columns:
    """Lay out the questions that points were asked.

    Args:
        points: answers by question.
    """
    widths = {name: len(vector) for answers in points for name, vector in answers.items()}
    columns: dict[str, tuple[int, int]] = {}
    end = 0
    for name in sorted(widths):
        columns[name] = (end, end + widths[name])
        end += widths[name]
    return columns


def stack(points: Sequence[Mapping[str, Array]], columns: Columns) -> tuple[Array, Array]:
    """Return the answers of points as rows, and the squared lengths of all their answers.

    A question that was not asked is all zeros. One without columns has a part in the length only.

    Args:
        points: answers by question, n points.
        columns: of the questions that have some, d in all.

    Returns:
        (n, d) and (n,).
    """
    rows = np.zeros((len(points), max((end for _, end in columns.values()), default=0)))
    vectors = [vector for answers in points for vector in answers.values()]
    if not vectors:
        return rows, np.zeros(len(points))
    begins = {name: begin for name, (begin, _) in columns.items()}
    to = np.array([begins.get(name, -1) for answers in points for name in answers])
    widths = np.fromiter(map(len, vectors), dtype=np.intp, count=len(vectors))
    figures = np.concatenate(vectors)
    within = np.arange(len(figures)) - np.repeat(np.cumsum(widths) - widths, widths)
    points_of = np.repeat(np.arange(len(points)), [len(answers) for answers in points])
    row = np.repeat(points_of, widths)
    kept = np.repeat(to >= 0, widths)
    rows[row[kept], (np.repeat(to, widths) + within)[kept]] = figures[kept]
    lengths: Array = np.bincount(row, figures**2, minlength=len(points)).astype(np.float64)
    return rows, lengths


def _is_number(option: Option) -> bool:
    return isinstance(option, int | float) and not isinstance(option, bool)
