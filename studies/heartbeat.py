"""Keeps a driver's lease and claims alive while it works, and tells when they were lost."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

from kernels.errors import NasError
from studies.storage import Owner, RecordUnreachableError, Repository

LEASE_SECONDS = 90.0
"""How long a driver on another host may be silent before its study can be taken over."""
_PERIOD = LEASE_SECONDS / 6


class Heartbeat:
    """Holds the lease of a study as a context manager, renewed by a thread.

    Args:
        repository: the record.
        study_id: of the study.
        owner: this process.
        claimant: who claims evaluations; None: the owner.

    Raises:
        StudyBusyError: on entering, where another living driver holds it.
    """

    def __init__(
        self, repository: Repository, study_id: int, owner: Owner, claimant: Owner | None = None
    ) -> None:
        self._repository, self._study_id, self._owner = repository, study_id, owner
        self._claimant = claimant or owner
        self._stop = threading.Event()
        self._lost: NasError | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._repository.take_lease(self._study_id, self._owner, LEASE_SECONDS)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._owner.retire()
        # Where the record cannot be written, what is said already is the reason.
        with contextlib.suppress(NasError) if error is not None else contextlib.nullcontext():
            if self._lost is None:
                self._repository.drop_lease(self._study_id, self._owner)

    def check(self) -> None:
        """Raise where the lease was lost: another driver took the study over.

        Raises:
            NasError: the reason.
        """
        if self._lost is not None:
            raise self._lost

    def _beat(self) -> None:
        while not self._stop.wait(_PERIOD):
            try:
                self._repository.renew_lease(self._study_id, self._owner, LEASE_SECONDS)
                self._repository.renew_claims(self._claimant, LEASE_SECONDS)
            except RecordUnreachableError:
                continue  # nobody can take the lease over meanwhile; who writes waits and sees
            except NasError as problem:
                self._lost = problem
                return
