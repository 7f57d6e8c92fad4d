"""How lines of the log are made: their form, and what must never stand in one."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.contract.errors import InvalidJob, SessionNotOpened
from worker.contract.job import Job
from worker.observability.log import LONGEST_TEXT, RecordLog, build_log, hash_account, route_library_logs
from worker.settings import LogSettings
from worker.settings.secrets import hiding

ACCOUNT = "18|1|2|0|0|44|274"
SECRET = "hush-7d2f9"
JOB = Job(job_id="job-1", account_number="9|9", correlation_id="job-1")
NASTY = {
    "line feed": "one\ntwo",
    "carriage return": "one\r\ntwo",
    "escape sequence": "\x1b[2J\x1b[1;31mred",
    "null": "a\0b",
    "next line": "one\x85two",
    "line separator": "one\u2028two\u2029three",
    "c1 control": "\x9b31m",
    "delete": "a\x7fb",
    "reversal": "a\u202egnp\u2066\u2069b\u061c",
    "unseen": "a\u200bb\u00adc\u2060d\ufeff",
}
PLACES: dict[str, Callable[[str], Any]] = {
    "text": lambda text: text,
    "list": lambda text: [text],
    "table": lambda text: {text: text},
    "object": ValueError,
}


class Stream(io.BytesIO):
    """A stream that may be a terminal."""

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def lines(self) -> list[str]:
        """What was written, by every line break that any reader may know."""
        return self.getvalue().decode().splitlines()

    @property
    def line(self) -> dict[str, Any]:
        """The one JSON line that was written."""
        (line,) = self.lines
        decoded: dict[str, Any] = msgspec.json.decode(line)
        return decoded


def log_to(stream: Stream, *secrets: str, **settings: Any) -> RecordLog:
    return build_log(
        LogSettings(**{"format": "json"} | settings), worker="w-1", hide=hiding(secrets), stream=stream
    )


def chained(cause: Exception, error: Exception) -> Exception:
    """Return an error as it is when it was raised from another one."""
    try:
        try:
            raise cause  # noqa: TRY301 - the traceback is what the test is about
        except Exception as first:
            raise error from first
    except Exception as second:  # noqa: BLE001
        return second


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave Python's global logging as it was."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level
    for name in ("websockets", "aiormq", "aio_pika", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_json_line_begins_with_what_every_line_has() -> None:
    """A line is one JSON object: timestamp, level, event, worker, then the event's fields in their order."""
    stream = Stream()
    log_to(stream).info(
        "job.succeeded", job_id="job-1", outcomes=2, lcm_ms=8.2, redelivered=False, error=None
    )
    line = stream.line
    assert list(line)[:4] == ["timestamp", "level", "event", "worker"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "level": "info", "event": "job.succeeded", "worker": "w-1",
        "job_id": "job-1", "outcomes": 2, "lcm_ms": 8.2, "redelivered": False, "error": None,
    }  # fmt: skip


@pytest.mark.parametrize(("level", "written"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_of_the_settings_is_the_least_that_is_written(level: str, written: int) -> None:
    """Lines below log.level are left out, the others carry their own level."""
    stream = Stream()
    log = log_to(stream, level=level)
    for write in (log.debug, log.info, log.warning, log.error):
        write("event")
    levels = [msgspec.json.decode(line)["level"] for line in stream.lines]
    assert levels == ["debug", "info", "warning", "error"][-written:]


@pytest.mark.parametrize(
    ("setting", "terminal", "json"),
    [("auto", True, False), ("auto", False, True), ("json", True, True), ("console", False, False)],
)
def test_the_format_auto_is_for_whoever_reads(setting: str, terminal: bool, json: bool) -> None:
    """With log.format auto, a terminal gets text and anything else JSON; the others say which."""
    stream = Stream(terminal=terminal)
    log_to(stream, format=setting).info("worker.ready")
    assert stream.getvalue().startswith(b"{") is json


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", NASTY)
def test_no_text_breaks_a_json_line(kind: str, place: str) -> None:
    """Line breaks and control characters in data stay inside of their line, escaped, and come back when read."""
    stream = Stream()
    log_to(stream).warning("library.log", said=PLACES[place](NASTY[kind]))
    assert stream.getvalue().decode().removesuffix("\n").isprintable()
    expected = PLACES[place](NASTY[kind])
    assert stream.line["said"] == (str(expected) if place == "object" else expected)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", NASTY)
def test_no_text_breaks_a_console_line(kind: str, place: str) -> None:
    """On a terminal, too, line breaks and escape sequences in data are shown, not obeyed."""
    stream = Stream(terminal=True)
    log_to(stream, format="console").warning("library.log", said=PLACES[place](NASTY[kind]))
    (line,) = stream.lines
    without_colours = re.sub(r"\x1b\[\d*m", "", line)
    assert without_colours.isprintable()
    assert "red" not in NASTY[kind] or "\x1b[2J" not in line


def test_a_console_line_tells_what_matters_first() -> None:
    """Its fields are in the order of the call, and those without a value are not there."""
    stream = Stream(terminal=True)
    log_to(stream, format="console").warning(
        "job.deferred", job_id="j-1", error=None, reason="timeout", attempts=1
    )
    (line,) = stream.lines
    assert re.findall(r"(\w+)=", re.sub(r"\x1b\[\d*m", "", line)) == [
        "job_id",
        "reason",
        "attempts",
        "worker",
    ]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_lone_surrogate_is_written_escaped(form: str) -> None:
    """Text that UTF-8 can't hold is written as its escape, and numbers beside it stay numbers."""
    stream = Stream()
    log_to(stream, format=form).info("event", account="a\ud800b", table={"\udfff": ["\udfff"]}, attempts=1)
    assert rb"a\ud800b" in stream.getvalue().replace(rb"\\", b"\\")
    assert form == "console" or stream.line["attempts"] == 1


def test_a_forged_line_in_a_traceback_is_told_from_the_logs_own() -> None:
    """On a terminal the lines of a traceback are indented and escaped, whatever an exception's text holds."""
    stream = Stream(terminal=True)
    error = chained(ValueError("x\n2026-01-31T12:00:00Z [info] worker.ready\x1b[2J"), KeyError())
    log_to(stream, format="console").error("job.crashed", exc_info=error)
    first, *others = stream.lines
    assert "job.crashed" in first
    assert any("worker.ready" in line for line in others)
    assert all(line.startswith("    ") and line.isprintable() for line in others)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_a_secret_appears_in_no_level_and_in_no_traceback(level: str, form: str) -> None:
    """A known secret is starred in fields, in URLs, inside of lists, tables and objects, and in chained errors."""
    stream = Stream()
    log = log_to(stream, "hunter22", "hunt", level="debug", format=form)
    error = chained(OSError("connecting to ws://u:hunter22@host/ failed"), RuntimeError("token=hunter22"))
    said = ["hunter22", {"hunter22": error}]
    getattr(log, level)(
        "event", url="amqp://u:hunter22@host/?x=hunter22", said=said, error=error, exc_info=error
    )
    text = stream.getvalue().decode()
    assert "hunt" not in text
    assert "amqp://u:**********@host/?x=**********" in text
    assert "connecting to ws://u:**********@host/ failed" in text


def test_hashed_accounts_stand_in_no_field() -> None:
    """With hashed accounts the line's account is replaced wherever it stands, and LCM's own words are left out."""
    stream = Stream()
    log_to(stream, accounts="hashed").warning(
        "job.failed",
        account=ACCOUNT,
        job_id=f"job-{ACCOUNT}",
        reason=f"LCM said {ACCOUNT!r}",
        said="Invalid 18",
    )
    line = stream.line
    hashed = hash_account(ACCOUNT)
    assert (line["account"], line["job_id"]) == (hashed, f"job-{hashed}")
    assert line["reason"] == f"LCM said '{hashed}'"
    assert "said" not in line


@pytest.mark.parametrize("accounts", ["plain", "hashed"])
def test_an_error_is_told_with_the_words_of_others_only_where_accounts_are_plain(accounts: str) -> None:
    """What an error quotes of LCM's, or of a job's wrong field, may be an account number of any job."""
    stream = Stream()
    wrong = InvalidJob("route must be a word, found '18|1'", job=JOB, unquoted="route must be a word")
    errors = {"error": SessionNotOpened("refused", said="18|1 is unknown"), "reason": wrong}
    log_to(stream, accounts=accounts).warning("lcm.session_failed", **errors)
    told = (stream.line["error"], stream.line["reason"])
    if accounts == "plain":
        assert told == ("refused: 18|1 is unknown", "route must be a word, found '18|1'")
    else:
        assert told == ("refused", "route must be a word")


@pytest.mark.parametrize("accounts", ["plain", "hashed"])
def test_what_stands_in_an_accounts_place_is_hashed_where_an_id_repeats_it(accounts: str) -> None:
    """A job whose account is a number has no readable account; that number is never a field of its own."""
    stream = Stream()
    log_to(stream, accounts=accounts).warning("job.failed", account=None, unread="77001", job_id="job 77001")
    assert "unread" not in stream.line
    assert stream.line["job_id"] == ("job 77001" if accounts == "plain" else f"job {hash_account('77001')}")


def test_the_id_of_a_message_whose_account_is_unknown_is_hashed() -> None:
    """A producer may have made it of the account number."""
    stream = Stream()
    log_to(stream, accounts="hashed").error("job.crashed", message_id=ACCOUNT)
    assert stream.line["message_id"] == hash_account(ACCOUNT)
    failed = Stream()
    log_to(failed, accounts="hashed").warning("job.failed", job_id=ACCOUNT, account=None)
    assert failed.line["job_id"] == hash_account(ACCOUNT)


@pytest.mark.parametrize("account", ["18\\1", "it's\u20281", 'a"b', "ü|1"])
def test_hashed_accounts_are_found_in_their_escaped_forms(account: str) -> None:
    """An account that a text quotes as Python, as JSON or as a URL does is found as well."""
    stream = Stream()
    quoted = f"{account!r} and {msgspec.json.encode(account).decode()} and {quote(account, safe='')}"
    log_to(stream, accounts="hashed").info("job.failed", account=account, reason=quoted)
    assert stream.line["reason"].count(hash_account(account)) == 3


def test_hashed_accounts_leave_the_numbers_of_a_line_alone() -> None:
    """An account that is as short as a digit does not garble the line's own timestamp, level and event."""
    stream = Stream()
    log_to(stream, accounts="hashed").info("event.1", account="1", attempts=1)
    assert stream.line["event"] == "event.1"
    assert stream.line["attempts"] == 1
    assert "sha256" not in stream.line["timestamp"]


def test_hashed_accounts_keep_tracebacks_to_places_and_types() -> None:
    """With hashed accounts a traceback names every exception of the chain and where it was, but not its text."""
    stream = Stream()
    error = chained(KeyError(ACCOUNT), RuntimeError(f"no {ACCOUNT}"))
    log_to(stream, accounts="hashed").error("job.crashed", exc_info=error)
    told = stream.line["exception"]
    assert ACCOUNT not in told
    assert told.startswith("RuntimeError\n")
    assert "\nKeyError\n" in told
    assert "test_log.py" in told


def test_equal_accounts_have_equal_hashes() -> None:
    """The hash tells accounts apart and lets one be followed through the log, an odd one included."""
    assert hash_account(ACCOUNT) == hash_account(ACCOUNT)
    assert len({hash_account(account) for account in (ACCOUNT, f"{ACCOUNT} ", "", "\ud800")}) == 4


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("name", ["websockets", "websockets.client", "aiormq.channel", "aio_pika", "asyncio"])
def test_libraries_say_nothing_below_warning(name: str) -> None:
    """The pitfall of logs: at DEBUG websockets and aiormq print credentials and frames; log.level can't ask for it."""
    stream = Stream()
    route_library_logs(log_to(stream, level="debug"))
    library = logging.getLogger(name)
    for write in (library.debug, library.info, library.warning):
        write("%s", "said")
    assert [stream.line[name] for name in ("event", "level", "library", "message")] == [
        "library.log", "warning", name, "said",
    ]  # fmt: skip


@pytest.mark.usefixtures("libraries")
def test_a_library_that_logs_wrongly_harms_nobody() -> None:
    """A library's message whose arguments don't fit is logged as it stands."""
    stream = Stream()
    route_library_logs(log_to(stream))
    logging.getLogger("some.library").error("%d", "two")
    assert stream.line["message"] == "%d"


@pytest.mark.usefixtures("libraries")
def test_what_the_link_says_is_not_said_twice() -> None:
    """That a connection was refused or lost is told by the link, once, and not again by the library."""
    stream = Stream()
    route_library_logs(log_to(stream))
    logging.getLogger("aiormq.connection").error("error when creating transport")
    assert stream.lines == []


class Unfinished:
    """Fails where it is finalized, which Python can tell nobody."""

    def __del__(self) -> None:
        raise ValueError(SECRET)


@pytest.mark.usefixtures("libraries")
def test_an_exception_that_nobody_handles_is_a_masked_line() -> None:
    """In a thread, or where an object is finalized, Python itself would print it, with whatever it holds."""

    def fail() -> None:
        raise ValueError(SECRET)

    stream = Stream()
    log = build_log(LogSettings(format="json"), worker="w-1", hide=hiding([SECRET]), stream=stream)
    route_library_logs(log)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    Unfinished()
    assert len(stream.lines) == 2
    for line in map(msgspec.json.decode, stream.lines):
        assert (line["event"], line["level"]) == ("library.log", "error")
        assert "ValueError: **********" in line["exception"]


@pytest.mark.usefixtures("libraries")
def test_a_librarys_data_stays_out_where_accounts_are_hashed() -> None:
    """Frames that aiormq prints at ERROR may hold an account: with hashed accounts only the bare text remains."""
    stream = Stream()
    route_library_logs(log_to(stream, accounts="hashed"))
    logging.getLogger("aiormq.channel").error("Got frame for closed channel %d: %r", 1, ACCOUNT)
    logging.getLogger("asyncio").error(f"Task exception was never retrieved\nfuture: {ACCOUNT}")  # noqa: G004 - as asyncio does it
    first, second = (msgspec.json.decode(line) for line in stream.lines)
    assert first["message"] == "Got frame for closed channel %d: %r"
    assert second["message"] == "Task exception was never retrieved"


def test_a_reader_who_leaves_ends_nothing() -> None:
    """When the pipe that the log goes to is closed, logging goes on into nowhere."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        log = build_log(LogSettings(format="json"), worker="w-1", stream=pipe)
        os.close(reading)
        log.info("worker.ready")
        log.info("worker.stopped")


class FullDisk(Stream):
    """A file on a disk that is full for a while."""

    full = True

    def flush(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_ends_nothing() -> None:
    """While a line can't be written it is no error, and once there is room the lines come again."""
    stream = FullDisk()
    log = log_to(stream)
    log.info("worker.ready")
    stream.full = False
    log.info("worker.stopped")
    assert "worker.stopped" in stream.lines[-2]
    assert '"event":"log.dropped"' in stream.lines[-1]


def test_no_field_makes_a_line_long() -> None:
    """A text of any length, wherever it stands in a field, is cut, and a secret at the cut stays masked."""
    stream = Stream()
    text = "x" * (LONGEST_TEXT - 4) + "hunter22" + "y" * 1_000_000
    log = build_log(LogSettings(format="json"), worker="w-1", hide=hiding(["hunter22"]), stream=stream)
    log.info("event", text=text, table={"key": [text]})
    assert len(stream.line["text"]) == len(stream.line["table"]["key"][0]) == LONGEST_TEXT
    assert "hunt" not in stream.getvalue().decode()


class Record(msgspec.Struct):
    """A record with a field of each kind."""

    job_id: str
    account: str | None
    attempts: int = 1
    lcm_ms: float | None = 8.2
    redelivered: bool = False


WORKERS = st.sampled_from(["w-1", "w\x7f\u2028é"])
TEXTS = (
    st.text(max_size=8) | st.text(st.characters(), max_size=8) | st.sampled_from(["xhunter22", "un", "a\\b"])
)


@given(
    TEXTS, TEXTS | st.none(), WORKERS, st.sampled_from([{}, {"accounts": "hashed"}, {"format": "console"}])
)
@example("x" * (LONGEST_TEXT + 1), "1", "w-1", {})
@example("x" * LONGEST_TEXT, "1", "w-1", {})
@example("job-1", "18|hunt", "w-1", {})
@example("\ud800", "1", "w-1", {})
def test_a_record_is_the_line_of_its_fields(
    job_id: str, account: str | None, name: str, settings: dict[str, Any]
) -> None:
    """Whatever its texts hold and however lines are written, a record makes the line that `info` makes of it."""
    streams = Stream(), Stream()
    record = Record(job_id, account)
    for stream in streams:
        log = build_log(
            LogSettings(**({"format": "json"} | settings)), worker=name, hide=hiding(["hunter22", "hunt", "ecor"]),
            stream=stream,
        )  # fmt: skip
        if stream is streams[0]:
            log.record("a.record", record)
        else:
            log.info("a.record", **msgspec.structs.asdict(record))
    stamp = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]+Z")
    found, expected = (stamp.sub(b"", stream.getvalue(), count=1) for stream in streams)
    assert found == expected


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_a_record_is_of_level_info(level: str) -> None:
    """A record is written where lines of level info are, with a timestamp as every line has."""
    stream = Stream()
    log_to(stream, level=level).record("a.record", Record("job-1", None))
    assert len(stream.lines) == (level != "warning")
    assert all(
        re.match(r'{"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",', line) for line in stream.lines
    )


@given(st.datetimes(timezones=st.just(UTC)))
def test_both_ways_write_a_moment_alike(moment: datetime) -> None:
    """The timestamp of a record, which msgspec writes, is what structlog writes at the same moment."""
    assert msgspec.json.encode(moment).decode() == f'"{moment.isoformat().replace("+00:00", "Z")}"'


def test_a_secret_that_looks_like_a_time_leaves_the_timestamp() -> None:
    """Level and timestamp are the log's own: a secret of the same characters is masked in texts alone."""
    stream = Stream()
    log_to(stream, str(datetime.now(UTC).year), "info").info("event", text=f"in {datetime.now(UTC).year}")
    assert (stream.line["level"], stream.line["text"]) == ("info", "in **********")
    assert "*" not in stream.line["timestamp"]
