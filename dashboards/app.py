"""The web server: views as JSON, the page's files, and nothing else; it answers this machine only.

Nothing is looked up by a path: files have fixed names and are held in memory, and the record is
asked by study names and trial numbers. So no file can be reached through it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboards import pages
from dashboards.source import Source
from kernels.errors import NasError
from studies.workspace import Workspace

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SEVERAL = 8


def make_app(workspace: Workspace | Path | str, *, hosts: tuple[str, ...] = _LOOPBACK) -> ASGIApp:
    """Make the application.

    Args:
        workspace: whose record is shown.
        hosts: names by which a browser may call this server; others are refused, so that no page
            of another origin reads it through a name of its own (DNS rebinding).
    """
    source = Source(workspace)
    app = FastAPI(title="paretonas", docs_url=None, redoc_url=None, openapi_url=None)
    _add_views(app, source)
    _add_files(app)

    @app.exception_handler(NasError)
    def _refused(_: Request, problem: NasError) -> Response:
        return _json({"error": str(problem)}, status=404)

    return _Guard(app, frozenset(hosts))


def serve(
    workspace: Workspace | Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    open_browser: bool = True,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the dashboard of a workspace until interrupted.

    The record is opened read-only for the moment of each question, so that a running study is
    neither blocked nor slowed; it may be at rest, in use, or begin later.

    Args:
        workspace: a directory with a record.
        host: address to listen at; the default is reached from this machine only.
        port: to listen at; 0 takes a free one.
        open_browser: whether to show the page in the default browser.
        on_ready: told the page's address once it can be opened.

    Raises:
        NasError: the record cannot be read, or the port is taken.
    """
    import uvicorn

    Source(workspace).studies()  # what is wrong is said here, before a page opens
    listener = _listen(host, port)
    try:
        address = (
            f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{listener.getsockname()[1]}/"
        )
        app = make_app(workspace, hosts=_names(host))
        settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        on_ready(address)
        if open_browser:
            Thread(target=_show, args=(address,), daemon=True).start()
        uvicorn.Server(settings).run(sockets=[listener])
    finally:
        listener.close()


def _show(address: str) -> None:
    import webbrowser

    webbrowser.open(address)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as problem:
        listener.close()
        raise NasError(
            f"Cannot listen at {host}:{port} ({problem}); give another port (--port)."
        ) from None
    listener.listen(64)
    return listener


def _names(host: str) -> tuple[str, ...]:
    """Return the names a browser may use for where the server listens."""
    if host in _LOOPBACK:
        return _LOOPBACK
    own = socket.gethostname()
    try:
        addresses = {str(item[4][0]) for item in socket.getaddrinfo(own, None)}
    except OSError:
        addresses = set()
    return (*_LOOPBACK, host, own, socket.getfqdn(), *sorted(addresses))


def _add_views(app: FastAPI, source: Source) -> None:
    @app.get("/api/version")
    def version() -> Response:
        return _json({"version": source.version()})

    @app.get("/api/studies")
    def studies() -> Response:
        return _json(source.studies())

    @app.get("/api/front")
    def front(study: str, metric: Annotated[list[str] | None, Query()] = None) -> Response:
        return _json(source.front(study, metric or ()))

    @app.get("/api/progress")
    def progress(study: str) -> Response:
        return _json(source.progress(study))

    @app.get("/api/proxies")
    def proxies(study: str) -> Response:
        return _json(source.proxies(study))

    @app.get("/api/space")
    def space(study: str, metric: str = "") -> Response:
        return _json(source.space(study, metric or None))

    @app.get("/api/trial")
    def trial(study: str, number: int) -> Response:
        return _json(source.trial(study, number))

    @app.get("/api/compare")
    def compare(study: str, trials: str) -> Response:
        words = trials.split(",")[:_SEVERAL]
        if not all(word.isdecimal() and len(word) < 10 for word in words):
            raise NasError(f"Expected numbers of trials, got {trials!r}.")
        return _json(source.compare(study, [int(word) for word in words]))

    @app.get("/api/kernels")
    def kernels() -> Response:
        return _json(source.kernels())

    @app.get("/api/architecture")
    def architecture(key: str) -> Response:
        name = "".join(letter for letter in key if letter.isalnum())[:32]
        headers = {"Content-Disposition": f'attachment; filename="{name}.json"'}
        return _json(source.architecture(key), headers=headers)


def _add_files(app: FastAPI) -> None:
    @app.get("/")
    def index() -> Response:
        return Response(pages.app_file("index.html"), media_type="text/html")

    @app.get("/static/app.css")
    def style() -> Response:
        return Response(pages.style(), media_type="text/css")

    @app.get("/static/plotly.js")
    def plotly() -> Response:
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(pages.plotly_js(), media_type="text/javascript", headers=headers)

    @app.get("/static/{name}")
    def script(name: str) -> Response:
        if name not in pages.SCRIPTS:
            return _json({"error": "There is no such file."}, status=404)
        return Response(pages.app_file(name), media_type="text/javascript")


def _json(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(text, status, dict(headers or {}), media_type="application/json")


class _Guard:
    """Refuses what a page of another origin may send, and adds the headers that bind our page."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal = self._refusal(request)
        if refusal is not None:
            answer = _json({"error": refusal}, status=403, headers=HEADERS)
            await answer(scope, receive, send)
            return

        async def send_bound(message: Any) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                message["headers"] += [
                    (name.lower().encode(), value.encode())
                    for name, value in HEADERS.items()
                    if name.lower().encode() not in names
                ]
            await send(message)

        await self._app(scope, receive, send_bound)

    def _refusal(self, request: Request) -> str | None:
        host = request.headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name.strip("[]").lower() not in {item.lower() for item in self._hosts}:
            return "This server is not known by that name."
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return "Requests of other origins are refused."
        # Sent by browsers alone; "none" is an address typed by the user.
        site = request.headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and request.url.path != "/":
            return "Requests of other sites are refused."
        if request.method not in ("GET", "HEAD"):
            return "The dashboard only reads."
        return None
