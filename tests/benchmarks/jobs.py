"""The jobs of a benchmark, LCM's replies to them, and what has to be in their results. No input or output."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from worker.simulator.documents import ACCOUNT_ID, OUTCOMES, reply

_GAP = "<the account>"
_OF_ALL = "the list of a campaign"


class Outcome(msgspec.Struct, frozen=True):
    id: str
    description: str


class Result(msgspec.Struct):
    """What is checked of a result; programs may say more in it."""

    job_id: str
    account_number: str
    status: str
    outcomes: list[Outcome] = []


class WrongResults(Exception):
    """The results are not exactly those of the jobs; the text says how."""


_decode = msgspec.json.Decoder(Result).decode


def account(number: int) -> str:
    """Return an account number in the form of the vendor's samples."""
    return f"18|1|2|0|0|44|{number}"


@dataclass(frozen=True)
class Batch:
    """Jobs numbered from `first` on: each for an account of its own, or each for one of so many, drawn at random."""

    first: int
    count: int
    accounts: int = 0

    def account(self, number: int) -> str:
        """Return the account of a job."""
        return account(random.Random(number).randrange(self.accounts) if self.accounts else number)  # noqa: S311

    def bodies(self) -> Iterator[bytes]:
        """Encode the jobs."""
        for number in range(self.first, self.first + self.count):
            yield msgspec.json.encode({"job_id": job_id(number), "account_number": self.account(number)})


def job_id(number: int) -> str:
    return f"job-{number}"


def reply_parts() -> tuple[bytes, bytes]:
    """Return what stands before and after the account in LCM's reply, which has 50 outcomes."""
    items = [*OUTCOMES, (ACCOUNT_ID, f"Account {_GAP}")]
    encoded = reply({"response": [{"OutComeID": id_, "Description": text} for id_, text in items]})
    before, after = encoded.split(_GAP.encode())
    return before, after


def shared_reply() -> bytes:
    """Return LCM's reply where all accounts have one list."""
    before, after = reply_parts()
    return before + _OF_ALL.encode() + after


class Books:
    """Compares results with a batch of jobs, a result at a time."""

    def __init__(self, batch: Batch, *, shared: bool = False) -> None:
        self._batch = batch
        self._shared = shared
        self._results: Counter[int] = Counter()

    def add(self, body: bytes) -> None:
        """Count a result. Raises WrongResults where it is of no job of these, failed, or has another's outcomes."""
        result = _decode(body)
        number = int(result.job_id.removeprefix("job-"))
        if not 0 <= number - self._batch.first < self._batch.count:
            raise WrongResults(f"{result.job_id} is none of these jobs")
        account = self._batch.account(number)
        lists = {outcome.id: outcome.description for outcome in result.outcomes}
        right = dict(OUTCOMES) | {ACCOUNT_ID: f"Account {_OF_ALL if self._shared else account}"}
        if (result.account_number, result.status) != (account, "succeeded") or lists != right:
            raise WrongResults(f"{result.job_id} has another result than its own: {body[:300]!r}")
        self._results[number] += 1

    @property
    def missing(self) -> int:
        """How many jobs have no result yet."""
        return self._batch.count - len(self._results)

    @property
    def repeats(self) -> int:
        """How many results came beside the first of their job."""
        return self._results.total() - len(self._results)
