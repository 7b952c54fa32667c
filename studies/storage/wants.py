"""Figures that are needed: found in the record, or claimed by who is to pay for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from evaluators.protocol import Measured
from studies.storage import claims, writing
from studies.storage.claims import CLAIMS
from studies.storage.owner import Owner


@dataclass(frozen=True, slots=True)
class Want:
    """Figures that are needed, by the key they are found by."""

    key: str
    metrics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a want.

    Attributes:
        figures: in the order of its metrics, where they were paid for before; None otherwise.
        evaluation: id of the evaluation they come from.
        granted: whether they are the asker's to pay for; where they are not and there are no
            figures, another one is at it.
    """

    figures: tuple[Measured, ...] | None = None
    evaluation: int = 0
    granted: bool = False


def find_or_claim(
    connection: Connection, wants: Sequence[Want], claimant: Owner, seconds: float
) -> list[Answer]:
    """Return an answer a want; what is granted is claimed for so long, unless it is renewed."""
    if not wants:
        return []
    # Claims first: who gave one up has stored the result by then.
    mine = claims.claim_all(connection, [item.key for item in wants], claimant, seconds)
    known = writing.known_evaluations(connection, {item.key: item.metrics for item in wants})
    for key in mine & known.keys():
        claims.give_up(connection, CLAIMS, key, claimant)
    return [
        Answer(tuple(known[item.key][1]), known[item.key][0])
        if item.key in known
        else Answer(granted=item.key in mine)
        for item in wants
    ]
