"""One self-contained file with a study's pages, for mailing: it asks nothing of any machine."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dashboards import pages
from dashboards.plain import front_html
from dashboards.source import Source
from studies.workspace import Workspace

TRIALS = 200
"""Candidates whose own pages are put in: the front first, then the newest."""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
_OF_THE_MACHINE = ("directory", "manifest")
"""What is kept of an audit beside it: paths and sums that mean nothing elsewhere."""


def write_report(
    workspace: Workspace | Path | str, study: str, path: Path | str, *, trials: int = TRIALS
) -> Path:
    """Write a study's report and return where it is.

    It has the pages of the dashboard, plotly.js included (about 5 MB), the data of all complete
    candidates, and the pages of some. Without JavaScript it shows the front as a table. A reader
    sees the old file or the new one, never half: it is written beside and moved.

    Args:
        workspace: where the study is recorded.
        study: its name.
        path: the file; its folder exists.
        trials: how many candidates' own pages are put in, those of the front first.

    Raises:
        NasError: there is no such record or study.
        OSError: the file cannot be written; what was there stays.
    """
    target = Path(path)
    text = report_html(workspace, study, trials=trials)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def report_html(workspace: Workspace | Path | str, study: str, *, trials: int = TRIALS) -> str:
    """Return the report as text; see :func:`write_report`."""
    source = Source(workspace, patient=True)
    content = json.dumps(_content(source, study, trials), allow_nan=False)
    data = content.replace("<", "\\u003c")  # no text of a study can end the element
    scripts = f"<script>{_script(pages.script())}</script>"
    page = pages.app_file("index.html")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    parts = {
        "token": policy,
        "style": f"<style>{pages.style()}</style>",
        "content": front_html(study, source.front_table(study)),
        "scripts": f'<script type="application/json" id="embedded">{data}</script>\n'
        f"{scripts}\n<script>{_script(pages.plotly_js())}</script>",
    }
    for name, text in parts.items():
        page = pages.filled(page, name, text)
    return page


def _content(source: Source, study: str, trials: int) -> dict[str, Any]:
    front = source.front(study, whole=True)
    listed = source.studies()
    listed["studies"] = [item for item in listed["studies"] if item["name"] == study]
    name = _quoted(study)
    views = {
        "studies": listed,
        f"front?study={name}": front,
        f"progress?study={name}": source.progress(study),
        f"proxies?study={name}": source.proxies(study),
        f"space?study={name}": source.space(study),
        "kernels": source.kernels(),
    }
    for metric in front["objectives"]:
        views[f"space?study={name}&metric={_quoted(metric)}"] = source.space(study, metric)
    for number in _chosen(source, study, trials):
        views[f"trial?study={name}&number={number}"] = _trial(source, study, number)
    return {
        "study": study,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "trials": trials,
        "views": views,
    }


def _trial(source: Source, study: str, number: int) -> dict[str, Any]:
    view = source.trial(study, number)
    for kept in view["audits"]:
        for name in _OF_THE_MACHINE:
            kept.pop(name, None)
    return view


def _chosen(source: Source, study: str, most: int) -> list[int]:
    numbers = source.numbers(study)
    return list(dict.fromkeys([*numbers.front, *reversed(numbers.shown)]))[:most]


def _quoted(text: str) -> str:
    """Write text as a browser's ``encodeURIComponent`` does."""
    return quote(text, safe="!~*'()-_.")


def _script(text: str) -> str:
    return text.replace("</script", "<\\/script")
