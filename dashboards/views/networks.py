"""What the record says of the networks of trials: keys, texts, variants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dashboards.columns import StudyColumns
from dashboards.record import Reading, marks
from search_spaces.architecture.text import variants_by_kind

_AT_ONCE = 500


class Network(NamedTuple):
    """The network of a trial, by its key and its text form."""

    key: str
    text: str


def networks_of(
    columns: StudyColumns, connection: Reading, rows: Iterable[int], *, varied: bool = False
) -> dict[int, Network]:
    """Return the networks of rows.

    Args:
        columns: the study's trials.
        connection: to read by.
        rows: of the columns.
        varied: whether to leave out those without variants.
    """
    by_id = {int(columns.ids[row]): int(row) for row in rows}
    also = " AND a.text LIKE '%|%'" if varied else ""
    found = {}
    ids = list(by_id)
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        query = (
            "SELECT t.id, a.key, a.text FROM trial t JOIN architecture a "
            f"ON a.key = t.architecture_key WHERE t.id IN ({marks(part)}){also}"
        )
        found.update({by_id[r[0]]: Network(r[1], r[2]) for r in connection.execute(query, part)})
    return found


def variants_of(
    columns: StudyColumns, connection: Reading, rows: Iterable[int]
) -> Iterator[tuple[int, str]]:
    """Yield the rows whose networks have variants, and how many of which kind."""
    for row, network in networks_of(columns, connection, rows, varied=True).items():
        yield row, variants_by_kind(network.text)
