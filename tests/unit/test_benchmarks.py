"""The pure parts of `make bench`: its statistics, its tables and plots, and the books by which results are checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.benchmarks.figures import Ratio, Samples, Table, interleaved, paired_ratio, percentile
from tests.benchmarks.jobs import Batch, Books, WrongResults, reply_parts, shared_reply
from tests.benchmarks.lcm.peer import account_in, frame, read_frame
from tests.benchmarks.markdown import render
from tests.benchmarks.measures import grid, memory
from tests.benchmarks.plots import draw
from worker.lcm.outcome_list import Reply, classify, encode

TABLE = Table(
    "cpu",
    "CPU time",
    ("program", "µs", "to bare"),
    (("worker", Samples((100.0, 120.0, 90.0)), Ratio(0.5, 0.45, 0.6)), ("a|b", Samples((7.0,), "s", 1), "")),
    "A note.",
)


def result(number: int, **changes: object) -> bytes:
    """Return a right result of a job, or one with changes."""
    account = Batch(0, 10).account(number)
    before, after = reply_parts()
    reply = classify(before + account.encode() + after)
    assert isinstance(reply, Reply)
    body = {
        "job_id": f"job-{number}",
        "account_number": account,
        "status": "succeeded",
        "outcomes": [{"id": id_, "description": text} for id_, text in reply.items],
    }
    return msgspec.json.encode(body | changes)


def test_a_sample_shows_its_median_and_its_spread() -> None:
    """One that was measured once, or always came to the same, has no spread."""
    assert str(Samples((3.0, 1.0, 2.0), "ms", 1)) == "2.0 ms (1.0 to 3.0)"
    assert str(Samples((1234.4, 1234.4))) == "1,234"


def test_a_ratio_is_of_pairs() -> None:
    """What drifts over the rounds hits both programs of a round, and leaves their ratio as it is."""
    ratio = paired_ratio([50, 100, 200, 400], [100, 200, 400, 800])
    assert (ratio.median, ratio.low, ratio.high) == (0.5, 0.5, 0.5)
    assert str(ratio) == "0.50"


def test_the_interval_holds_the_median_and_grows_with_the_spread() -> None:
    """It is the same at each call, and wider where rounds differ more."""
    close = paired_ratio([49, 50, 51, 50, 49, 51], [100] * 6)
    apart = paired_ratio([30, 50, 70, 50, 30, 70], [100] * 6)
    assert close == paired_ratio([49, 50, 51, 50, 49, 51], [100] * 6)
    assert apart.low < close.low <= close.median == apart.median <= close.high < apart.high


def test_only_pairs_are_compared() -> None:
    """A program that lacks a round is no match for one that doesn't."""
    with pytest.raises(ValueError, match="longer"):
        paired_ratio([1, 2], [1, 2, 3])


def test_percentiles_lie_between_values() -> None:
    """They do not depend on the order of values."""
    assert percentile([4, 1, 3, 2, 5], 50) == 3
    assert percentile([20, 10], 99) == pytest.approx(19.9)
    assert percentile([7], 99) == 7


def test_programs_take_turns_there_and_back() -> None:
    """Each takes part in each round, and none is always the first."""
    turns = interleaved(("a", "b", "c"), 3)
    assert [name for _, name in turns] == list("abccbaabc")
    assert [number for number, _ in turns] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_table_is_markdown() -> None:
    """It has a heading, a row for each program, and its note; a bar in a cell doesn't end it."""
    assert render(TABLE) == (
        "### CPU time\n\n"
        "| program | µs | to bare |\n"
        "|---|---|---|\n"
        "| worker | 100 (90 to 120) | 0.50 [0.45, 0.60] |\n"
        "| a\\|b | 7.0 s |  |\n\n"
        "A note.\n"
    )


def test_the_same_figures_give_the_same_plots(tmp_path: Path) -> None:
    """Each section that has a plot gets a file, whose bytes follow from the figures alone."""
    share = Table(grid.SECTION, grid.SHARE, ("delay", "8 sessions"), (("50 ms", Samples((99.0,), "%")),))
    growth = Table(memory.SECTION, memory.GROWTH, ("jobs", "MiB"), (("2,000", Samples((50.0,), "MiB")),))
    drawn = [draw([TABLE, share, growth], tmp_path / folder) for folder in ("first", "second")]
    assert [path.name for path in drawn[0]] == ["cpu.svg", "throughput.svg", "memory.svg"]
    assert [path.read_bytes() for path in drawn[0]] == [path.read_bytes() for path in drawn[1]]


def test_right_results_balance() -> None:
    """Each job has one result of its own account, in whatever order; some may be left."""
    books = Books(Batch(0, 10))
    for number in range(9, 1, -1):
        books.add(result(number))
    assert (books.missing, books.repeats) == (2, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: result(10),
        lambda: result(1, status="failed"),
        lambda: result(1, outcomes=[]),
        lambda: result(1, account_number="18|1|2|0|0|44|2"),
        lambda: result(1, outcomes=msgspec.json.decode(result(2))["outcomes"]),
    ],
)
def test_a_wrong_result_is_noticed(wrong: Callable[[], bytes]) -> None:
    """One of no job, a failed one, and one with another's account or list are no results to be fast by."""
    with pytest.raises(WrongResults):
        Books(Batch(0, 10)).add(wrong())


def test_a_repeat_stands_for_no_other_job() -> None:
    """A second result of a job is counted as such, and the other job still lacks one."""
    books = Books(Batch(1, 2))
    books.add(result(1))
    books.add(result(1))
    assert (books.missing, books.repeats) == (1, 1)


def test_jobs_share_accounts() -> None:
    """Over few accounts each job has one of them, the same whenever it is asked for."""
    batch = Batch(0, 200, accounts=5)
    accounts = [batch.account(number) for number in range(200)]
    assert len(set(accounts)) == 5
    assert accounts == [msgspec.json.decode(body)["account_number"] for body in batch.bodies()]


def test_the_fast_lcm_sends_what_the_worker_reads() -> None:
    """Its replies are of the documented form, with 50 outcomes."""
    before, after = reply_parts()
    for reply in (before + b"18|1" + after, shared_reply()):
        found = classify(reply)
        assert isinstance(found, Reply)
        assert len(found.items) == 50


@pytest.mark.parametrize("size", [1, 300])
def test_the_fast_lcm_reads_frames_piece_by_piece(size: int) -> None:
    """A frame counts once it is whole, and its mask is taken off."""
    request = encode("1" * size)
    mask = b"\x01\x02\x03\x04"
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(request))
    length = bytes([0x80 | len(request)]) if size == 1 else b"\xfe" + len(request).to_bytes(2, "big")
    sent = b"\x81" + length + mask + masked
    assert [read_frame(sent[:end], 0) for end in range(len(sent))] == [None] * len(sent)
    assert read_frame(b"??" + sent + b"more", 2) == (1, request, 2 + len(sent))
    assert account_in(request) == b"1" * size


def test_the_fast_lcm_writes_frames_of_both_lengths() -> None:
    """Up to 125 bytes the length is in the second byte, else in two more."""
    assert frame(1, b"ab") == b"\x81\x02ab"
    assert frame(1, b"a" * 300)[:4] == b"\x81\x7e\x01\x2c"
