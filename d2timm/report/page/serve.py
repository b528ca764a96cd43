"""Serve a page to this machine's browsers; it follows the runs."""

from __future__ import annotations

import errno
import re
import signal
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...utils.signals import Interrupted
from ...utils.text import one_line
from .content import make_content
from .source import open_source, state_of
from .write import render

__all__ = ["LivePage", "PageServer", "serve"]

ADDRESS = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost")
#: Seconds between two looks at the runs, which take CPU time that trainings need
PERIOD = 5.0
SHARE = 0.05  # of the time at most is spent on new pages


class LivePage:
    """The page of a folder as it was a moment ago.

    Args:
        folder: of a sweep, a choice or a run.
        period: seconds for which a page is good enough.
    """

    def __init__(self, folder: Path, period: float = PERIOD) -> None:
        self.folder, self.period = folder, period
        self._lock = threading.Lock()
        self._state: int | None = None
        self._content, self._version, self._due = b"", "", 0.0

    def version(self) -> str:
        """A text that differs if the page has changed."""
        self._update()
        return self._version

    def content(self) -> bytes:
        """The HTML."""
        self._update()
        return self._content

    def _update(self) -> None:
        with self._lock:
            start = time.monotonic()
            if self._content and start < self._due:
                return
            state = state_of(self.folder)
            if state != self._state:
                try:
                    source = open_source(self.folder, intervals=True)
                except ConfigError:
                    if not self._content:
                        raise
                else:  # otherwise the folder is being moved, and the page of a moment ago is better than none
                    self._version = f"{state & (1 << 64) - 1:x}"
                    self._content = render(make_content(source), self._version)
                    self._state = state
            took = time.monotonic() - start
            self._due = time.monotonic() + max(self.period, took / SHARE)


class PageServer(ThreadingHTTPServer):
    """Serves a page, and nothing else, to browsers of this machine.

    Args:
        page: the page.
        port: of the server; 0: any that is free.
    """

    daemon_threads = True

    def __init__(self, page: LivePage, port: int) -> None:
        self.page = page
        super().__init__((ADDRESS, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about a tab that was closed while it waited."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = 30  # seconds for which a connection may say nothing

    def do_GET(self) -> None:
        """Answer with the page or its version."""
        host = (self.headers.get("Host") or "").lower()
        if (
            re.sub(r":\d*$", "", host) not in HOSTS
        ):  # another site that has this address as its own, for a browser
            self._answer(HTTPStatus.FORBIDDEN, b"wrong host", "text/plain")
            return
        if self.path not in ("/", "/version"):
            self._answer(HTTPStatus.NOT_FOUND, b"not found", "text/plain")
            return
        try:
            if self.path == "/":
                self._answer(HTTPStatus.OK, self.server.page.content(), "text/html; charset=utf-8")
            else:
                self._answer(HTTPStatus.OK, self.server.page.version().encode(), "text/plain")
        except ConfigError as error:
            text = one_line(error).encode(errors="replace")
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, text, "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not printed."""


def serve(folder: Path, port: int) -> None:
    """Serve the page of a folder until Ctrl-C.

    Raises:
        ConfigError: the folder has no runs, or the port cannot be used.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: must be between 0 and 65535; 0 takes any that is free")
    page = LivePage(folder)
    page.version()
    try:
        server = PageServer(page, port)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        reason = "it is in use" if in_use else error.strerror or one_line(error)
        raise ConfigError(f"--port {port}: {reason}; choose another, or 0 for any that is free") from None
    with server:
        print(f"The page is at {server.url} (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
        except Interrupted as interrupted:
            if interrupted.number != signal.SIGINT:
                raise
            print()
