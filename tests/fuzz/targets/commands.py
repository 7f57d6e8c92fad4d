"""Targets: the files and logs that commands read, and the requests to the health server."""

from __future__ import annotations

import io
import re
from contextlib import nullcontext, suppress
from http.server import HTTPServer
from socket import socket
from typing import cast

import msgspec

from tests.fuzz.target import Target
from worker.cli.lookup.reading import asked_in
from worker.cli.lookup.run import _job_for
from worker.cli.submit.held import held_in
from worker.cli.submit.jobs import Defaults, InputJob, read_jobs
from worker.cli.submit.reading import BadInput, Format, entries, guess
from worker.cli.submit.results import OutputFormat
from worker.cli.submit.sources import Source
from worker.cli.top.reading import Reader
from worker.cli.top.summary import document
from worker.cli.top.tally import Tally
from worker.contract.errors import InvalidJob
from worker.contract.job_reader import read_job
from worker.contract.message import Properties
from worker.observability.http import Page, handler_of

_LONGEST_LINE = 200
_HEADERS = re.compile(
    rb"(Server|Date|Connection|Content-Type|Content-Length|Cache-Control|Content-Security-Policy|Referrer-Policy"
    rb"|X-Content-Type-Options): [^\r\n]*"
)


def check_log(data: bytes) -> None:
    """However a log is cut, the same lines are counted or skipped, and there is a summary of it."""
    log, size = data[1:], 1 + (data[0] if data else 0) % _LONGEST_LINE
    summaries = []
    for step in (size, _LONGEST_LINE):
        reader, tally = Reader(_LONGEST_LINE), Tally()
        for start in range(0, len(log), step):
            tally.feed(reader.feed(log[start : start + step]))
        tally.feed(reader.end())
        assert reader.skipped <= reader.lines <= log.count(b"\n") + 1
        summaries.append(msgspec.json.encode(document(tally, lines=reader.lines, skipped=reader.skipped)))
    assert summaries[0] == summaries[1]


def check_submitted_file(data: bytes) -> None:
    """In any format a file is refused, or each line of it is a job that a worker takes, a mistake or a comment."""
    with suppress(BadInput):
        guess(io.BytesIO(data))
    lines = data.count(b"\n") + data.count(b"\r") + 1
    for kind in (Format.JSONL, Format.CSV, Format.PLAIN):
        with suppress(BadInput):
            for entry in entries(io.BytesIO(data), kind):
                assert [bool(entry.body), bool(entry.mistake), bool(entry.comment)].count(True) == 1
                assert 1 <= entry.line <= lines
        source = Source("a", "a", kind, lambda: nullcontext(io.BytesIO(data)))
        with suppress(BadInput):
            for job in read_jobs([source], Defaults(run="run", route="emea"), 1):
                assert 1 <= job.line <= lines
                if isinstance(job, InputJob):
                    assert read_job(job.body, Properties()).job_id == job.job_id


def check_result_file(data: bytes) -> None:
    """Any file is one of results, whose whole ones are kept, or refused with the line that is wrong."""
    for kind in OutputFormat:
        try:
            held = held_in(io.BytesIO(data), kind)
        except ValueError as error:
            assert re.match(r"line \d+ ", str(error))  # noqa: PT017 - most inputs are no error
        else:
            assert 0 <= held.size <= len(data)
            again = held_in(io.BytesIO(data[: held.size] + held.lacks), kind)
            assert held.gap or (again.jobs, again.torn) == (held.jobs, None)


def check_accounts(data: bytes) -> None:
    """Any lines of standard input are accounts that LCM can be asked for, or mistakes."""
    told: list[str] = []
    for asked in asked_in(io.BytesIO(data), told.append):
        assert asked.mistake.isprintable()
        with suppress(InvalidJob):
            assert _job_for(asked).account_number == asked.account
    assert len(told) <= 1


class _Client:
    """Stands where the socket of a client does that says all it has to say, and then closes."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.answer = bytearray()

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._request)

    def settimeout(self, _seconds: float) -> None:
        """Wait for nothing."""

    def sendall(self, data: bytes) -> None:
        self.answer += data


def check_health_request(data: bytes) -> None:
    """Any request has no answer, a body alone as in HTTP/0.9, or an answer with no header but ours."""
    client = _Client(data)
    handler = handler_of(lambda _path: Page(b"{}"))
    handler(cast(socket, client), ("127.0.0.1", 1), cast(HTTPServer, None))
    head, _, _ = bytes(client.answer).partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/"):
        status, *headers = head.split(b"\r\n")
        assert re.fullmatch(rb"HTTP/1\.0 [1-5]\d\d [^\r\n]*", status)
        assert all(_HEADERS.fullmatch(header) for header in headers)


TARGETS = (
    Target("log", check_log, (b'"event":"job.failed"', b'"timestamp":"2026-01-31T12:00:00Z"', b'"seconds":1e308')),
    Target("submitted-file", check_submitted_file, (b"account_number", b"Account Number", b";", b"|", b"\t", b"#")),
    Target("result-file", check_result_file, (b'{"job_id":"', b'""', b",1,", b'"{}"')),
    Target("accounts", check_accounts, (b"account_number", b"#", b"18|1|2", b"\r", b";")),
    Target(
        "health-request",
        check_health_request,
        (b"GET ", b"HEAD ", b" HTTP/1.1\r\n", b" HTTP/1.0", b"Host: a\r\n", b"\r\n\r\n", b"Expect: 100-continue\r\n"),
    ),
)  # fmt: skip
