"""The files of the page: the app's own, and plotly.js as the plotly package holds it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from dashboards.theme import DARK, FONT, LIGHT, Palette

SCRIPTS = (
    "core.js",
    "numbers.js",
    "picture.js",
    "plot.js",
    "table.js",
    "pareto.js",
    "study.js",
    "filters.js",
    "parallel.js",
    "front_figure.js",
    "front_table.js",
    "front_controls.js",
    "align.js",
    "graph.js",
    "evidence.js",
    "requests.js",
    "variants.js",
    "exports.js",
    "page_studies.js",
    "page_front.js",
    "page_trial.js",
    "page_compare.js",
    "page_progress.js",
    "page_proxies.js",
    "page_space.js",
    "page_kernels.js",
    "main.js",
)
"""In the order they are loaded; each adds to the one global, ``nas``."""


@cache
def app_file(name: str) -> str:
    """Return one of the app's own files; only names that stand in this module are asked for."""
    return (files("dashboards") / "static" / "app" / name).read_text(encoding="utf-8")


@cache
def script() -> str:
    """Return the app's own scripts as one: each file is a scope of its own."""
    return "\n".join(map(app_file, SCRIPTS))


@cache
def plotly_js() -> str:
    """Return plotly.js, about 5 MB."""
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text


def index(token: str) -> str:
    """Return the page with the token that it shows when it asks for work."""
    names = ("app.js", "plotly.js")  # our own asks for data while the browser reads plotly
    parts = {
        "token": f'<meta name="token" content="{token}">',
        "style": '<link rel="stylesheet" href="/static/app.css">',
        "content": "",
        "scripts": "\n".join(f'<script src="/static/{name}"></script>' for name in names),
    }
    page = app_file("index.html")
    for name, text in parts.items():
        page = filled(page, name, text)
    return page


def filled(page: str, name: str, text: str) -> str:
    """Return a page with a text in place of the comment of a name."""
    return page.replace(f"<!-- {name} -->", text)


@cache
def style() -> str:
    """Return the style sheet with the palettes of the figures."""
    light, dark = _colours(LIGHT), _colours(DARK)
    return (
        f":root {{ --font: {FONT}; {light} color-scheme: light; }}\n"
        f":root[data-theme='dark'] {{ {dark} color-scheme: dark; }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme='light']) "
        f"{{ {dark} color-scheme: dark; }} }}\n{app_file('app.css')}"
    )


def _colours(palette: Palette) -> str:
    scale = " ".join(f"--scale-{i}: {colour};" for i, colour in enumerate(palette.scale))
    return f"{palette.css()} {scale}"
