"""What is known of every job: the question that a fault test asks of them, and the answers. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

_ACCOUNT_OUTCOME = "1000"  # the simulator describes it as `Account <the account number>`
_EXPIRED = "expired"
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Result:
    """What is kept of one result. `right`: its account and its list are the job's own."""

    job_id: str
    status: str
    message_id: str
    error_code: str
    right: bool


@dataclass(frozen=True, slots=True)
class Dead:
    """What is kept of one message in the dead-letter queue; `code` is "" where the broker put it there."""

    job_id: str
    code: str
    reason: str


class Books:
    """Jobs by id with their accounts, results by job id, the dead-letter queue by job id.

    `accounts` are those of jobs that the broker has confirmed, `begun` of those that may be: a result can be here
    before its job's confirm.

    `repeats` counts the results that came once more, `strangers` are job ids of results that nobody asked for.
    `empty_is_right` where LCM may answer with no outcomes.
    """

    def __init__(self, *, empty_is_right: bool = False) -> None:
        self.accounts: dict[str, str] = {}
        self.begun: dict[str, str] = {}
        self.results: dict[str, list[Result]] = defaultdict(list)
        self.dead: dict[str, list[Dead]] = {}
        self.repeats = 0
        self.strangers: list[str] = []
        self._empty_is_right = empty_is_right
        self._message_ids: set[str] = set()

    def take_result(self, body: bytes, *, message_id: str, redelivered: bool = False) -> None:
        """Enter one result. What the broker hands to the ledger a second time is no repeat."""
        if message_id in self._message_ids:
            self.repeats += not redelivered
            return
        self._message_ids.add(message_id)
        result = msgspec.json.decode(body)
        job_id = result["job_id"]
        if job_id not in self.accounts and job_id not in self.begun:
            self.strangers.append(job_id)
        entry = Result(
            job_id,
            result["status"],
            message_id,
            result.get("error", {}).get("code", ""),
            self._is_right(result),
        )
        self.results[job_id].append(entry)

    @property
    def lost(self) -> list[str]:
        """The jobs that have no result and are not in the dead-letter queue."""
        return [
            job_id for job_id in self.accounts if not self.results.get(job_id) and job_id not in self.dead
        ]

    @property
    def wrong(self) -> list[str]:
        """The jobs with a result that is about another account."""
        return [job_id for job_id, results in self.results.items() if not all(each.right for each in results)]

    @property
    def failed(self) -> dict[str, str]:
        """The jobs with a failed result, and its error code."""
        return {
            each.job_id: each.error_code
            for results in self.results.values()
            for each in results
            if each.status == "failed"
        }

    @property
    def mismatched(self) -> list[str]:
        """The jobs of which two results of one status have different message ids."""
        kinds = Counter((each.job_id, each.status) for results in self.results.values() for each in results)
        return [job_id for (job_id, _), ids in kinds.items() if ids > 1]

    def counts(self) -> dict[str, int]:
        """Return the totals: `results` are different ones, `repeats` those that came once more."""
        return {
            "jobs": len(self.accounts),
            "results": sum(map(len, self.results.values())),
            "repeats": self.repeats,
            "dead": sum(map(len, self.dead.values())),
            "lost": len(self.lost),
            "wrong": len(self.wrong),
        }

    def assert_invariants(self, *, mendable: bool = True) -> None:
        """Check I1, I2 and I4; with `mendable`, that no job failed either. Call `settled` first.

        A job that failed, unless it expired, must stand in the dead-letter queue with its reason.
        """
        buried = {job for job, letters in self.dead.items() if all(each.reason for each in letters)}
        unburied = [job for job, code in self.failed.items() if code != _EXPIRED and job not in buried]
        mistakes: dict[str, Iterable[str]] = {
            "lost": self.lost,
            "about another account": self.wrong,
            "with several message ids for one result": self.mismatched,
            "never submitted": self.strangers,
            "failed, but not dead-lettered with a reason": unburied,
            "dead-lettered by the broker, or without a reason": self.dead.keys() - buried,
        }
        if mendable:
            mistakes["failed"] = [f"{job} ({code})" for job, code in self.failed.items()]
            mistakes["dead"] = self.dead
        told = [f"{what}: {some(jobs)}" for what, jobs in mistakes.items() if jobs]
        assert not told, f"{self.counts()}; jobs " + "; jobs ".join(told)

    def _is_right(self, result: dict[str, Any]) -> bool:
        account = self.accounts.get(result["job_id"], self.begun.get(result["job_id"]))
        if account is None or result["account_number"] not in {account, None}:
            return False
        if result["status"] != "succeeded" or (self._empty_is_right and not result["outcomes"]):
            return True
        named = [each["description"] for each in result["outcomes"] if each["id"] == _ACCOUNT_OUTCOME]
        return named == [" ".join(f"Account {account}".split())]


def some(jobs: Iterable[str]) -> str:
    """Say how many there are, and name the first of them."""
    listed = list(jobs)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return f"{len(listed)} ({', '.join(listed[:_NAMED])}{more})" if listed else "none"
