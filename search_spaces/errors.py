"""What can be wrong with an architecture or a space."""

from __future__ import annotations

from kernels.errors import NasError


class OpError(NasError):
    """An operator does not accept its attributes or input shapes; says why, not where."""


class ArchitectureError(NasError):
    """A network is not valid; the message begins with the place: ``stage2/block0: ...``."""


class SpaceError(NasError):
    """A search space cannot be read, sampled or replayed."""
