"""Plain text tables for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)
) -> str:
    """Align columns to the right, but for some.

    Args:
        header: names of the columns.
        rows: cells.
        left: positions of the columns that are aligned to the left.

    Example:
        >>> print(table(["key", "params"], [["a1", "1,234"], ["b2", "98"]]))
        key  params
        a1    1,234
        b2       98
    """
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def pairs(items: Sequence[tuple[str, str]]) -> str:
    """Write names and what they stand for, one a line, the latter below each other.

    Example:
        >>> print(pairs([("space", "tiny"), ("data", "digits")]))
        space  tiny
        data   digits
    """
    width = max((len(name) for name, _ in items), default=0)
    return "\n".join(f"{name.ljust(width)}  {text}".rstrip() for name, text in items)
