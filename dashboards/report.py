"""One self-contained file with a study's pages, for mailing: it asks nothing of any machine."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dashboards import pages
from dashboards.source import Source
from studies.workspace import Workspace

TRIALS = 200
"""Candidates whose own pages are put in: the front first, then the newest."""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


def write_report(workspace: Workspace | Path | str, study: str, path: Path | str) -> Path:
    """Write a study's report and return where it is.

    It has the pages of the dashboard, plotly.js included (about 5 MB), the data of all complete
    candidates, and the pages of up to :data:`TRIALS` of them. A reader sees the old file or the new
    one, never half: it is written beside and moved.

    Args:
        workspace: where the study is recorded.
        study: its name.
        path: the file; its folder exists.

    Raises:
        NasError: there is no such record or study.
        OSError: the file cannot be written; what was there stays.
    """
    target = Path(path)
    text = report_html(workspace, study)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def report_html(workspace: Workspace | Path | str, study: str) -> str:
    """Return the report as text; see :func:`write_report`."""
    content = json.dumps(_content(Source(workspace), study), allow_nan=False)
    scripts = "\n".join(
        f"<script>{_script(pages.app_file(name))}</script>" for name in pages.SCRIPTS
    )
    data = content.replace("<", "\\u003c")  # no text of a study can end the element
    page = pages.app_file("index.html")
    head, rest = page.split("<!-- style -->")
    body, tail = rest.split("<!-- scripts -->")
    body = body.partition("<!-- /style -->")[2]
    tail = tail.partition("<!-- /scripts -->")[2]
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    return (
        f"{head}{policy}\n<style>{pages.style()}</style>{body}"
        f'<script type="application/json" id="embedded">{data}</script>\n'
        f"<script>{_script(pages.plotly_js())}</script>\n{scripts}{tail}"
    )


def _content(source: Source, study: str) -> dict[str, Any]:
    front = source.front(study, whole=True)
    listed = source.studies()
    listed["studies"] = [item for item in listed["studies"] if item["name"] == study]
    space = source.space(study)
    name = _quoted(study)
    views = {
        "studies": listed,
        f"front?study={name}": front,
        f"progress?study={name}": source.progress(study),
        f"proxies?study={name}": source.proxies(study),
        f"space?study={name}": space,
        "kernels": source.kernels(),
    }
    for metric in front["objectives"]:
        views[f"space?study={name}&metric={_quoted(metric)}"] = source.space(study, metric)
    for number in _chosen(source, study):
        views[f"trial?study={name}&number={number}"] = source.trial(study, number)
    return {
        "study": study,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "trials": TRIALS,
        "views": views,
    }


def _chosen(source: Source, study: str) -> list[int]:
    numbers = source.numbers(study)
    return list(dict.fromkeys([*numbers.front, *reversed(numbers.shown)]))[:TRIALS]


def _quoted(text: str) -> str:
    """Write text as a browser's ``encodeURIComponent`` does."""
    from urllib.parse import quote

    return quote(text, safe="!~*'()-_.")


def _script(text: str) -> str:
    return text.replace("</script", "<\\/script")
