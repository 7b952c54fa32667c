"""Which implementation of an operator runs a workload on a device, and why."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from kernels.device import Device
from kernels.environment import forced_kernel, kernel_variable
from kernels.errors import NasError, UnknownNameError
from kernels.registry import Registry
from kernels.workload import Workload

SYSTEMS = (
    "kernels.sliding_channel.implementations",
    "kernels.shfl_bw.implementations",
    "kernels.arbitrary_precision.implementations",
    "kernels.extended_precision.implementations",
    "kernels.dual_module.implementations",
)
"""Modules with an ``IMPLEMENTATIONS`` tuple; a new kernel system adds its line here.

They are imported at the first look-up and must not import torch.
"""


@dataclass(frozen=True, slots=True)
class Implementation:
    """One way to run an operator.

    Attributes:
        op: the operator, as in ``Workload.op``.
        name: unique among the operator's implementations.
        entry: where the function is, ``"package.module:function"``; imported only by ``load``.
        refuses: returns why a workload cannot run on a device, None when it can; must be cheap
            and must not touch the device.
        preference: the highest that does not refuse is chosen; equal ones by name.
        note: what it is, in a few words.
    """

    op: str
    name: str
    entry: str
    refuses: Callable[[Workload, Device], str | None]
    preference: int
    note: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What became of one implementation.

    Attributes:
        implementation: the implementation.
        status: ``"chosen"``, ``"available"`` (it could run) or ``"refused"``.
        reason: why it refused; its note otherwise.
    """

    implementation: Implementation
    status: Literal["chosen", "available", "refused"]
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a workload runs as it does; ``str()`` gives a small table.

    Attributes:
        workload: the workload.
        device: the device.
        forced: the implementation named by the environment, None when free to choose.
        choices: one per implementation, the most preferred first. None of them is chosen when the
            forced one refuses or does not exist, or when all refuse; ``select`` then raises.
    """

    workload: Workload
    device: Device
    forced: str | None
    choices: tuple[Choice, ...]

    def __str__(self) -> str:
        width = max(len(choice.implementation.name) for choice in self.choices)
        lines = [f"{self.workload} on {self.device}"]
        if self.forced:
            lines.append(f"  forced: {kernel_variable(self.workload.op)}={self.forced}")
        lines += [
            f"  {choice.implementation.name:<{width}}  {choice.status:<9}  {choice.reason}"
            for choice in self.choices
        ]
        return "\n".join(lines)


_REGISTRY: Registry[Implementation] = Registry("implementation")


def register_implementation(implementation: Implementation) -> Implementation:
    """Enrol one implementation and return it.

    Raises:
        NasError: the operator already has one of that name.
    """
    return _REGISTRY.add(f"{implementation.op}:{implementation.name}", implementation)


def implementations(op: str) -> list[Implementation]:
    """Return all implementations of an operator, the most preferred first.

    Raises:
        UnknownNameError: the operator has none.
    """
    _enrol_systems()
    found = [entry for _, entry in _REGISTRY if entry.op == op]
    if not found:
        raise UnknownNameError("operator", op, {entry.op for _, entry in _REGISTRY})
    return sorted(found, key=lambda entry: (-entry.preference, entry.name))


@cache
def _enrol_systems() -> None:
    for module in SYSTEMS:
        for implementation in importlib.import_module(module).IMPLEMENTATIONS:
            register_implementation(implementation)


def select(workload: Workload, device: Device, force: str | None = None) -> Implementation:
    """Return the implementation that runs ``workload`` on ``device``.

    Args:
        workload: what is to run.
        device: where.
        force: the name of the one to use; it wins over the environment variable
            ``NAS_KERNEL_<OP>``, which forces in the same way.

    Raises:
        UnknownNameError: no such operator, or no implementation of the forced name.
        NasError: the forced one cannot run (nothing else is tried), or none can.

    Example:
        >>> from kernels.device import detect
        >>> from kernels.sliding_channel.implementations import sliding_channel_workload
        >>> work = sliding_channel_workload((8, 16, 4, 4), 32, cg=2, co=0.5)
        >>> select(work, detect("cpu")).name
        'dense'
    """
    candidates = implementations(workload.op)
    forced = force or forced_kernel(workload.op)
    if forced:
        return _forced(forced, candidates, workload, device)
    reasons = []
    for candidate in candidates:
        reason = candidate.refuses(workload, device)
        if reason is None:
            return candidate
        reasons.append(f"{candidate.name}: {reason}")
    raise NasError(f"Nothing runs {workload} on {device}. {'; '.join(reasons)}.")


def _forced(
    name: str, candidates: Sequence[Implementation], workload: Workload, device: Device
) -> Implementation:
    by_name = {candidate.name: candidate for candidate in candidates}
    if name not in by_name:
        raise UnknownNameError(f"implementation of {workload.op}", name, by_name)
    reason = by_name[name].refuses(workload, device)
    if reason is not None:
        raise NasError(
            f"The forced implementation {name!r} cannot run {workload} on {device}: {reason}. "
            f"Drop the force argument or {kernel_variable(workload.op)}, or name another."
        )
    return by_name[name]


def explain(workload: Workload, device: Device) -> Explanation:
    """Return what ``select`` does with each implementation of the workload's operator.

    Raises:
        UnknownNameError: the operator has no implementation.
    """
    forced = forced_kernel(workload.op)
    chosen = False
    choices = []
    for candidate in implementations(workload.op):
        reason = candidate.refuses(workload, device)
        if reason is not None:
            choices.append(Choice(candidate, "refused", reason))
        elif not chosen and forced in (None, candidate.name):
            chosen = True
            choices.append(Choice(candidate, "chosen", candidate.note))
        else:
            choices.append(Choice(candidate, "available", candidate.note))
    return Explanation(workload, device, forced, tuple(choices))


def load(implementation: Implementation) -> Callable[..., object]:
    """Import an implementation's function; its arguments are those of its operator.

    Raises:
        NasError: the module cannot be imported or lacks the function.
    """
    module, _, function = implementation.entry.partition(":")
    try:
        loaded: Callable[..., object] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise NasError(
            f"The implementation {implementation.name!r} of {implementation.op} cannot be loaded "
            f"from {implementation.entry!r}: {error}."
        ) from error
    return loaded
