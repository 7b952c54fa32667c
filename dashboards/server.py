"""Serving the dashboard: where it listens, by which names, and beside what else it runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from dashboards.app import LOOPBACK, make_app
from dashboards.source import Source
from kernels.errors import NasError
from studies.workspace import Workspace

PORT = 8765
"""Where the dashboard listens unless another port is given."""
_NICE = 5
"""How far the server stands back for a search on the same cores; exports are not held back."""


def serve(
    workspace: Workspace | Path | str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the dashboard of a workspace until interrupted.

    The record is opened read-only for the moment of each question, so that a running study is
    neither blocked nor slowed; it may be at rest, in use, or begin later.

    Args:
        workspace: a directory with a record.
        host: address to listen at; the default is reached from this machine only.
        port: to listen at; 0 takes a free one, None :data:`PORT` or a free one.
        open_browser: whether to show the page in the default browser.
        on_ready: told the page's address once it can be opened.

    Raises:
        NasError: the record cannot be read, or the port is taken.
    """
    import uvicorn

    Source(workspace).studies()  # what is wrong is said here, before a page opens
    listener = _listen(host, port)
    try:
        app = make_app(workspace, hosts=_names(host))
        if hasattr(os, "nice"):
            os.nice(_NICE)  # on Linux of this thread and those it starts from here on
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        address = _address(host, listener.getsockname()[1])

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                on_ready(address)
                if open_browser:
                    Thread(target=_show, args=(address,), daemon=True).start()

        Server(settings).run(sockets=[listener])
    finally:
        listener.close()


def _address(host: str, port: int) -> str:
    """Return where a browser on this machine finds the page."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


def _show(address: str) -> None:
    import webbrowser

    webbrowser.open(address)


def _listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens; without a port at the usual one, or one that is free."""
    if port is None:
        try:
            return _listen(host, PORT)
        except NasError:
            return _listen(host, 0)
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
    if host in LOOPBACK:
        return LOOPBACK
    own = socket.gethostname()
    try:
        addresses = {str(item[4][0]) for item in socket.getaddrinfo(own, None)}
    except OSError:
        addresses = set()
    return (*LOOPBACK, host, own, socket.getfqdn(), *sorted(addresses))
