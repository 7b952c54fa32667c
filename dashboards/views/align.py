"""Layers of several networks beside each other: like with like, as few gaps as may be."""

from __future__ import annotations

from collections.abc import Sequence

Row = list[int | None]

_SAME, _KIND = 3, 1
"""What a pair of equal layers counts, and one of the same kind; a gap counts nothing."""


def align(networks: Sequence[Sequence[str]]) -> list[Row]:
    """Align sequences of layers, each written as ``kind attributes``.

    Each network after the first is aligned with the rows so far by the best sum of matches
    (Needleman and Wunsch's method).

    Returns:
        rows, each with one place for every network: the number of its layer, or None.

    Example:
        >>> align([["conv 4", "gap"], ["conv 4", "conv 8", "gap"]])
        [[0, 0], [None, 1], [1, 2]]
    """
    rows: list[Row] = [[number] for number in range(len(networks[0]))] if networks else []
    for count, layers in enumerate(networks[1:], 1):
        texts = [
            [networks[n][place] for n, place in enumerate(row) if place is not None] for row in rows
        ]
        rows = _merged(rows, _steps(texts, layers), count)
    return rows


def _steps(rows: Sequence[Sequence[str]], layers: Sequence[str]) -> list[tuple[bool, bool]]:
    """Return the way through both: for each step, whether a row and a layer is taken."""
    best = [[0] * (len(layers) + 1) for _ in range(len(rows) + 1)]
    for i in range(len(rows) - 1, -1, -1):
        for j in range(len(layers) - 1, -1, -1):
            pair = _score(rows[i], layers[j])
            together = best[i + 1][j + 1] + pair if pair else -1
            best[i][j] = max(together, best[i + 1][j], best[i][j + 1])
    steps = []
    i = j = 0
    while i < len(rows) or j < len(layers):
        pair = _score(rows[i], layers[j]) if i < len(rows) and j < len(layers) else 0
        if pair and best[i][j] == best[i + 1][j + 1] + pair:
            steps.append((True, True))
        elif i < len(rows) and best[i][j] == best[i + 1][j]:
            steps.append((True, False))
        else:
            steps.append((False, True))
        i, j = i + steps[-1][0], j + steps[-1][1]
    return steps


def _score(row: Sequence[str], layer: str) -> int:
    if layer in row:
        return _SAME
    kind = layer.split(" ", 1)[0]
    return _KIND if any(item.split(" ", 1)[0] == kind for item in row) else 0


def _merged(rows: Sequence[Row], steps: Sequence[tuple[bool, bool]], count: int) -> list[Row]:
    merged: list[Row] = []
    i = j = 0
    for takes_row, takes_layer in steps:
        row: Row = rows[i] if takes_row else [None] * count
        merged.append([*row, j if takes_layer else None])
        i, j = i + takes_row, j + takes_layer
    return merged
