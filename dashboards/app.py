"""The web application: views as JSON, the page's files, and requests for what takes long.

Files of the page have fixed names and are held in memory; the record is asked by study names and
trial numbers; of an export only what its manifest lists is given. So no other file can be reached.
"""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import IO, Annotated, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from dashboards import pages
from dashboards.bundle import export_files, write_zip
from dashboards.guard import Guard, json_response
from dashboards.requests import Requests
from dashboards.source import Source
from kernels.errors import NasError
from studies.workspace import Workspace

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CHUNK = 1 << 20
_LARGE = 100_000
"""Bytes of an answer from which it is packed: of 100,000 trials 30 ms, and a third less to send."""


class Wish(BaseModel):
    """What the page asks to be done."""

    kind: Literal["export", "variants"]
    study: str = Field(max_length=255)
    trial: int = Field(ge=0, lt=10**9)
    form: Literal["plain", "packed"] = "plain"
    to: tuple[Literal["python", "pt2", "onnx"], ...] = Field(default=("python",), max_length=3)


def make_app(workspace: Workspace | Path | str, *, hosts: tuple[str, ...] = LOOPBACK) -> Guard:
    """Make the application.

    Args:
        workspace: whose record is shown.
        hosts: names by which a browser may call this server.
    """
    source = Source(workspace)
    requests = Requests(Workspace.of(workspace))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        Thread(target=prepare, args=(source,), daemon=True).start()
        yield
        requests.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    guard = Guard(app, frozenset(hosts))
    _add_views(app, source)
    _add_requests(app, source, requests)
    _add_files(app, guard.token)

    @app.exception_handler(NasError)
    def _refused(_: Request, problem: NasError) -> Response:
        return json_response({"error": str(problem)}, status=404)

    @app.exception_handler(RequestValidationError)
    def _misused(_: Request, problem: RequestValidationError) -> Response:
        first = problem.errors()[0]
        place = ".".join(map(str, first["loc"][1:]))
        return json_response({"error": f"{place}: {first['msg']}."}, status=400)

    return guard


def _add_views(app: FastAPI, source: Source) -> None:
    @app.get("/api/version")
    def version() -> Response:
        return json_response({"version": source.version()})

    @app.get("/api/studies")
    def studies() -> Response:
        return json_response(source.studies())

    @app.get("/api/front")
    def front(
        request: Request, study: str, metric: Annotated[list[str] | None, Query()] = None
    ) -> Response:
        answer = json_response(source.front(study, metric or ()))
        if len(answer.body) > _LARGE and _unpacks(request):
            answer.body = gzip.compress(bytes(answer.body), 1, mtime=0)
            answer.headers["Content-Length"] = str(len(answer.body))
            answer.headers["Content-Encoding"] = "gzip"
        return answer

    @app.get("/api/progress")
    def progress(study: str) -> Response:
        return json_response(source.progress(study))

    @app.get("/api/proxies")
    def proxies(study: str) -> Response:
        return json_response(source.proxies(study))

    @app.get("/api/space")
    def space(study: str, metric: str = "") -> Response:
        return json_response(source.space(study, metric or None))

    @app.get("/api/trial")
    def trial(study: str, number: int) -> Response:
        return json_response(source.trial(study, number))

    @app.get("/api/kernels")
    def kernels() -> Response:
        return json_response(source.kernels())

    @app.get("/api/architecture")
    def architecture(key: str) -> Response:
        name = "".join(letter for letter in key if letter.isalnum())[:32]
        headers = {"Content-Disposition": f'attachment; filename="{name}.json"'}
        return json_response(source.architecture(key), headers=headers)


def _add_requests(app: FastAPI, source: Source, requests: Requests) -> None:
    @app.get("/api/requests")
    def listed(study: str, number: int) -> Response:
        return json_response({"requests": requests.listed(study, number)})

    @app.post("/api/requests")
    def ask(wish: Wish) -> Response:
        source.trial(wish.study, wish.trial)  # that there is one is said at once
        to = tuple(dict.fromkeys(wish.to)) if wish.kind == "export" else ()
        made = requests.ask(wish.kind, wish.study, wish.trial, to, form=wish.form)
        return json_response(made, status=202)

    @app.get("/api/export")
    def export(study: str, number: int, audit: int) -> Response:
        """Give the files of an export, by its place in the trial's list of audits."""
        view = source.trial(study, number)
        if not 0 <= audit < len(view["audits"]):
            raise NasError(f"Trial {number} has no export {audit}.")
        kept = view["audits"][audit]
        files = export_files(source.record.root, kept["directory"])
        name = f"{view['key'][:12]}-{kept['audit']['form']}"
        archive = TemporaryFile()  # noqa: SIM115 - closed when it was sent
        write_zip(files, name, archive)
        headers = {
            "Content-Disposition": f'attachment; filename="{name}.zip"',
            "Content-Length": str(archive.tell()),
        }
        return StreamingResponse(_sent(archive), media_type="application/zip", headers=headers)


def _sent(archive: IO[bytes]) -> Iterator[bytes]:
    with archive:
        archive.seek(0)
        while part := archive.read(_CHUNK):
            yield part


def _add_files(app: FastAPI, token: str) -> None:
    @app.get("/")
    def index() -> Response:
        return Response(pages.index(token), media_type="text/html")

    @app.get("/static/app.css")
    def style(request: Request) -> Response:
        return _file(request, pages.style(), "text/css")

    @app.get("/static/plotly.js")
    def plotly(request: Request) -> Response:
        return _file(request, pages.plotly_js(), "text/javascript", seconds=3600)

    @app.get("/static/app.js")
    def script(request: Request) -> Response:
        return _file(request, pages.script(), "text/javascript")


def _file(request: Request, text: str, kind: str, *, seconds: int = 0) -> Response:
    """Return a file of the page, packed for browsers that can unpack it, as all do."""
    headers = {"Vary": "Accept-Encoding"}
    if seconds:
        headers["Cache-Control"] = f"private, max-age={seconds}"
    if not _unpacks(request):
        return Response(text, media_type=kind, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(_packed(text), media_type=kind, headers=headers)


def _unpacks(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


def prepare(source: Source) -> None:
    """Make ready what the first page will ask for: its largest file, and the newest study."""
    _packed(pages.plotly_js())
    with suppress(NasError):  # what is wrong is said to who asks
        for study in source.studies()["studies"][:1]:
            source.front(study["name"])


@cache
def _packed(text: str) -> bytes:
    return gzip.compress(text.encode(), 6, mtime=0)
