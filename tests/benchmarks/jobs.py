"""The jobs of a benchmark, LCM's replies to them, and what has to be in their results. No input or output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

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


def bodies(first: int, count: int, accounts: int = 0) -> Iterator[bytes]:
    """Encode jobs numbered from `first` on: each for an account of its own, or all for so many accounts in turn."""
    for number in range(first, first + count):
        whose = account(number % accounts if accounts else number)
        yield msgspec.json.encode({"job_id": f"job-{number}", "account_number": whose})


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


def check(
    found: Iterable[bytes], first: int, count: int, *, shared: bool, accounts: int = 0, repeats: bool = False
) -> None:
    """Check that the bodies of results are those of jobs numbered from `first` on: each once, with the right list.

    `shared` and `accounts` as for the jobs; `repeats` allows a job to have several results. Raises WrongResults.
    """
    ids: Counter[str] = Counter()
    for body in found:
        result = _decode(body)
        ids[result.job_id] += 1
        number = int(result.job_id.removeprefix("job-"))
        whose = account(number % accounts if accounts else number)
        lists = {outcome.id: outcome.description for outcome in result.outcomes}
        right = {**dict(OUTCOMES), ACCOUNT_ID: f"Account {_OF_ALL if shared else whose}"}
        if (result.account_number, result.status) != (whose, "succeeded") or lists != right:
            raise WrongResults(f"{result.job_id} has another result than its own: {body[:300]!r}")
    expected = {f"job-{number}" for number in range(first, first + count)}
    if missing := expected - ids.keys():
        raise WrongResults(f"{len(missing)} of {count} jobs have no result, {min(missing)} for one")
    if strange := ids.keys() - expected:
        raise WrongResults(f"{len(strange)} results are of no job, {min(strange)} for one")
    if not repeats and ids.total() != count:
        raise WrongResults(f"{ids.total() - count} results came twice")
