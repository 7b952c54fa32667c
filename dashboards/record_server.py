"""A record in a PostgreSQL server: one connection, each question in a transaction that reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from dashboards.record import (
    Floats,
    Reading,
    Record,
    RecordError,
    Rows,
    Stamp,
    check_revision,
    number_table,
)
from studies.storage.models import VERSION_TABLE

if TYPE_CHECKING:
    import psycopg

CONNECT_SECONDS = 5
_STAMP = """
SELECT coalesce((SELECT max(id) FROM trial), 0), coalesce((SELECT max(id) FROM evaluation), 0),
       coalesce((SELECT max(id) FROM event), 0), coalesce((SELECT max(id) FROM artifact), 0),
       (SELECT count(*) FROM study), coalesce((SELECT max(id) FROM study), 0),
       coalesce((SELECT (extract(epoch FROM max(ended)) * 1000000)::bigint FROM
                 (SELECT ended FROM trial ORDER BY id DESC LIMIT 1000) AS newest), 0)
"""


class _Row(tuple[Any, ...]):
    """A row whose columns are known by name too."""

    __slots__ = ()
    names: dict[str, int]

    def __getitem__(self, place: Any) -> Any:
        return tuple.__getitem__(self, self.names[place] if isinstance(place, str) else place)


def _rows(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], _Row]:
    names = {column.name: place for place, column in enumerate(cursor.description or ())}
    return type("Row", (_Row,), {"names": names, "__slots__": ()})


class _ServerReading:
    """A connection as views ask it: their question marks become what psycopg takes."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Rows:
        return self._connection.execute(_translated(query), values)

    def table(self, query: str, values: Sequence[Any] = (), /) -> Floats:
        from psycopg.rows import tuple_row

        with self._connection.cursor(row_factory=tuple_row) as cursor:
            return number_table(cursor.execute(_translated(query), values).fetchall())


def _translated(query: str) -> bytes:
    return query.replace("%", "%%").replace("?", "%s").encode()


class ServerRecord(Record):
    """A record in a database server.

    Args:
        root: directory of the artifacts.
        url: ``postgresql://...``; SQLAlchemy's ``postgresql+psycopg://...`` too.

    Raises:
        RecordError: it is another kind of server, or psycopg is missing.
    """

    def __init__(self, root: Path, url: str) -> None:
        super().__init__(root)
        kind, _, rest = url.partition("://")
        if kind.partition("+")[0] not in ("postgresql", "postgres"):
            raise RecordError(f"A record is SQLite or PostgreSQL, got {kind}://...")
        self._url = f"postgresql://{rest}"
        self._lock = Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self.name = re.sub(r"//([^/@:]*):[^/@]*@", r"//\1@", self._url)  # without its password

    def stamp(self) -> Stamp:
        """Return the newest rows' numbers, and when a trial ended last."""
        try:
            with self.open() as connection:
                return Stamp(tuple(map(int, connection.execute(_STAMP).fetchone())), settled=True)
        except RecordError:
            return Stamp((), settled=True)  # the next question says what is wrong

    @contextmanager
    def open(self) -> Iterator[Reading]:
        """See :meth:`Record.open`."""
        import psycopg

        with self._lock:
            try:
                connection = self._connected()
                with connection.transaction():
                    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    reading = _ServerReading(connection)
                    self._check(reading)
                    yield reading
            except psycopg.Error as problem:
                if self._connection is not None and self._connection.broken:
                    self._connection = None
                reason = (str(problem).splitlines() or ["no reason was given"])[0]
                raise RecordError(f"Cannot read the record {self.name}: {reason}.") from problem

    def _connected(self) -> psycopg.Connection[Any]:
        import psycopg

        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                application_name="paretonas dashboard",
                row_factory=_rows,
            )
        return self._connection

    def _check(self, reading: Reading) -> None:
        (there,) = reading.execute("SELECT to_regclass(?)", (VERSION_TABLE,)).fetchone()
        if there is None:
            raise RecordError(f"{self.name} is no record of studies; give another workspace.")
        row = reading.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
        check_revision(self.name, None if row is None else row[0])
