"""Files that grow, are rotated, truncated or missing; several at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.cli.top.sources import Feed, File, Stream
from worker.cli.top.tally import Tally


def line(worker: str = "w-1", event: str = "job.succeeded") -> str:
    return f'{{"timestamp":"2026-01-31T12:00:00Z","level":"info","event":"{event}","worker":"{worker}"}}\n'


def followed(*paths: Path) -> Feed:
    return Feed([File(path, follow=True) for path in paths], Tally())


def jobs(feed: Feed) -> int:
    """Take all that is there now; return how many jobs have been read so far."""
    while feed.read(()):
        pass
    return feed.tally.jobs["succeeded"]


def test_a_followed_file_that_is_rotated_is_read_on(tmp_path: Path) -> None:
    """After a rotation, what was still written to the old file is read, and then the new one from its beginning."""
    log = tmp_path / "worker.log"
    log.write_text(line() * 2)
    feed = followed(log)
    assert jobs(feed) == 2
    with log.open("a") as old:
        log.rename(tmp_path / "worker.log.1")
        assert jobs(feed) == 2
        old.write(line() * 3)
    log.write_text(line() * 4)
    assert jobs(feed) == 9
    log.unlink()
    assert jobs(feed) == 9
    log.write_text(line())
    assert jobs(feed) == 10
    assert not feed.ended
    feed.close()


def test_a_line_cut_by_a_rotation_spoils_no_other(tmp_path: Path) -> None:
    """Where the old file ends within a line, that line alone is skipped."""
    log = tmp_path / "worker.log"
    log.write_text(line() + line()[:40])
    feed = followed(log)
    assert jobs(feed) == 1
    log.rename(tmp_path / "worker.log.1")
    log.write_text(line() * 2)
    assert (jobs(feed), feed.lines, feed.skipped) == (3, 4, 1)
    feed.close()


def test_a_truncated_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    """What was copied away and truncated goes on with its new first line."""
    log = tmp_path / "worker.log"
    log.write_text(line() * 5)
    feed = followed(log)
    assert jobs(feed) == 5
    os.truncate(log, 0)
    assert jobs(feed) == 5
    with log.open("a") as file:
        file.write(line() * 2)
    assert jobs(feed) == 7
    feed.close()


def test_a_followed_file_may_be_missing_at_first(tmp_path: Path) -> None:
    """A file that isn't there yet is read once it is, beside the others."""
    one, two = tmp_path / "1.log", tmp_path / "2.log"
    one.write_text(line("w-1"))
    feed = followed(one, two)
    assert jobs(feed) == 1
    two.write_text(line("w-2") * 2)
    assert jobs(feed) == 3
    assert {name: worker.jobs["succeeded"] for name, worker in feed.tally.workers.items()} == {
        "w-1": 1,
        "w-2": 2,
    }
    feed.close()


def test_a_file_that_is_not_followed_ends(tmp_path: Path) -> None:
    """It is read to its end, a last line without a line break too; a missing one is an error at once."""
    log = tmp_path / "worker.log"
    log.write_text(line() * 2 + line().rstrip())
    feed = Feed([File(log, follow=False)], Tally())
    jobs(feed)
    assert feed.ended
    feed.close()
    assert jobs(feed) == 3
    with pytest.raises(FileNotFoundError):
        File(tmp_path / "missing.log", follow=False)


def test_a_stream_is_read_only_when_it_is_ready() -> None:
    """A pipe without anything in it is left alone, since reading it would wait; it ends with its writer."""
    reading, writing = os.pipe()
    feed = Feed([Stream(reading)], Tally())
    assert feed.streams == [reading]
    assert not feed.read(())
    os.write(writing, line().encode())
    assert feed.read([reading])
    os.close(writing)
    assert not feed.read([reading])
    assert (feed.ended, feed.streams, jobs(feed)) == (True, [], 1)
    os.close(reading)
