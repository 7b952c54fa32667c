"""The live view of a search on a terminal.

Colours are few and those of the terminal's own palette, so that it reads on dark and on light.
"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.figures import duration, number
from nas.live.board import Board, Snapshot, Volume
from studies.storage import TrialState

REFRESHES = 2
"""Drawings a second."""
_ROWS = 8
_REASONS = 3
_BARS = "▁▂▃▄▅▆▇█"
_LABEL = 11
"""Width of the column of labels."""


class LiveView:
    """Draws a board on standard error while it is entered; the last drawing stays.

    Args:
        board: what to draw.
        title: of the drawing.
        console: where; standard error by default.
    """

    def __init__(self, board: Board, title: str, console: Console | None = None) -> None:
        self._board, self._title = board, title
        self._console = console or Console(stderr=True, highlight=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=REFRESHES,
            redirect_stdout=False,
            vertical_overflow="crop",
        )

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, problem, trace)

    def _draw(self) -> RenderableType:
        return draw(self._board.snapshot(), self._board.config.names, self._title)


def draw(snapshot: Snapshot, objectives: tuple[str, ...], title: str) -> RenderableType:
    """Return the drawing of a snapshot."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", min_width=_LABEL, no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("trials", _counts(snapshot))
    facts.add_row("in work", _working(snapshot))
    facts.add_row("spent", f"{duration(snapshot.evaluation_seconds)} of evaluation")
    if snapshot.drops:
        facts.add_row("dropped at", _pairs(sorted(snapshot.drops.items())))
    for index, (reason, count) in enumerate(snapshot.reasons[:_REASONS]):
        line = Text(f"{count} x {reason}", style="red", overflow="ellipsis", no_wrap=True)
        facts.add_row("failed" if index == 0 else "", line)
    volume = snapshot.volume
    if volume is not None and volume.history:
        facts.add_row("hypervolume", _spark(volume, snapshot.complete))
        facts.add_row("", Text(_reference(volume, objectives), style="dim"))
    parts: list[RenderableType] = [_head(snapshot, title), facts]
    if snapshot.front:
        parts += [Text(), _front(snapshot, objectives)]
    return Group(*parts)


def _head(snapshot: Snapshot, title: str) -> RenderableType:
    left = "" if snapshot.left is None else f", about {duration(snapshot.left)} left"
    done = snapshot.complete >= snapshot.trials
    time = f"{duration(snapshot.elapsed)}{'' if done else left}"
    bar = ProgressBar(snapshot.trials, snapshot.complete, width=30, complete_style="cyan")
    grid = Table.grid(padding=(0, 2))
    for _ in range(3):
        grid.add_column(no_wrap=True)
    grid.add_row(bar, f"{snapshot.complete}/{snapshot.trials}", time)
    return Group(Text(title, style="bold", overflow="ellipsis", no_wrap=True), grid)


_WORDS = {
    TrialState.COMPLETE: ("complete", "green"),
    TrialState.DROPPED: ("dropped", ""),
    TrialState.FAILED: ("failed", "red"),
    TrialState.REPEAT: ("repeats", ""),
}


def _counts(snapshot: Snapshot) -> Text:
    text = Text()
    for state, (word, style) in _WORDS.items():
        count = snapshot.counts.get(state, 0)
        if count or state is TrialState.COMPLETE:
            text.append("  " if text else "")
            text.append(f"{count} {word}", style=style)
    return text


def _working(snapshot: Snapshot) -> str:
    items = [
        f"{count} x {metric}{', the longest' if count > 1 else ''} for {duration(seconds)}"
        for metric, (count, seconds) in sorted(snapshot.running.items())
    ]
    if snapshot.waiting:
        items.append(f"{snapshot.waiting} waiting")
    return "; ".join(items) or "-"


def _pairs(items: list[tuple[str, int]]) -> str:
    return "  ".join(f"{name} {count}" for name, count in items)


def _spark(volume: Volume, complete: int) -> Text:
    newest = volume.history[-1][1]
    text = Text(f"{newest:.3g}  ")
    text.append(sparkline(volume.history, complete), style="cyan")
    text.append(f"  {volume.history[0][1]:.3g} after {volume.history[0][0]}", style="dim")
    return text


def sparkline(history: tuple[tuple[int, float], ...], last: int, width: int = 32) -> str:
    """Draw a step curve: the volume after so many complete trials, from the first to ``last``.

    Example:
        >>> sparkline(((1, 0.0), (3, 1.0)), 4, width=4)
        '▁▁██'
    """
    first = history[0][0]
    width = min(width, last - first + 1)
    bottom, top = history[0][1], max(volume for _, volume in history)
    cells = []
    position = 0
    for column in range(width):
        trial = last if width == 1 else first + (last - first) * column / (width - 1)
        while position + 1 < len(history) and history[position + 1][0] <= trial:
            position += 1
        share = (history[position][1] - bottom) / (top - bottom) if top > bottom else 0.0
        cells.append(_BARS[round(share * (len(_BARS) - 1))])
    return "".join(cells)


def _reference(volume: Volume, objectives: tuple[str, ...]) -> str:
    worst = zip(objectives, volume.reference, strict=True)
    point = ", ".join(f"{name} {number(name, value)}" for name, value in worst)
    return f"reference: {point} (worst of the first {volume.first} trials, whose box is 1)"


def _front(snapshot: Snapshot, objectives: tuple[str, ...]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("front", justify="right", style="dim", min_width=5)
    for name in objectives:
        table.add_column(name, justify="right", overflow="ellipsis", no_wrap=True)
    for row in snapshot.front[:_ROWS]:
        cells = (number(name, value) for name, value in zip(objectives, row.values, strict=True))
        table.add_row(f"#{row.number}", *cells)
    more = len(snapshot.front) - _ROWS
    if more > 0:
        table.add_row("", Text(f"and {more} more", style="dim"))
    return table
