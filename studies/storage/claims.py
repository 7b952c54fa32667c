"""Who works on what: claims on evaluations and leases of studies, both of which run out.

One is free when nobody holds it, when it has run out, or when its holder is a process of this host
that has ended. Taking it is one statement that names the holder it is taken from, so of several
processes that try at once one succeeds. A database server's clock decides what has run out, as
those of its clients may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, func, select, update

from studies.storage.database import insert_absent, insert_if_absent
from studies.storage.models import Claim, Lease, Study
from studies.storage.owner import Owner
from studies.storage.records import Holder, StudyBusyError

CLAIMS: Table = Claim.metadata.tables[Claim.__tablename__]
LEASES: Table = Lease.metadata.tables[Lease.__tablename__]


def take(
    connection: Connection, table: Table, key: str | int, owner: Owner, seconds: float
) -> Row[Any] | None:
    """Take something, or keep it for longer; return the row of who holds it if that is another."""
    (column,) = table.primary_key.columns
    now = clock(connection)
    held = _held(owner, now, seconds)
    if table is LEASES:
        held["sequence"] = 0
    while insert_if_absent(connection, table, {column.name: key, **held}) is None:
        found = _holder(connection, table, key)
        if found is None:  # given up in between
            continue
        if found.token == owner.token:
            del held["since"]
        elif _alive(found, now):
            return found
        there = update(table).where(column == key, table.c.token == found.token)
        if connection.execute(there.values(held)).rowcount:
            break
    return None


def claim_all(
    connection: Connection, keys: Sequence[str], owner: Owner, seconds: float
) -> set[str]:
    """Claim evaluations; return the keys of those that are the owner's now."""
    held = _held(owner, clock(connection), seconds)
    taken = insert_absent(connection, CLAIMS, [{"key": key, **held} for key in keys])
    # What is there may have run out.
    rest = [key for key in keys if key not in taken]
    return taken | {key for key in rest if take(connection, CLAIMS, key, owner, seconds) is None}


def clock(connection: Connection) -> datetime:
    """Return the moment by the clock that all who share the record go by."""
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


def renew(
    connection: Connection, table: Table, owner: Owner, seconds: float, key: str | int | None = None
) -> int:
    """Keep what an owner holds, or one thing of it, for longer; return how many things that is."""
    (column,) = table.primary_key.columns
    there = update(table).where(table.c.token == owner.token)
    if key is not None:
        there = there.where(column == key)
    expires = clock(connection) + timedelta(seconds=seconds)
    return connection.execute(there.values(expires=expires)).rowcount


def give_up(connection: Connection, table: Table, key: str | int, owner: Owner) -> None:
    """Free what an owner holds; nothing happens where it is another's."""
    (column,) = table.primary_key.columns
    connection.execute(delete(table).where(column == key, table.c.token == owner.token))


def give_up_all(connection: Connection, table: Table, owner: Owner) -> None:
    """Free all that an owner holds."""
    connection.execute(delete(table).where(table.c.token == owner.token))


def take_lease(connection: Connection, study_id: int, owner: Owner, seconds: float) -> None:
    """Make an owner the one driver of a study.

    Raises:
        StudyBusyError: another one is.
    """
    other = take(connection, LEASES, study_id, owner, seconds)
    if other is not None:
        raise _busy(connection, other)


def renew_lease(connection: Connection, study_id: int, owner: Owner, seconds: float) -> None:
    """Keep the lease of a study for longer.

    Raises:
        StudyBusyError: it is another's, or nobody's.
    """
    if not renew(connection, LEASES, owner, seconds, study_id):
        raise _lost(connection, study_id)


def count_write(connection: Connection, study_id: int, owner: Owner, number: int) -> None:
    """Note the number of a write in the lease: none is made without it, nor twice.

    Raises:
        StudyBusyError: the lease is another's, or nobody's; the transaction must not go on.
    """
    there = update(LEASES).where(LEASES.c.study_id == study_id, LEASES.c.token == owner.token)
    if not connection.execute(there.values(sequence=number)).rowcount:
        raise _lost(connection, study_id)


def last_write(connection: Connection, study_id: int, owner: Owner) -> int | None:
    """Return the number of an owner's newest write; None where the lease is not its own.

    Waits for a write of the same owner that the database is still at, on a connection that broke.
    """
    query = select(LEASES.c.token, LEASES.c.sequence).where(LEASES.c.study_id == study_id)
    row = connection.execute(query.with_for_update()).first()
    return row.sequence if row is not None and row.token == owner.token else None


def driver(connection: Connection, study_id: int) -> Holder | None:
    """Return who runs a study now."""
    row = _holder(connection, LEASES, study_id)
    alive = row is not None and _alive(row, clock(connection))
    return Holder(row.host, row.pid, row.since) if row is not None and alive else None


def _held(owner: Owner, now: datetime, seconds: float) -> dict[str, Any]:
    return {
        "token": owner.token,
        "host": owner.host,
        "pid": owner.pid,
        "process_started": owner.started,
        "since": now,
        "expires": now + timedelta(seconds=seconds),
    }


def _lost(connection: Connection, study_id: int) -> StudyBusyError:
    other = _holder(connection, LEASES, study_id)
    if other is not None:
        return _busy(connection, other)
    return StudyBusyError(
        "This process no longer leads its study: the lease was given up, or the study deleted. "
        "Run the same command to go on."
    )


def _busy(connection: Connection, other: Row[Any]) -> StudyBusyError:
    name = connection.execute(select(Study.name).where(Study.id == other.study_id)).scalar()
    return StudyBusyError(
        f"The study {name!r} is run by process {other.pid} on {other.host} since "
        f"{other.since:%Y-%m-%d %H:%M:%S} UTC; wait until it ends, or stop that process."
    )


def _holder(connection: Connection, table: Table, key: str | int) -> Row[Any] | None:
    (column,) = table.primary_key.columns
    return connection.execute(select(table).where(column == key)).first()


def _alive(row: Row[Any], now: datetime) -> bool:
    expires: datetime = row.expires
    if expires <= now:
        return False
    return not Owner(row.token, row.host, row.pid, row.process_started).dead
