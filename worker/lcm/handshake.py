"""Opens sessions with LCM: URL, credentials, TLS, and the greeting.

The vendor publishes this for its metrics socket, so all of it is configurable here: a `name` query parameter, unique
among connections, and HTTP Basic credentials of that name and a token.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import connect
from websockets.exceptions import NegotiationError, WebSocketException
from websockets.typing import Subprotocol

from worker.common.dial import dial
from worker.contract.errors import SessionNotOpened, SettingsError
from worker.lcm import envelope, outcome_list
from worker.lcm.envelope import ErrorReply
from worker.lcm.not_opened import Way, not_opened, port_of
from worker.lcm.session import Ended, Session
from worker.lcm.socket import Socket
from worker.lcm.told import NO_SECRETS, Secrets, told
from worker.settings import LcmSettings
from worker.settings.rereading import Rereader
from worker.settings.tls import system_context

_CLOSE_TIMEOUT = 2.0


def session_name(pattern: str, *, worker: str, slot: int, unixtime: int) -> str:
    """Fill the placeholders of `lcm.session_name`."""
    return pattern.replace("{worker}", worker).replace("{n}", str(slot)).replace("{unixtime}", str(unixtime))


def connect_url(url: str, name: str) -> str:
    """Return the URL with `name` as its query parameter of that name, where there is one."""
    if not name:
        return url
    parts = urlsplit(url)
    query = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key != "name"]
    return urlunsplit(parts._replace(query=urlencode([*query, ("name", name)], quote_via=quote)))


def connect_headers(settings: LcmSettings, name: str) -> dict[str, str]:
    """Return the extra headers: those of the settings, and Basic credentials where there are any."""
    headers = {key: value.get_secret_value() for key, value in settings.headers.items()}
    user = settings.username or name
    password = settings.passwords[0].get_secret_value()
    if user or password:
        token = b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {token}"
    return headers


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow no redirect: credentials and account numbers are for the LCM of the settings alone."""
        return exc


class SessionOpener:
    """Opens sessions as the settings say. Raises SettingsError where the TLS files can't be used.

    `secrets` masks those that LCM tells back, here and in the sessions.
    """

    def __init__(self, settings: LcmSettings, worker: str, secrets: Secrets = NO_SECRETS) -> None:
        self._settings = settings
        self._worker = worker
        self._secrets = secrets
        self._full_errors = envelope.session_errors_of(settings.full_errors)
        self._session_errors = envelope.session_errors_of(settings.session_errors) | self._full_errors
        self._memory = outcome_list.ReplyMemory()
        # The library's own would obey SSLKEYLOGFILE, and the proxy's password is for the proxy alone.
        encrypted = settings.proxy.startswith("https:")
        self._proxy_tls: dict[str, Any] = {"proxy_ssl": system_context()} if encrypted else {}
        self._files = Rereader("lcm", settings, tls=settings.url.startswith("wss:"))

    async def __call__(self, slot: int, on_ended: Ended) -> Session:
        """Open one session and go through the greeting, all within `connect_timeout`.

        Raises:
            SessionNotOpened: for whatever reason; its text says which.
        """
        socket: Socket | None = None
        way = Way()
        try:
            way.tls = await self._files()
            async with asyncio.timeout(self._settings.connect_timeout):
                socket = await self._connect(slot, way)
                self._check_subprotocol(socket)
                await self._greet(socket)
        except BaseException as error:
            if socket is not None:
                socket.transport.abort()
            if isinstance(error, OSError | WebSocketException | ValueError | EOFError | SettingsError):
                raise not_opened(error, way, self._settings, datetime.now(UTC), self._secrets) from error
            raise
        fenced = bool(self._settings.ping_interval)
        return Session(
            socket,
            slot,
            self._session_errors,
            on_ended,
            full_errors=self._full_errors,
            fenced=fenced,
            memory=self._memory,
            secrets=self._secrets,
        )

    async def _connect(self, slot: int, way: Way) -> Socket:
        settings = self._settings
        name = session_name(settings.session_name, worker=self._worker, slot=slot, unixtime=int(time.time()))
        parts = urlsplit(settings.url)
        sock = None if settings.proxy else await dial(parts.hostname or "", port_of(parts))
        opened = await _Connect(
            connect_url(settings.url, name),
            sock=sock,
            additional_headers=connect_headers(settings, name),
            ssl=way.tls,
            subprotocols=[Subprotocol(name) for name in settings.subprotocols] or None,
            # A proxy from the environment would see every account number.
            proxy=settings.proxy or None,
            # A small compressed frame can inflate a thousandfold.
            compression=None,
            max_size=settings.max_reply,
            open_timeout=None,
            create_connection=cast(type[Socket], way.connect),
            ping_interval=settings.ping_interval or None,
            ping_timeout=settings.ping_timeout or None,
            close_timeout=_CLOSE_TIMEOUT,
            **self._proxy_tls,
        )
        return cast(Socket, opened)

    def _check_subprotocol(self, socket: Socket) -> None:
        if self._settings.subprotocols and socket.subprotocol is None:
            raise NegotiationError("LCM chose no subprotocol")

    async def _greet(self, socket: Socket) -> None:
        for greeting in self._settings.greeting:
            await socket.send(greeting.send.get_secret_value())
            if greeting.await_subtopic:
                await self._await_reply(socket, greeting.await_subtopic)

    async def _await_reply(self, socket: Socket, subtopic: str) -> None:
        answered = False
        while not answered:
            raw = bytes(await socket.recv(decode=False))
            answered = envelope.is_reply_of(raw, subtopic)
            error: object = outcome_list.classify(raw, self._session_errors)
            if answered and not isinstance(error, ErrorReply):
                error = envelope.error_of(raw, self._session_errors)
            if isinstance(error, ErrorReply):
                # An agent whose login is refused may get locked out by fast retries, as with a wrong password.
                refused = answered and not error.about_lcm
                said = told(error.remote_message, self._secrets)
                full = envelope.says(said, self._full_errors)
                why = "LCM answered the greeting with an error"
                raise SessionNotOpened(why, said=said, refused=refused, full=full)
