"""Text of Hopper's matrix instruction on single bits, for a number of columns; imports no torch."""

from __future__ import annotations

COLUMNS = (8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256)
"""Columns that the instruction has."""


def multiply_bits(columns: int) -> str:
    """Return ``multiply_bits(counts, rows, columns, keep)`` of 64 x ``columns`` x 256 bits.

    ``counts`` are the ``columns / 2`` accumulators of a thread, ``rows`` and ``columns`` shared
    memory descriptors; what ``counts`` held is added where ``keep`` is true.
    """
    registers = columns // 2
    places = ", ".join(f"%{i}" for i in range(registers))
    operands = ", ".join(f'"+r"(counts[{i}])' for i in range(registers))
    a, b, keep = registers, registers + 1, registers + 2
    return (
        f"DEVICE void multiply_bits(int (&counts)[{registers}],\n"
        "    unsigned long long rows, unsigned long long columns, bool keep) {\n"
        f'  asm volatile("{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{keep}, 0;\\n"\n'
        f'      "wgmma.mma_async.sync.aligned.m64n{columns}k256.s32.b1.b1.and.popc "\n'
        f'      "{{{places}}}, %{a}, %{b}, p;\\n}}"\n'
        f'      : {operands}\n      : "l"(rows), "l"(columns), "r"(static_cast<int>(keep)));\n'
        "}\n"
    )
