"""Results on disk before they are reported, so that they outlive the driver that asked for them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from evaluators.protocol import Measured
from studies.executors.protocol import Outcome

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outbox:
    """A folder of successful outcomes by cache key, one JSON file each.

    A file is complete whenever it is there, also after a loss of power. Its name is a hash of the
    key, as keys may hold anything; the key is in the file.

    Attributes:
        folder: made when the first result is put.
    """

    folder: Path

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep a result; one that failed or has no key is nothing to come back to.

        Raises:
            OSError: it cannot be written.
            TypeError: a detail is not JSON.
        """
        if not key or outcome.reason is not None:
            return
        content = json.dumps({"key": key, "outcome": _write(outcome)}, allow_nan=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(
            mode="w",
            encoding="utf-8",
            dir=self.folder,
            prefix=_name(key),
            suffix=".part",
            delete=False,
        ) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(self._path(key))
        _sync_folder(self.folder)

    def get(self, key: str) -> Outcome | None:
        """Return a result; None where there is none. A damaged file is removed."""
        path = self._path(key)
        found = _read(path)
        if found is None or found[0] != key:
            path.unlink(missing_ok=True)
            return None
        return found[1]

    def remove(self, key: str) -> None:
        """Forget a result, and what a writer that was killed left of it."""
        for path in self.folder.glob(f"{_name(key)}*"):
            path.unlink(missing_ok=True)

    def keys(self) -> list[str]:
        """Return the keys of all results, sorted."""
        return sorted(self._keys())

    def _keys(self) -> Iterator[str]:
        for path in self.folder.glob("*.json"):
            found = _read(path)
            if found is not None:
                yield found[0]

    def _path(self, key: str) -> Path:
        return self.folder / f"{_name(key)}.json"


def _name(key: str) -> str:
    return blake2b(key.encode(), digest_size=16).hexdigest()


def _write(outcome: Outcome) -> dict[str, Any]:
    return {
        "job": outcome.job,
        "measured": [asdict(item) for item in outcome.measured],
        "started": outcome.started.isoformat(),
        "ended": outcome.ended.isoformat(),
        "worker": outcome.worker,
        "attempts": outcome.attempts,
    }


def _read(path: Path) -> tuple[str, Outcome] | None:
    try:
        document = json.loads(path.read_bytes())
        fields = document["outcome"]
        times = {name: datetime.fromisoformat(fields[name]) for name in ("started", "ended")}
        measured = tuple(Measured(**item) for item in fields["measured"])
        return document["key"], Outcome(**{**fields, **times, "measured": measured, "reason": None})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as problem:
        _log.warning("The result %s is damaged and not used: %s", path, problem)
        return None


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
