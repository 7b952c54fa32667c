"""What every sampler does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Protocol

from search_spaces.choose import Option
from search_spaces.space import Candidate


class Sampler(Protocol):
    """Proposes candidates and learns from what they were worth.

    A sampler is a function of its seed, of what it was told (in order) and of the number asked
    for: telling a fresh one the record gives what it would have been, had it never stopped.
    """

    def ask(self, number: int) -> Candidate:
        """Propose a candidate.

        Args:
            number: of the ask, from 0; asking for the same number again repeats the proposal
                unless something was told in between.

        Raises:
            SpaceError: every draw was rejected; names the rule.
        """
        ...

    def tell(self, decisions: Mapping[str, Option], values: Sequence[float] | None) -> None:
        """Say what a candidate was worth.

        Args:
            decisions: the answers that led to it.
            values: one finite figure per objective; None where it failed.
        """
        ...


def ask_seed(seed: int, number: int) -> int:
    """Return the seed of one ask, below 2**31, from that of the study."""
    digest = blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31
