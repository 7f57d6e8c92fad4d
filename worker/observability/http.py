"""Answers over HTTP how the worker is: `/livez`, `/readyz`, `/metrics`.

The server runs in threads of its own and asks the event loop for each page, so that a loop which is stuck is told
apart from a worker that is gone: that, too, gets an answer.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from worker.errors import SettingsError
from worker.telemetry import Log

_LOOP_PATIENCE = 5.0
_REQUEST_TIMEOUT = 5.0
_POLL = 0.1
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: `body` is of `content_type`."""

    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK


Pages = Mapping[str, Callable[[], Page]]
"""What makes each page, by its path; called on the event loop."""


class HealthServer:
    """Serves `pages` on an address while it is entered, as an asynchronous context manager."""

    def __init__(self, address: tuple[str, int], pages: Pages, log: Log) -> None:
        self._address = address
        self._pages = pages
        self._log = log
        self._server: ThreadingHTTPServer | None = None
        self._serving: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, also where the settings leave the choice open by 0."""
        return self._server.server_address[1] if self._server else 0

    async def __aenter__(self) -> Self:
        """Listen. Raises SettingsError where the address can't be had."""
        handler = _handler_of(self._pages, asyncio.get_running_loop(), self._log)
        kind = _Ipv6Server if ":" in self._address[0] else _Server
        try:
            self._server = kind(self._address, handler)
        except OSError as error:
            host, port = self._address
            raise SettingsError(
                f"health.listen: {host}:{port} can't be listened on: {error.strerror or error}; "
                "give each worker of this host an address of its own"
            ) from error
        self._serving = threading.Thread(target=self._server.serve_forever, args=(_POLL,), daemon=True)
        self._serving.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that hung up."""


class _Ipv6Server(_Server):
    address_family = socket.AF_INET6


def _handler_of(pages: Pages, loop: asyncio.AbstractEventLoop, log: Log) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT
        server_version = "lcm-worker"
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_: object) -> None:
            """Log no requests: an orchestrator asks every few seconds."""

        def _answer(self, *, with_body: bool) -> None:
            page = self._page()
            self.send_response(page.status)
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(page.body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if with_body:
                self.wfile.write(page.body)

        def _page(self) -> Page:
            asked = asyncio.run_coroutine_threadsafe(_make(pages, self.path.partition("?")[0], log), loop)
            try:
                return asked.result(_LOOP_PATIENCE)
            except TimeoutError:
                asked.cancel()
                stuck = f"the event loop has not turned for {_LOOP_PATIENCE:g} s\n"
                return Page(stuck.encode(), _TEXT, HTTPStatus.SERVICE_UNAVAILABLE)

    return Handler


async def _make(pages: Pages, path: str, log: Log) -> Page:
    if path not in pages:
        known = ", ".join(pages)
        return Page(f"no such page; there are {known}\n".encode(), _TEXT, HTTPStatus.NOT_FOUND)
    try:
        return pages[path]()
    except Exception:
        log.exception("health.broke", path=path)
        return Page(b"a defect of the worker; see its log\n", _TEXT, HTTPStatus.INTERNAL_SERVER_ERROR)
