"""What an audit found: each figure as stated and as found again, and whether they may differ so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at again.

    Attributes:
        name: what: ``files``, ``outputs of onnx``, ``test_accuracy of python``.
        passed: whether it is as it should be; True for what is shown and not judged.
        stated: the figure that the study or the export states; None where it is no figure.
        found: the same figure, measured on the reloaded export.
        tolerance: how far ``found`` may be beyond ``stated``; None where it is not judged.
        unit: of the figures.
        note: what is wrong, or worth knowing; one line.
    """

    name: str
    passed: bool
    stated: float | None = None
    found: float | None = None
    tolerance: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def gap(self) -> float | None:
        """What was found minus what is stated."""
        if self.stated is None or self.found is None:
            return None
        return self.found - self.stated


@dataclass(frozen=True, slots=True)
class Audit:
    """All that was looked at again in an export: its gap table.

    Attributes:
        form: of the export.
        formats: of the export.
        key: of its network.
        checks: in the order they were made.
        device: what latency was measured on, and accuracy where the format can be moved.
        seconds: how long it took.
    """

    form: str
    formats: tuple[str, ...]
    key: str
    checks: tuple[Check, ...]
    device: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether all is as it should be; a command exits with 1 where it is not."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """What is not as it should be."""
        return tuple(check for check in self.checks if not check.passed)

    def rows(self) -> list[list[str]]:
        """Return the gap table as text, its columns as :data:`HEADER` names them."""
        return [
            [
                check.name,
                _number(check.stated),
                _number(check.found),
                _number(check.gap, sign=True),
                _number(check.tolerance),
                _verdict(check),
            ]
            for check in self.checks
        ]

    def remarks(self) -> list[str]:
        """Return what is wrong or worth knowing; checks of which the same is said share a line."""
        said: dict[str, list[str]] = {}
        for check in self.checks:
            if check.note:
                said.setdefault(check.note, []).append(check.name)
        return [f"{', '.join(names)}: {note}" for note, names in said.items()]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, with the verdict and the gaps."""
        checks = [{**asdict(check), "gap": check.gap} for check in self.checks]
        return {**asdict(self), "passed": self.passed, "checks": checks}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Audit:
        """Read :meth:`to_json` back."""
        checks = tuple(
            Check(**{name: value for name, value in item.items() if name != "gap"})
            for item in document["checks"]
        )
        kept = {name: value for name, value in document.items() if name != "passed"}
        return cls(**{**kept, "checks": checks, "formats": tuple(document["formats"])})


HEADER = ("check", "stated", "found", "gap", "tolerance", "verdict")
"""Names of the columns of :meth:`Audit.rows`."""


def _verdict(check: Check) -> str:
    if not check.passed:
        return "FAILED"
    if check.stated is not None and check.found is None:
        return "not measured"
    return "shown" if check.tolerance is None and check.found is not None else "passed"


def _number(value: float | None, *, sign: bool = False) -> str:
    return "" if value is None else f"{value:{'+' if sign else ''}.4g}"
