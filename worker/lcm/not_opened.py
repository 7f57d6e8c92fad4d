"""Why a session could not be opened, in words that name who is at fault: LCM, the proxy, or a setting."""

from __future__ import annotations

import ssl
from datetime import datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidProxyStatus, NegotiationError

from worker.common.text import cut, printable, quote
from worker.contract.errors import SessionNotOpened, SettingsError
from worker.lcm.closing import how_it_closed, is_full, is_refusal, said_of
from worker.lcm.http_answer import Answer
from worker.lcm.socket import Socket
from worker.lcm.told import NO_SECRETS, Secrets
from worker.settings import LcmSettings
from worker.settings.tls_faults import TlsFault, TlsFaults

_LONGEST_REASON = 500
_REFUSED = frozenset({401, 403})
_REFUSED_BY_PROXY = _REFUSED | {407}
_TLS_RECORDS = frozenset({b"\x15\x03", b"\x16\x03"})
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Way:
    """One opening: by which TLS, and how far it came.

    `socket` is there once there is a connection to LCM, by the proxy or without; TLS and HTTP follow on it.
    """

    def __init__(self) -> None:
        self.tls: ssl.SSLContext | None = None
        self.socket: Socket | None = None

    @property
    def heard(self) -> bytes:
        """What LCM has said before a websocket was open."""
        return self.socket.heard if self.socket is not None else b""

    def connect(self, *args: Any, **kwargs: Any) -> Socket:
        """Make the connection; called by the library."""
        self.socket = Socket(*args, **kwargs)
        return self.socket


def port_of(url: SplitResult) -> int:
    """Return the port of a URL, or its scheme's."""
    return url.port or _PORTS[url.scheme]


def not_opened(
    error: Exception, way: Way, settings: LcmSettings, now: datetime, secrets: Secrets = NO_SECRETS
) -> SessionNotOpened:
    """Return the error for what kept a session from being opened; what LCM said, without secrets."""
    url, proxy = urlsplit(settings.url), urlsplit(settings.proxy)
    at_proxy = bool(settings.proxy) and way.socket is None and not isinstance(error, SettingsError)
    text = f"no session with LCM at {url.hostname}:{port_of(url)}: "
    if at_proxy:
        text += f"the proxy {proxy.hostname}:{port_of(proxy)} (lcm.proxy): "
    if (answer := _answer_in(error, way)) is not None:
        answered, pause = answer.told(now)
        refused = answer.status in (_REFUSED_BY_PROXY if at_proxy else _REFUSED)
        full = answer.is_busy and not at_proxy
        return SessionNotOpened(f"{text}it {answered}", refused=refused, pause=pause, full=full)
    if (fault := _tls_fault(error, way, settings)) is not None:
        remedy = "" if at_proxy else fault.remedy
        return SessionNotOpened(text + fault.why, remedy=remedy, refused=fault.refused)
    why, said, remedy, refused = _why(error, way, settings)
    nobody_listens = isinstance(error, ConnectionRefusedError)
    said = cut(secrets(said), _LONGEST_REASON)
    full = isinstance(error, ConnectionClosed) and is_full(error)
    return SessionNotOpened(
        text + why, remedy=remedy, said=said, refused=refused, nobody_listens=nobody_listens, full=full
    )


def _tls_fault(error: Exception, way: Way, settings: LcmSettings) -> TlsFault | None:
    """Return what is wrong with TLS, where that is what kept the session from being opened."""
    faults = TlsFaults("lcm", settings)
    lost = error if isinstance(error, ssl.SSLError) else way.socket.lost if way.socket is not None else None
    if isinstance(lost, ssl.SSLError):
        return faults.of(lost)
    if way.tls is None:
        return faults.spoken() if way.heard[:2] in _TLS_RECORDS else None
    if way.socket is None or way.heard:
        return None
    match error:
        case TimeoutError() | ConnectionAbortedError() if not way.socket.is_open:
            late = faults.late()
            return TlsFault(f"{_not_in_time(settings)}: {late.why}", late.remedy)
        case ConnectionError() | InvalidMessage():
            return faults.closed(is_open=way.socket.is_open)
    return None


def _not_in_time(settings: LcmSettings) -> str:
    return f"not open within {settings.connect_timeout:g} s (lcm.connect_timeout)"


def _answer_in(error: Exception, way: Way) -> Answer | None:
    """Return the HTTP answer that opened no websocket, from LCM or the proxy."""
    if isinstance(error, InvalidProxyStatus):
        after = [*error.response.headers.get_all("Retry-After"), ""]  # there may be several
        return Answer(error.response.status_code, after[0])
    return None if way.socket is None else way.socket.answer


def _why(error: Exception, way: Way, settings: LcmSettings) -> tuple[str, str, str, bool]:
    """Return why a session could not be opened, what LCM said, the remedy, and whether LCM refused our identity."""
    why, said, remedy, refused = type(error).__name__, "", "", False
    match error:
        case TimeoutError():
            why = _not_in_time(settings)
        case ConnectionClosed():
            why = f"it closed during the greeting ({how_it_closed(error)})"
            said, refused = said_of(error), is_refusal(error)
        case NegotiationError() if "subprotocol" in str(error):
            why, remedy = "no agreement on a subprotocol", "see lcm.subprotocols"
            said = str(error) if settings.subprotocols else "LCM chose one, and none was offered"
        case InvalidMessage() if not way.heard and way.tls is None:
            why, remedy = "it closed the connection without a word", "see whether lcm.url needs wss:// there"
        case InvalidMessage() if way.heard:
            why, remedy = "it is no websocket server", "see lcm.url"
            said = quote(way.heard.split(b"\n")[0].decode(errors="replace").rstrip())
        case SettingsError():
            why = str(error)
        case OSError():
            why = error.strerror or str(error) or why
        case _:
            said = str(error)  # it may quote a header of the reply
    return why, printable(said), remedy, refused
