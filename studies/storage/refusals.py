"""Why a database cannot be used, said in one line; and whether it may answer later."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from kernels.errors import NasError
from studies.storage.records import RecordUnreachableError

LOCK_SECONDS = 30
"""How long a writer waits for another; a transaction of ours takes milliseconds."""

_REASONS = {
    "not a database": "{name} is not a database; give another workspace.",
    "malformed": "The record {name} is damaged ({reason}); put back a copy of it, or save what can "
    "be read with 'sqlite3 {name} .recover'.",
    "No space left": "There is no room left on the server of the record {name}; what it held "
    "before is safe. Free some space and run the same command.",
    "readonly": "The record {name} is read-only; make the file and its directory writable, or "
    "give another workspace.",
    "full": "There is no room left to write the record {name}; what it held before is safe. Free "
    "some space and run the same command.",
    "unable to open": "Cannot open the record {name}; check that its directory exists and that "
    "you may read and write it.",
    "locked": "Another process has kept the record {name} busy for "
    f"{LOCK_SECONDS} s; stop it, or try again later.",
}
"""What to say by what the database's message contains."""

_UNREACHABLE = (
    "The database {name} does not answer ({reason}); start it, or check the address, and run the "
    "same command."
)
_FINAL = ("authentication failed", "does not exist", "no pg_hba.conf entry", "permission denied")
"""What a server says that answers, but will never let this client in."""
_LATER = ("08", "57P", "53300", "55P03", "40001", "40P01")
"""Beginnings of SQLSTATEs after which the same may succeed: the connection or the server is gone,
too many clients, a lock or a deadlock."""


@contextmanager
def explained(engine: Engine) -> Iterator[None]:
    """Turn what a database raises into one line.

    Raises:
        RecordUnreachableError: it may answer later.
        NasError: it refused.
    """
    try:
        yield
    except IntegrityError as problem:
        raise NasError(
            f"{name_of(engine)} refused a row ({str(problem.orig).splitlines()[0]}); does another "
            "process run this study?"
        ) from problem
    except (SQLAlchemyError, sqlite3.Error) as problem:
        reason = str(getattr(problem, "orig", None) or problem).splitlines()[0]
        later = is_outage(problem)
        sentence = next(
            (text for part, text in _REASONS.items() if part in reason),
            _UNREACHABLE if later else "Cannot use the record {name}: {reason}.",
        )
        kind = RecordUnreachableError if later else NasError
        raise kind(sentence.format(name=name_of(engine), reason=reason)) from problem
    except JSONDecodeError as problem:
        raise NasError(
            f"The record {name_of(engine)} is damaged: a row holds no JSON ({problem}); put back "
            "a copy of it."
        ) from problem


def is_outage(problem: Exception) -> bool:
    """Tell whether the same could succeed later: the server is away, or somebody keeps a lock."""
    if not isinstance(problem, DBAPIError):
        return False
    text = str(problem.orig)
    if isinstance(problem.orig, sqlite3.Error):
        return "locked" in text
    if any(part in text for part in _FINAL):
        return False
    state = getattr(problem.orig, "sqlstate", None)
    if state is None:  # no answer at all
        return problem.connection_invalidated or isinstance(problem, OperationalError)
    return str(state).startswith(_LATER)


def name_of(engine: Engine) -> str:
    """Return what people know the database by: its file, or its URL without the password."""
    if engine.url.get_backend_name() == "sqlite" and engine.url.database:
        return engine.url.database
    return engine.url.render_as_string(hide_password=True)
