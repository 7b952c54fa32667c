"""Text of Hopper's matrix instruction on single bits, for a number of columns; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

COLUMNS = (8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256)
"""Columns that the instruction has."""


def multiply_bits(columns: int) -> str:
    """Return ``multiply_bits(counts, rows, columns, keep)`` of 64 x ``columns`` x 256 bits.

    ``counts`` are the ``columns / 2`` accumulators of a thread, ``rows`` and ``columns`` shared
    memory descriptors; what ``counts`` held is added where ``keep`` is true.
    """
    return _function("multiply_bits", columns, "unsigned long long rows", {"rows": "l"})


def multiply_window(columns: int) -> str:
    """Return ``multiply_window(counts, rows, columns, keep)``, whose rows are in registers.

    ``rows`` are four words: 32 bits of a row and of that 8 rows further, then both 128 bits on;
    see :func:`multiply_bits` for the rest.
    """
    rows = {f"rows[{i}]": "r" for i in range(4)}
    return _function("multiply_window", columns, "const unsigned (&rows)[4]", rows)


def _function(name: str, columns: int, parameter: str, rows: Mapping[str, str]) -> str:
    """Return the text of a function; ``rows`` has operands and their constraints."""
    registers = columns // 2
    places = ", ".join(f"%{i}" for i in range(registers))
    operands = ", ".join(f'"+r"(counts[{i}])' for i in range(registers))
    a = ", ".join(f"%{registers + i}" for i in range(len(rows)))
    a = f"{{{a}}}" if len(rows) > 1 else a
    b, keep = registers + len(rows), registers + len(rows) + 1
    given = ", ".join(f'"{kind}"({word})' for word, kind in rows.items())
    return (
        f"DEVICE void {name}(int (&counts)[{registers}],\n"
        f"    {parameter}, unsigned long long columns, bool keep) {{\n"
        f'  asm volatile("{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{keep}, 0;\\n"\n'
        f'      "wgmma.mma_async.sync.aligned.m64n{columns}k256.s32.b1.b1.and.popc "\n'
        f'      "{{{places}}}, {a}, %{b}, p;\\n}}"\n'
        f'      : {operands}\n      : {given}, "l"(columns), "r"(static_cast<int>(keep)));\n'
        "}\n"
    )
