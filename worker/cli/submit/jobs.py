"""Makes jobs of what stands in the files: what a job lacks is put into it, then the job contract decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from worker.errors import InvalidJob
from worker.job import Job, decode
from worker.message import Properties
from worker.submitting.reading import Entry
from worker.submitting.sources import Source

SHOWN_MISTAKES = 20
FINGERPRINT_SIZE = 6  # bytes; it guards against a mistake, not against anybody


class Asked(NamedTuple):
    """A job to publish. `source` is the place of its file among those that were given."""

    source: int
    line: int
    job_id: str
    body: bytes
    route: str | None


class Bad(NamedTuple):
    """A line that is no job, and why."""

    source: int
    line: int
    mistake: str


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What jobs get that don't say it themselves: an id that begins with `run`, a route, an RFC 3339 deadline."""

    run: str
    route: str | None = None
    deadline: str | None = None


@dataclass
class Survey:
    """What a first reading found: `mistakes` are the first of `bad`, `routes` all that jobs go by.

    `fingerprint` tells whether another reading is of the same lines.
    """

    jobs: int = 0
    bad: int = 0
    mistakes: list[str] = field(default_factory=list)
    routes: set[str] = field(default_factory=set)
    fingerprint: str = ""


def survey(sources: Sequence[Source], defaults: Defaults, from_line: int) -> Survey:
    """Read everything once, without keeping it. Raises BadInput."""
    found, lines = Survey(), blake2b(digest_size=FINGERPRINT_SIZE)

    def note(entry: Entry) -> None:
        lines.update(b"%d %d\n%b" % (entry.line, len(entry.body), entry.body))

    for one in read_jobs(sources, defaults, from_line, note):
        if isinstance(one, Asked):
            found.jobs += 1
            if one.route is not None:
                found.routes.add(one.route)
        else:
            found.bad += 1
            if len(found.mistakes) < SHOWN_MISTAKES:
                found.mistakes.append(f"{sources[one.source].name}, line {one.line}: {one.mistake}")
    found.fingerprint = lines.hexdigest()
    return found


def _ignore(_: Entry) -> None:
    """Nobody takes note."""


def read_jobs(
    sources: Sequence[Source], defaults: Defaults, from_line: int, note: Callable[[Entry], None] = _ignore
) -> Iterator[Asked | Bad]:
    """Yield every job, of the first file from this line on. Read again, the same jobs come with the same ids.

    `note` is given each line as it stands there.

    Of each id that a job brings along 16 bytes are kept, since it must be the only one of its name.

    Raises:
        BadInput: a file can't be read.
    """
    seen: dict[bytes, tuple[int, int]] = {}
    count = 0
    for place, source in enumerate(sources):
        for entry in source.entries():
            if place == 0 and entry.line < from_line:
                continue
            count += 1
            note(entry)
            made = _make(place, entry, defaults, f"{defaults.run}-{count}")
            if isinstance(made, Asked) and not made.job_id.startswith(defaults.run):
                at = seen.setdefault(digest(made.job_id), (place, entry.line))
                if at != (place, entry.line):
                    first = f"line {at[1]} of {sources[at[0]].name}"
                    made = Bad(
                        place, entry.line, f"job_id {made.job_id!r} is that of {first}; ids must differ"
                    )
            yield made


def digest(job_id: str) -> bytes:
    """Return 16 bytes to remember a job id by."""
    return blake2b(job_id.encode(), digest_size=16).digest()


def _make(place: int, entry: Entry, defaults: Defaults, fresh_id: str) -> Asked | Bad:
    if entry.mistake:
        return Bad(place, entry.line, entry.mistake)
    try:
        given = decode(entry.body, Properties(message_id=fresh_id))
        lacking = _lacking(given, defaults, fresh_id)
        body = _with(entry.body, lacking)
        job = decode(body, Properties()) if lacking else given  # it may have grown too large
    except InvalidJob as error:
        return Bad(place, entry.line, str(error))
    return Asked(place, entry.line, job.job_id, body, job.route)


def _lacking(job: Job, defaults: Defaults, fresh_id: str) -> dict[str, str]:
    lacking = {}
    if job.job_id == fresh_id:
        lacking["job_id"] = fresh_id
    if job.route is None and defaults.route is not None:
        lacking["route"] = defaults.route
    if job.deadline is None and defaults.deadline is not None:
        lacking["deadline"] = defaults.deadline
    return lacking


def _with(body: bytes, lacking: dict[str, str]) -> bytes:
    """Put fields at the end of an object that is not empty: the last of a name counts, and nothing else changes."""
    if not lacking:
        return body
    return body.rstrip()[:-1] + b"," + msgspec.json.encode(lacking)[1:]
