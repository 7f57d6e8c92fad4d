"""The worker's log: one JSON object per line, or coloured text on a terminal.

`build_log` is the only place that knows how lines are made. Components are given a `Log` and name an event and
its fields; what they pass is data, which can't inject a line.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast
from urllib.parse import quote

import msgspec

from worker.common.callbacks import ignore
from worker.common.text import cut, printable, well_formed
from worker.contract.errors import WorkerError
from worker.observability.sink import ByteStream, Sink
from worker.observability.structured import structlog
from worker.settings import LogSettings

# At DEBUG these print query strings, Authorization headers, payloads and frames.
_TALKATIVE = ("websockets", "aiormq", "aio_pika", "asyncio")
_QUIET = {
    # Logs lost and refused connections at ERROR with tracebacks; the link's own events tell them better.
    "aiormq.connection": logging.CRITICAL,
    # Warn of each trace context that a producer got wrong, of headers for the collector, in which tokens may be, and of
    # each try to send.
    "opentelemetry.trace": logging.ERROR,
    "opentelemetry.util": logging.ERROR,
    "opentelemetry.exporter": logging.ERROR,
}
# UTF-8 of characters that some readers take for line breaks, though JSON doesn't, of terminal control codes, and of
# marks that are not seen or reverse what is.
_BREAKING = re.compile(
    rb"\xc2[\x80-\x9f\xad]|\xd8\x9c|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf|\x7f"
)
_DROPPED = "the reader of the log stalled or the disk was full; see what reads the worker's standard error"
_UNHANDLED = "an exception that nobody handled"
LONGEST_TEXT = 32 * 1024  # bytes of UTF-8; the longest are tracebacks
_encode = msgspec.json.Encoder().encode
_AS_IT_IS = {int, float, bool, type(None)}

Event = MutableMapping[str, Any]
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class Log(Protocol):
    """The log as components see it."""

    def debug(self, event: str, **fields: Any) -> Any: ...
    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...
    def exception(self, event: str, **fields: Any) -> Any: ...


class RecordLog(Log, Protocol):
    """The log of a worker, which takes what it logs for each job at a lower price."""

    def record(self, event: str, fields: msgspec.Struct) -> Any:
        """Log what `info` would with these fields, of which there is one at least: texts, numbers and None."""

    def dropped(self) -> int:
        """Return how many lines could not be written."""


def build_log(
    settings: LogSettings, *, worker: str, hide: Callable[[str], str] = str, stream: ByteStream | None = None
) -> RecordLog:
    """Return the log of this process, as `log.level`, `log.format` and `log.accounts` ask; `hide` masks secrets."""
    out = stream if stream is not None else _standard_error()
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    hashed = settings.accounts == "hashed"
    processors: list[Any] = [
        structlog.processors.ExceptionRenderer(_without_texts)
        if hashed
        else structlog.processors.format_exc_info,
        *([hash_accounts] if hashed else []),
        _Plain(hide),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _render_console(worker) if console else _RenderJson(worker),
    ]
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    wrapper = structlog.make_filtering_bound_logger(level)
    sink = Sink(out)
    log = structlog.wrap_logger(sink, processors, wrapper_class=wrapper, context_class=dict)
    bound = cast(Log, log.bind())  # unbound, structlog would bind it anew for every line
    sink.on_dropped = lambda lines: bound.warning("log.dropped", lines=lines, remedy=_DROPPED)
    record: Callable[[str, msgspec.Struct], object] = _record_by(bound.info)
    if level > logging.INFO:
        record = ignore
    elif not (console or hashed):
        record = _JsonRecords(worker, hide, sink.soon, otherwise=record)
    return _Log(
        bound.debug, bound.info, bound.warning, bound.error, bound.exception, record, lambda: sink.dropped
    )


@dataclass(slots=True, frozen=True)
class _Log:
    debug: Callable[..., Any]
    info: Callable[..., Any]
    warning: Callable[..., Any]
    error: Callable[..., Any]
    exception: Callable[..., Any]
    record: Callable[[str, msgspec.Struct], Any]
    dropped: Callable[[], int]


def _record_by(info: Callable[..., object]) -> Callable[[str, msgspec.Struct], object]:
    return lambda event, fields: info(event, **msgspec.structs.asdict(fields))


def _standard_error() -> ByteStream:
    # A process may have been started without one, by `2>&-`.
    return Path(os.devnull).open("wb") if sys.stderr is None else sys.stderr.buffer


def route_library_logs(log: Log) -> None:
    """Send what libraries log through `log`, as events named `library.log`, never below WARNING.

    Likewise the exceptions that nobody handled, which Python itself would print with whatever they hold. Touches
    Python's global state, so it is for the process's entry point alone.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(_Forward(log))
    root.setLevel(logging.WARNING)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=True)

    def tell(error: BaseException | None) -> None:
        log.error("library.log", library="python", message=_UNHANDLED, template=_UNHANDLED, exc_info=error)

    sys.unraisablehook = lambda unraisable: tell(unraisable.exc_value)
    threading.excepthook = lambda ended: tell(ended.exc_value)


class _Forward(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        template = str(record.msg)
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's mistake in logging must not become the worker's
            message = template
        level = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        fields: dict[str, Any] = {"exc_info": record.exc_info} if record.exc_info else {}
        level("library.log", library=record.name, message=message, template=template, **fields)


def hash_account(account: str) -> str:
    """Return the hash that replaces an account number in the log: equal for equal accounts."""
    return "sha256:" + hashlib.sha256(account.encode("utf-8", "replace")).hexdigest()[:16]


def hash_accounts(_log: object, _method: str, event: Event) -> Event:
    """Replace the account of a line by its hash in all fields, and remove texts that may hold any other account.

    Those are LCM's own words (`said`, and what an error quotes of others), the messages of libraries, which may hold
    frames, and the ids of a message or job without a known account. `unread` is what a job has in its account's place.
    """
    event.pop("said", None)
    if event["event"] == "library.log":
        event["message"] = event["template"].partition("\n")[0]
    for name, value in event.items():
        if isinstance(value, WorkerError):
            event[name] = str(value)
    account = event.get("account") or event.get("unread")
    # Where a job's account can't be read, its id, which may be that of the message, may be the account.
    for name in ("message_id",) if account else ("message_id", "job_id"):
        if id_ := event.get(name):
            event[name] = hash_account(id_)
    if account:
        hashed = hash_account(account)
        for name in event.keys() - {"timestamp", "level", "event", "unread"}:
            if isinstance(event[name], str):
                event[name] = without_account(event[name], account, hashed)
    return event


def without_account(text: str, account: str, instead: str) -> str:
    """Return a text with something instead of this account number, in each form in which texts have it."""
    for form in _forms_of(account):
        text = text.replace(form, instead)
    return text


def _forms_of(account: str) -> set[str]:
    """Return an account as texts have it: as it is, quoted by Python or in a URL, escaped in JSON or for a terminal."""
    in_url = quote(account.encode("utf-8", "replace"), safe="")
    return {account, repr(account)[1:-1], json.dumps(account)[1:-1], printable(account), in_url}


def _without_texts(exc_info: _ExcInfo) -> str:
    """Format an exception and its causes without their texts, which may hold account numbers."""
    error: BaseException | None = exc_info[1]
    lines: list[str] = []
    while error is not None:
        lines += [f"{type(error).__name__}\n", *traceback.format_tb(error.__traceback__)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "".join(lines).rstrip("\n")


class _Plain:
    """Reduces every field to JSON types, in text that UTF-8 can hold, and masks known secrets.

    Masking is the last defence, against secrets in the texts of libraries.
    """

    def __init__(self, hide: Callable[[str], str]) -> None:
        self._hide = hide

    def __call__(self, _log: object, _method: str, event: Event) -> Event:
        event.pop("template", None)
        event.pop("unread", None)
        for name, value in event.items():
            if type(value) not in _AS_IT_IS:
                event[name] = self._plain(value)
        return event

    def _plain(self, value: Any) -> Any:
        if type(value) is str:
            return cut(self._hide(well_formed(value)), LONGEST_TEXT)
        if type(value) in _AS_IT_IS:
            return value
        if isinstance(value, dict):
            return {self._plain(str(name)): self._plain(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(item) for item in value]
        if isinstance(value, WorkerError):
            return self._plain(value.message)
        return self._plain(str(value))


class _RenderJson:
    def __init__(self, worker: str) -> None:
        self._worker = worker

    def __call__(self, _log: object, _method: str, event: Event) -> bytes:
        line = _encode(
            {
                "timestamp": event.pop("timestamp"),
                "level": event.pop("level"),
                "event": event.pop("event"),
                "worker": self._worker,
                **event,
            }
        )
        return _unbroken(line)


class _JsonRecords:
    """Writes records as JSON without the way of all other events, which costs three times as much.

    That is for records in whose texts nothing is to be done: they are short, printable ASCII, and hold no secret. For
    them both ways make the same line.
    """

    def __init__(
        self,
        worker: str,
        hide: Callable[[str], str],
        write: Callable[[bytes], object],
        otherwise: Callable[[str, msgspec.Struct], object],
    ) -> None:
        self._worker = _unbroken(_encode(worker))
        self._hide = hide
        self._write = write
        self._otherwise = otherwise

    def __call__(self, event: str, fields: msgspec.Struct) -> None:
        texts = [value for value in msgspec.structs.astuple(fields) if type(value) is str]
        # A secret in one of them is one in all of them together.
        together = " ".join([event, *texts])
        is_plain = together.isascii() and together.isprintable() and len(together) <= LONGEST_TEXT
        if not is_plain or self._hide(together) != together:
            self._otherwise(event, fields)
            return
        self._write(
            b'{"timestamp":%b,"level":"info","event":%b,"worker":%b,%b'
            % (_encode(datetime.now(UTC)), _encode(event), self._worker, _encode(fields)[1:])
        )


def _unbroken(line: bytes) -> bytes:
    return line if line.isascii() and b"\x7f" not in line else _BREAKING.sub(_escape, line)


def _escape(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())


def _render_console(worker: str) -> Callable[[object, str, Event], bytes]:
    # In the order of the call, which begins with what matters.
    renderer = structlog.dev.ConsoleRenderer(colors=True, pad_event_to=20, sort_keys=False)

    def render(log: object, method: str, event: Event) -> bytes:
        event["worker"] = worker
        trace = event.pop("exception", "")
        shown = {
            name: printable(value) if isinstance(value, str) else value
            for name, value in event.items()
            if value is not None
        }
        text = renderer(log, method, shown)
        # Indented, so that no line of an exception's text can be taken for a line of the log.
        lines = [f"    {printable(line)}" for line in trace.split("\n")] if trace else []
        return "\n".join([text, *lines]).encode()

    return render
