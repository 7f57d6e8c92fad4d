"""The health server: the pages that it is given, over HTTP.

The server runs in threads of its own and asks the event loop for each page, so a blocked event loop gets an answer of
its own (503), unlike a worker that is gone.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any, Self

from worker.contract.errors import SettingsError
from worker.observability.log import Log

MOST_CONNECTIONS = 32
LARGEST_REQUEST = 16 * 1024
"""Bytes of a request; the library alone would keep 6 MiB of headers for each connection."""

_LOOP_PATIENCE = 5.0
_REQUEST_TIMEOUT = 10.0  # seconds for the whole of a connection, waiting for the event loop included
_POLL = 0.1
_TEXT = "text/plain; charset=utf-8"
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: `body` is of `content_type`; `style` is what a browser may take for its style, else nothing."""

    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK
    style: str = "'none'"


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
        """The port that the server listens on, also where the settings say 0, which is any free one."""
        return self._server.server_address[1] if self._server else 0

    async def __aenter__(self) -> Self:
        """Listen. Raises SettingsError where the address can't be had."""
        handler = handler_of(_pages_on(asyncio.get_running_loop(), self._pages, self._log))
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
    """A thread for each connection, of which there are few, each for a short time.

    At the limit the oldest connection gives way, so that clients that send nothing keep nobody from an answer.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = (
        128  # connections that wait to be accepted; with the default of 5, a burst delays a probe
    )

    def __init__(self, *args: Any) -> None:
        self._opened: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        with self._lock:
            if len(self._opened) >= MOST_CONNECTIONS:
                self._end(next(iter(self._opened)))
            self._opened[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End the connections that take too long; called every _POLL seconds, and after each new connection."""
        with self._lock:
            now = time.monotonic()
            for late in [one for one, since in self._opened.items() if now - since > _REQUEST_TIMEOUT]:
                self._end(late)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that was served."""
        with self._lock:
            self._opened.pop(request, None)
        super().shutdown_request(request)

    def _end(self, request: socket.socket) -> None:
        del self._opened[request]
        with suppress(OSError):
            # Wakes its thread, which then closes it.
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing about a client that hung up."""


class _Ipv6Server(_Server):
    address_family = socket.AF_INET6


class _Bounded:
    """The lines that a client says, LARGEST_REQUEST bytes of them at most."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        self._left = LARGEST_REQUEST
        self.close = file.close

    def readline(self, limit: int) -> bytes:
        """Return the next line. Raises HTTPException, which the library answers by 431, where nothing is left."""
        if not self._left:
            raise HTTPException(f"the request has more than {LARGEST_REQUEST} bytes")
        line = self._file.readline(min(limit, self._left))
        self._left -= len(line)
        return line


def handler_of(page_of: Callable[[str], Page]) -> type[BaseHTTPRequestHandler]:
    """Return what handles the one request of a connection; `page_of` is given the path, and may wait."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT
        server_version = "lcm-worker"
        sys_version = ""

        def setup(self) -> None:
            super().setup()
            self.rfile = _Bounded(self.rfile)  # type: ignore[assignment] # all that the library calls

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_: object) -> None:
            """Log no requests: an orchestrator asks every few seconds."""

        def _answer(self, *, with_body: bool) -> None:
            page = page_of(self.path.partition("?")[0])
            self.send_response(page.status)
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(page.body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", f"{_NOTHING}; style-src {page.style}")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if with_body:
                self.wfile.write(page.body)

    return Handler


def _pages_on(loop: asyncio.AbstractEventLoop, pages: Pages, log: Log) -> Callable[[str], Page]:
    """Return what asks the event loop for a page, from another thread."""

    def page_of(path: str) -> Page:
        asked = asyncio.run_coroutine_threadsafe(_make(pages, path, log), loop)
        try:
            return asked.result(_LOOP_PATIENCE)
        except TimeoutError:
            asked.cancel()
            stuck = f"the event loop has not turned for {_LOOP_PATIENCE:g} s\n"
            return Page(stuck.encode(), _TEXT, HTTPStatus.SERVICE_UNAVAILABLE)

    return page_of


async def _make(pages: Pages, path: str, log: Log) -> Page:
    if path not in pages:
        known = ", ".join(pages)
        return Page(f"no such page; there are {known}\n".encode(), _TEXT, HTTPStatus.NOT_FOUND)
    try:
        return pages[path]()
    except Exception:
        log.exception("health.broke", path=path)
        return Page(b"a defect of the worker; see its log\n", _TEXT, HTTPStatus.INTERNAL_SERVER_ERROR)
