"""Makes jobs of the lines of files: fields that a job lacks are added, then the worker's own reader checks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from worker.cli.submit.reading import Entry
from worker.cli.submit.sources import Source
from worker.common.callbacks import ignore
from worker.contract.errors import InvalidJob
from worker.contract.job import Job
from worker.contract.job_reader import read_job
from worker.contract.message import Properties

SHOWN_MISTAKES = 20
FINGERPRINT_SIZE = 6  # bytes; it guards against mistakes, not against attacks
_DIGEST_SIZE = 15  # bytes; with one more, each would take 16 bytes more of Python's memory


class InputJob(NamedTuple):
    """A job that was read from a file. `source` is the index of the file among those that were given."""

    source: int
    line: int
    job_id: str
    account_number: str
    body: bytes
    route: str | None


class BadLine(NamedTuple):
    """A line that is no job, and why."""

    source: int
    line: int
    mistake: str


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Fields for jobs that lack them: an id that begins with `run`, a route, an RFC 3339 deadline."""

    run: str
    route: str | None = None
    deadline: str | None = None


@dataclass
class Survey:
    """What a first reading found: counts of jobs, bad lines and comments, the first of them, and all routes of jobs.

    `fingerprint` tells whether another reading is of the same lines.
    """

    jobs: int = 0
    bad: int = 0
    mistakes: list[str] = field(default_factory=list)
    comments: int = 0
    first_comment: str = ""
    routes: set[str] = field(default_factory=set)
    fingerprint: str = ""


def survey(sources: Sequence[Source], defaults: Defaults, from_line: int) -> Survey:
    """Read everything once, without keeping it. Raises BadInput."""
    found, lines = Survey(), blake2b(digest_size=FINGERPRINT_SIZE)

    def look_at(source: Source, entry: Entry) -> None:
        lines.update(b"%d %d\n%b" % (entry.line, len(entry.body), entry.body))
        if entry.comment:
            found.comments += 1
            found.first_comment = found.first_comment or f"{source.name}, line {entry.line}: {entry.comment}"

    for job in read_jobs(sources, defaults, from_line, look_at):
        if isinstance(job, InputJob):
            found.jobs += 1
            if job.route is not None:
                found.routes.add(job.route)
        else:
            found.bad += 1
            if len(found.mistakes) < SHOWN_MISTAKES:
                found.mistakes.append(f"{sources[job.source].name}, line {job.line}: {job.mistake}")
    found.fingerprint = lines.hexdigest()
    return found


def read_jobs(
    sources: Sequence[Source],
    defaults: Defaults,
    from_line: int,
    on_entry: Callable[[Source, Entry], object] = ignore,
) -> Iterator[InputJob | BadLine]:
    """Yield every job and every bad line. A second reading yields the same jobs with the same ids.

    Job ids must be unique: a digest is kept of each that a job brings along.

    Args:
        sources: the files, in their order.
        defaults: fields for jobs that lack them.
        from_line: the line of the first file to begin at.
        on_entry: called with each line as it was read, and its file.

    Raises:
        BadInput: a file can't be read.
    """
    seen: dict[bytes, tuple[int, int]] = {}
    count = 0
    for index, source in enumerate(sources):
        for entry in source.entries():
            if index == 0 and entry.line < from_line:
                continue
            on_entry(source, entry)
            if entry.comment:
                continue
            count += 1
            job = _read(index, entry, defaults, f"{defaults.run}-{count}")
            if isinstance(job, InputJob) and not job.job_id.startswith(defaults.run):
                at = seen.setdefault(digest(job.job_id), (index, entry.line))
                if at != (index, entry.line):
                    first = f"line {at[1]} of {sources[at[0]].name}"
                    mistake = f"job_id {job.job_id!r} is that of {first}; ids must differ"
                    yield BadLine(index, entry.line, mistake)
                    continue
            yield job


def digest(text: str) -> bytes:
    """Return few bytes that stand for a job id, or an account number, in memory."""
    return blake2b(text.encode(), digest_size=_DIGEST_SIZE).digest()


def _read(source: int, entry: Entry, defaults: Defaults, fresh_id: str) -> InputJob | BadLine:
    if entry.mistake:
        return BadLine(source, entry.line, entry.mistake)
    try:
        given = read_job(entry.body, Properties(message_id=fresh_id))
        lacking = _lacking(given, defaults, fresh_id)
        body = _with_fields(entry.body, lacking)
        job = read_job(body, Properties()) if lacking else given  # it may have grown too large
    except InvalidJob as error:
        return BadLine(source, entry.line, str(error))
    return InputJob(source, entry.line, job.job_id, job.account_number, body, job.route)


def _lacking(job: Job, defaults: Defaults, fresh_id: str) -> dict[str, str]:
    lacking = {}
    if job.job_id == fresh_id:
        lacking["job_id"] = fresh_id
    if job.route is None and defaults.route is not None:
        lacking["route"] = defaults.route
    if job.deadline is None and defaults.deadline is not None:
        lacking["deadline"] = defaults.deadline
    return lacking


def _with_fields(body: bytes, fields: dict[str, str]) -> bytes:
    """Add fields at the end of a JSON object that is not empty: of a repeated name the last counts."""
    if not fields:
        return body
    return body.rstrip()[:-1] + b"," + msgspec.json.encode(fields)[1:]
