"""Architectures whose figures were all found out once: a table instead of training and measuring.

A table is one CSV file or several, plain or gzipped, UTF-8 with a header, joined by the column
``index``. The answers that lead to a row stand in a column ``arch_str`` (NAS-Bench-201's strings),
or in columns ``answer:QUESTION``, empty where the question is not asked. Other columns are figures.

A table judges searches: what one would have found can be told without paying for it.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evaluators.protocol import EvaluationError, Measured, Slot
from kernels.errors import NasError, UnknownNameError
from search_spaces.architecture import Architecture
from search_spaces.choose import Option
from search_spaces.errors import SpaceError
from search_spaces.space import DataSpec, Space
from search_spaces.zoo.nas_bench_201 import from_string

Column = npt.NDArray[np.float64]
Answers = tuple[tuple[str, str], ...]

INDEX = "index"
_STRING = "arch_str"
_ANSWER = "answer:"


@dataclass(frozen=True)
class Table:
    """Rows of architectures with what is known of them.

    Attributes:
        columns: texts by name of the column, one a row; ``index`` names the rows.
    """

    columns: Mapping[str, Sequence[str]]

    @classmethod
    def load(cls, paths: Sequence[Path | str]) -> Table:
        """Read a table from its files.

        Raises:
            NasError: a file cannot be read, its index is missing, repeats itself or is not that of
                the first file, or two files have a column of one name.
        """
        columns: dict[str, Sequence[str]] = {}
        for path in map(Path, paths):
            found = _read(path)
            places = {value: row for row, value in enumerate(found.get(INDEX, ()))}
            if not places or len(places) < len(found[INDEX]):
                raise NasError(f"{path}: expected a column {INDEX!r} that names each row once.")
            index = columns.setdefault(INDEX, found[INDEX])
            if places.keys() != set(index):
                raise NasError(f"{path}: its rows are not those of {paths[0]}.")
            del found[INDEX]
            if twice := found.keys() & columns.keys():
                raise NasError(f"{path}: another file has the column {min(twice)!r} too.")
            order = [places[value] for value in index]
            columns |= {name: [texts[row] for row in order] for name, texts in found.items()}
        if len(columns) < 2:
            raise NasError("Name at least one file of a table.")
        return cls(columns)

    def __len__(self) -> int:
        return len(self.columns[INDEX])

    def figures(self, name: str) -> Column:
        """Return a column of figures, (n,).

        Raises:
            NasError: there is no such column, or a row of it has no finite number.
        """
        if name not in self.columns:
            raise UnknownNameError("column of the table", name, self.columns)
        for index, text in zip(self.columns[INDEX], self.columns[name], strict=True):
            if not _is_finite(text):
                raise NasError(f"Column {name!r} has {text!r} in row {index}, expected a number.")
        return np.array(self.columns[name], dtype=np.float64)

    def row(self, decisions: Mapping[str, Option]) -> int:
        """Return the position of the row that answers lead to.

        Raises:
            EvaluationError: no row does.
        """
        answers = tuple(sorted((name, str(answer)) for name, answer in decisions.items()))
        if answers not in self._rows:
            raise EvaluationError(f"The table has no row for {dict(decisions)}.")
        return self._rows[answers]

    @cached_property
    def answers(self) -> list[dict[str, str]]:
        """The answers that lead to each row, as text.

        Raises:
            NasError: the table does not say.
        """
        if _STRING in self.columns:
            found = [from_string(line) for line in self.columns[_STRING]]
            return [{name: str(answer) for name, answer in row.items()} for row in found]
        asked = [name for name in self.columns if name.startswith(_ANSWER)]
        if not asked:
            raise NasError(
                f"The table does not say what its rows are: it needs {_STRING!r} or columns "
                f"'{_ANSWER}QUESTION'."
            )
        rows = zip(*(self.columns[name] for name in asked), strict=True)
        names = [name.removeprefix(_ANSWER) for name in asked]
        return [{name: text for name, text in zip(names, row, strict=True) if text} for row in rows]

    @cached_property
    def _rows(self) -> dict[Answers, int]:
        return {tuple(sorted(row.items())): place for place, row in enumerate(self.answers)}


class TabularEvaluator:
    """Looks figures up in a table; see :class:`evaluators.protocol.Evaluator`.

    The protocol knows an architecture and not the answers that led to it, so of rows that describe
    the same network it gives the first. Whoever has the answers asks :meth:`look_up`.

    Args:
        table: the table.
        columns: its columns by the metric they are.
        space: the space its rows are candidates of.
        data: what the space must know of the data.
    """

    slot: Slot = "inline"

    def __init__(
        self, table: Table, columns: Mapping[str, str], space: Space, data: DataSpec
    ) -> None:
        self.metrics = tuple(columns)
        self._table, self._space, self._data = table, space, data
        self._figures = {metric: table.figures(name) for metric, name in columns.items()}

    def cache_key(self, architecture: Architecture) -> str:
        """Return nothing: looking up again is as cheap."""
        return ""

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Return the figures of a network.

        The first call builds all networks of the table, which takes 3 ms each for NAS-Bench-201.

        Raises:
            EvaluationError: it is not in the table.
        """
        row = self._networks.get(architecture.key)
        if row is None:
            raise EvaluationError(f"The table has no row for {architecture.text}.")
        return self.look_up(row)

    def look_up(self, row: int) -> list[Measured]:
        """Return the figures of a row, by its position."""
        index = self._table.columns[INDEX][row]
        return [
            Measured(metric, float(column[row]), detail={"table_index": index})
            for metric, column in self._figures.items()
        ]

    @cached_property
    def _networks(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for row, answers in enumerate(self._table.answers):
            try:
                candidate = self._space.run(TextDecider(answers), self._data)
            except SpaceError as problem:
                raise NasError(
                    f"Row {self._table.columns[INDEX][row]} of the table: {problem}"
                ) from None
            found.setdefault(candidate.architecture.key, row)
        return found


class TextDecider:
    """Gives answers that are known as text."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = answers

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`search_spaces.choose.Decider`."""
        texts = [str(option) for option in options]
        answer = self._answers.get(name)
        if answer not in texts:
            raise SpaceError(f"it answers {name!r} with {answer!r}; the options are {texts}")
        return texts.index(answer)


def _read(path: Path) -> dict[str, list[str]]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, ValueError) as problem:
        raise NasError(f"Cannot read the table {path}: {problem}.") from None
    rows = list(csv.reader(io.StringIO(text, newline="")))
    header = rows[0] if rows else []
    if len(set(header)) != len(header):
        raise NasError(f"{path}: two columns have one name.")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise NasError(f"{path}, line {number}: expected {len(header)} cells, got {len(row)}.")
    return {name: [row[place] for row in rows[1:]] for place, name in enumerate(header)}


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
