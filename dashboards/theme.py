"""Colours and type of every figure and page: one palette, in a light and a dark version."""

from __future__ import annotations

from dataclasses import dataclass, fields

FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Palette:
    """Named colours; no two of one palette are equal, so a page can swap them by value.

    Attributes:
        page: behind everything.
        surface: behind a figure or table.
        ink: text.
        muted: secondary text and axis lines.
        grid: lines that only guide.
        accent: what is on the front.
        bar: spreads of points on the front.
        dim: what is dominated.
        dim_bar: spreads of dominated points.
        stairs: the line that joins the front; paler than a spread, which may lie on it.
        ring: what the reader has picked.
        picked: behind a picked row.
        scale: low to high of a third metric, evenly brightening or darkening; readable with any
            colour vision (viridis without the end that would vanish on the surface).
    """

    page: str
    surface: str
    ink: str
    muted: str
    grid: str
    accent: str
    bar: str
    dim: str
    dim_bar: str
    stairs: str
    ring: str
    picked: str
    scale: tuple[str, ...]

    def css(self) -> str:
        """Return the single colours as CSS custom properties."""
        names = [f.name for f in fields(self) if f.name != "scale"]
        return " ".join(f"--{n.replace('_', '-')}: {getattr(self, n)};" for n in names)

    def swaps(self, other: Palette) -> dict[str, str]:
        """Return the other palette's colour for each of this one's."""
        names = [f.name for f in fields(self) if f.name != "scale"]
        single = {str(getattr(self, n)): str(getattr(other, n)) for n in names}
        return single | dict(zip(self.scale, other.scale, strict=True))


LIGHT = Palette(
    page="#f5f6f8",
    surface="#ffffff",
    ink="#18222d",
    muted="#566573",
    grid="#e8ebef",
    accent="#0a5fa8",
    bar="rgba(24, 34, 45, 0.38)",
    dim="#b4bdc7",
    dim_bar="rgba(130, 145, 160, 0.22)",
    stairs="#8db7dd",
    ring="#d9480f",
    picked="#fff1e6",
    scale=("#46085c", "#433e85", "#30698e", "#21908d", "#35b779", "#9bd93c"),
)

DARK = Palette(
    page="#0e1318",
    surface="#161c23",
    ink="#e7edf3",
    muted="#9daab8",
    grid="#28313b",
    accent="#5fb0ff",
    bar="rgba(231, 237, 243, 0.42)",
    dim="#596573",
    dim_bar="rgba(130, 145, 160, 0.25)",
    stairs="#38648f",
    ring="#ffa94d",
    picked="#33271a",
    scale=("#6a5acd", "#4f83c4", "#2f9fb0", "#35b779", "#8fd744", "#fde725"),
)
