"""Jobs made of what stands in files."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from worker.cli.submit.jobs import BadLine, Defaults, InputJob, read_jobs, survey
from worker.cli.submit.reading import BadInput, Format
from worker.cli.submit.sources import Source, open_sources
from worker.contract.job import MAX_BODY
from worker.contract.job_reader import read_job
from worker.contract.message import Properties

RUN = Defaults(run="run")


def source(data: bytes, name: str = "a", kind: Format = Format.JSONL) -> Source:
    return Source(name, name, kind, lambda: io.BytesIO(data))


def read(*data: bytes, defaults: Defaults = RUN, from_line: int = 1) -> list[InputJob | BadLine]:
    sources = [source(one, name) for one, name in zip(data, "abc", strict=False)]
    return list(read_jobs(sources, defaults, from_line))


def test_what_a_job_lacks_is_added_and_nothing_else_is_changed() -> None:
    """A job without id, route and deadline gets them behind its own bytes; the worker reads them."""
    body = b'{"metadata": {"a":1.10}, "account_number":"1", "route":null }'
    defaults = Defaults(run="run", route="emea", deadline="2099-01-31T12:00:00.000Z")
    (job,) = read(body, defaults=defaults)
    assert isinstance(job, InputJob)
    assert job.body.startswith(body[:-1])
    read_again = read_job(job.body, Properties())
    assert (job.job_id, read_again.job_id, read_again.route, read_again.account_number) == (
        "run-1",
        "run-1",
        "emea",
        "1",
    )
    assert read_again.deadline is not None
    assert bytes(read_again.metadata) == b'{"a":1.10}'


def test_what_a_job_has_is_kept() -> None:
    """A job that names id, route and deadline is published as it was written."""
    body = b'{"account_number":"1","job_id":"j","route":"r","deadline":"2099-01-31T12:00:00Z"}'
    defaults = Defaults(run="run", route="emea", deadline="2100-01-31T12:00:00.000Z")
    assert read(body, defaults=defaults) == [InputJob(0, 1, "j", "1", body, "r")]


def test_jobs_read_again_have_the_same_ids() -> None:
    """Two readings give the same jobs under the same ids, and another run other ids."""
    data = b'{"account_number":"1"}\n{"account_number":"1"}\nno\n'
    assert read(data) == read(data)
    ids = [
        {one.job_id for one in read(data, defaults=Defaults(run=run)) if isinstance(one, InputJob)}
        for run in "xy"
    ]
    assert len(ids[0] | ids[1]) == 4


def test_an_id_of_two_jobs_is_a_mistake() -> None:
    """The second job of one id, in whatever file, is bad, and says where the first is."""
    first, second = b'{"account_number":"1","job_id":"j"}\n', b'\n{"account_number":"2","job_id":"j"}\n'
    found = read(first, second)
    assert found[1] == BadLine(1, 2, "job_id 'j' is that of line 1 of a; ids must differ")


def test_the_job_contract_decides() -> None:
    """What the worker would refuse is bad here, in the worker's words."""
    (found,) = read(b'{"account_number":7,"route":"a b"}')
    assert isinstance(found, BadLine)
    assert "account_number must be a string of 1 to 256 characters" in found.mistake
    assert "route must be a string of 1 to 64" in found.mistake


def test_a_job_that_grows_too_large_is_a_mistake() -> None:
    """A body that fits by itself, but not with its new id, is bad before anything is published."""
    body = b'{"account_number":"1","metadata":{"a":"%s"}}'
    body %= b"x" * (MAX_BODY - len(body) + 2)
    assert len(body) == MAX_BODY
    (found,) = read(body)
    assert isinstance(found, BadLine)
    assert "the body must have at most 65536 bytes" in found.mistake


def test_lines_before_the_first_wanted_are_left_out() -> None:
    """Reading from a line leaves out what is before it in the first file alone, however bad."""
    found = read(
        b'no\n{"account_number":"1"}\n{"account_number":"2"}', b'{"account_number":"3"}', from_line=3
    )
    assert [(one.source, one.line) for one in found] == [(0, 3), (1, 1)]
    assert all(isinstance(one, InputJob) for one in found)


def test_a_survey_counts_what_it_does_not_list() -> None:
    """A survey lists the first twenty mistakes by file and line, and counts jobs, routes and all mistakes."""
    data = b'{"account_number":"1","route":"r"}\n' + b"no\n" * 30
    found = survey([source(data, "jobs.jsonl")], RUN, 1)
    assert (found.jobs, found.bad, found.routes, len(found.mistakes)) == (1, 30, {"r"}, 20)
    assert found.mistakes[0].startswith("jobs.jsonl, line 2: the body must be a JSON object")


def test_comments_are_counted_and_are_no_jobs() -> None:
    """A survey counts comments and keeps the first; jobs are numbered as if there were none."""
    data = b'# exported\n{"account_number":"1"}\n# end\n'
    found = survey([source(data, "jobs.jsonl")], RUN, 1)
    assert (found.jobs, found.bad, found.comments) == (1, 0, 2)
    assert found.first_comment == "jobs.jsonl, line 1: '# exported'"
    assert [one.job_id for one in read(data) if isinstance(one, InputJob)] == ["run-1"]


@pytest.mark.parametrize("kind", [Format.CSV, Format.JSONL, Format.PLAIN])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: Format) -> None:
    """Ten times as many lines need about as much memory to read, whatever the format."""
    lines = {Format.CSV: "{0}|1,name {0}", Format.JSONL: '{{"account_number":"{0}"}}', Format.PLAIN: "{0}|1"}
    peaks = []
    for count in (600, 6_000):
        file = tmp_path / str(count)
        head = "account_number,name\n" if kind is Format.CSV else ""
        file.write_text(head + "".join(f"{lines[kind].format(number)}\n" for number in range(count)))
        tracemalloc.start()
        with open_sources([str(file)], Format.AUTO, pytest.fail) as sources:
            assert sources[0].format is kind
            assert survey(sources, RUN, 1).jobs == count
            assert sum(1 for _ in read_jobs(sources, RUN, 1)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_nothing_is_read_ahead() -> None:
    """The lines behind a job are not read before they are wanted."""
    jobs = read_jobs([source(msgspec.json.encode({"account_number": "1"}) + b"\n" + b"no\n")], RUN, 1)
    assert isinstance(next(jobs), InputJob)
    assert isinstance(next(jobs), BadLine)
    assert next(jobs, None) is None


def test_a_device_without_end_is_refused() -> None:
    """It is no file of jobs, and is not copied for ever before that is seen."""
    with pytest.raises(BadInput, match="zero bytes"), open_sources(["/dev/zero"], Format.AUTO, pytest.fail):
        pass


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A file that can't be opened is named with the reason."""
    missing = str(tmp_path / "none.csv")
    with pytest.raises(BadInput) as raised, open_sources([missing], Format.AUTO, pytest.fail):
        pass
    assert str(raised.value) == f"{missing}: can't be read: No such file or directory"
