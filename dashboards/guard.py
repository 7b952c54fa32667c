"""Who may ask the server what: browsers that show its own page, by a name it knows."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

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
"""What binds our page, and keeps other pages from reading or framing it."""
TOKEN = "x-paretonas-token"
"""Header that a page of ours sends with what it asks to be done."""
_LARGEST = 10_000
"""Bytes of a request's body; ours are a line."""


def json_response(
    content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return plain values as an answer; NaN is a fault, not JSON."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(text, status, dict(headers or {}), media_type="application/json")


class Guard:
    """Refuses what a page of another origin may send, and adds the headers that bind our page.

    Reading needs a host name that is ours, so that no page reads through a name of its own (DNS
    rebinding). Asking for work needs the token besides, which only our page holds.

    Args:
        app: what is guarded.
        hosts: names by which a browser may call the server.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, frozenset(host.lower() for host in hosts)
        self.token = secrets.token_urlsafe(24)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(Request(scope))
        if refusal is not None:
            answer = json_response({"error": refusal}, status=403, headers=HEADERS)
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
        if name.strip("[]").lower() not in self._hosts:
            return "This server is not known by that name."
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return "Requests of other origins are refused."
        # Sent by browsers alone; "none" is an address typed by the user.
        site = request.headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and request.url.path != "/":
            return "Requests of other sites are refused."
        if request.method in ("GET", "HEAD"):
            return None
        if request.method != "POST" or request.url.path != "/api/requests":
            return "The dashboard only reads."
        if not secrets.compare_digest(request.headers.get(TOKEN, ""), self.token):
            return "Only the dashboard's own page may ask for work; reload it."
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > _LARGEST:
            return "The request is too long."
        return None
