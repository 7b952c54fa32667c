"""What one kernel launch computes, without saying how: the unit that is selected and measured."""

from __future__ import annotations

from dataclasses import dataclass

Scalar = int | float | str | bool | None
"""An attribute value of a workload."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One piece of work for one kernel.

    Attributes:
        op: operator name, such as ``"conv"`` or ``"sliding_channel"``.
        inputs: input shapes, batch first.
        output: output shape, batch first.
        attrs: operator attributes, sorted by name.
        dtype: element type, a torch name without the prefix: ``"float32"``.
        layout: ``"contiguous"`` or ``"channels_last"``.
        variant: how it is executed: ``"dense"`` or a variant's text form.
        fused: what runs in the same launch after ``op``, in order: ``("bn", "relu", "add")``.
    """

    op: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    attrs: tuple[tuple[str, Scalar], ...] = ()
    dtype: str = "float32"
    layout: str = "contiguous"
    variant: str = "dense"
    fused: tuple[str, ...] = ()

    def attr(self, name: str) -> Scalar:
        """Return one attribute.

        Raises:
            KeyError: the workload has no such attribute.
        """
        return dict(self.attrs)[name]

    def __str__(self) -> str:
        shapes = " ".join("x".join(map(str, shape)) for shape in self.inputs)
        attrs = " ".join(f"{name}={value}" for name, value in self.attrs)
        tail = "".join(f"+{name}" for name in self.fused)
        return f"{self.op}{tail}[{shapes} {attrs}] {self.variant} {self.dtype} {self.layout}"
