"""The taxonomy of errors agrees with itself, with the contract, and with the tree that is drawn of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from worker.contract import errors
from worker.contract.errors import (
    Expired,
    FailureAction,
    InternalError,
    InvalidJob,
    JobError,
    LcmRejected,
    WorkerError,
    remedy_for,
)
from worker.contract.job import Job

CONTRACT = {
    "invalid_job": False,
    "result_too_large": False,
    "expired": False,
    "lcm_rejected": False,
    "lcm_error": True,
    "timeout": True,
    "connection_lost": True,
    "malformed_reply": True,
    "reply_too_large": False,
    "poison": False,
    "internal": True,
}
"""Whether each `error.code` of a failed result is transient."""

_BRANCH = re.compile(r"^    (?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: +(?P<remark>\S.*))?$")


def subclasses(root: type[WorkerError]) -> Iterator[type[WorkerError]]:
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from subclasses(child)


def job_errors() -> list[type[JobError]]:
    return [kind for kind in subclasses(WorkerError) if issubclass(kind, JobError) and hasattr(kind, "code")]


def an_error(kind: type[JobError]) -> JobError:
    if issubclass(kind, InvalidJob):
        return kind("no account", job=Job(job_id="j", account_number="", correlation_id="j"))
    return kind("it went wrong")


def drawn_tree() -> Iterator[tuple[str, str | None, str]]:
    """Yield each class of the docstring's tree: its name, its parent's, and the remark beside it."""
    parents: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := _BRANCH.match(line):
            depth, name = len(match["indent"]), match["name"]
            while parents and parents[-1][0] >= depth:
                parents.pop()
            yield name, parents[-1][1] if parents else None, match["remark"] or ""
            parents.append((depth, name))


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    """Every class stands in the drawing under the class that it derives from, and nothing else does."""
    drawn = {name: parent for name, parent, _ in drawn_tree()}
    bases = {kind.__name__: kind.__bases__[0].__name__ for kind in subclasses(WorkerError)}
    assert drawn == {"WorkerError": None, **bases}


def test_the_drawing_tells_each_code_and_its_transience() -> None:
    """The remark beside an error of a job is its code and whether it is transient."""
    remarks = {name: remark.split()[:2] for name, _, remark in drawn_tree()}
    for kind in job_errors():
        nature = "transient" if kind.transient else "permanent"
        assert [word.rstrip(",") for word in remarks[kind.__name__]] == [kind.code, nature]


@pytest.mark.parametrize("kind", job_errors())
def test_codes_and_transience_are_the_contract_s(kind: type[JobError]) -> None:
    """Each error of a job has a code of the contract's table, and the transience that stands beside it."""
    assert kind.transient is CONTRACT[kind.code]


def test_codes_are_unique() -> None:
    """No two errors of a job share a code, so that a code tells what happened."""
    codes = [kind.code for kind in job_errors()]
    assert len(codes) == len(set(codes))


def test_only_families_have_no_code() -> None:
    """An error that a job can end with has a code; what has none is there to be derived from."""
    without = {kind for kind in subclasses(JobError) if not hasattr(kind, "code")}
    assert all(kind.__subclasses__() for kind in without)


@pytest.mark.parametrize("kind", job_errors())
def test_the_remedy_follows_from_the_error(kind: type[JobError]) -> None:
    """What is transient is retried later, what is permanent fails, and what expired only says so."""
    remedy = remedy_for(an_error(kind))
    if kind is Expired:
        assert remedy is FailureAction.EXPIRE
    else:
        assert remedy is (FailureAction.RETRY if CONTRACT[kind.code] else FailureAction.FAIL)


def test_the_message_holds_lcm_s_own_words_and_the_text_does_not() -> None:
    """A failed result quotes LCM, while the text for the log is this worker's alone."""
    error = LcmRejected("LCM rejected the account", remote_message="Invalid account 18|1")
    assert str(error) == "LCM rejected the account"
    assert error.message == "LCM rejected the account: Invalid account 18|1"
    assert InternalError("a defect").message == "a defect"


def test_every_error_says_what_it_means() -> None:
    """Each class has a docstring of its own."""
    for kind in subclasses(WorkerError):
        assert kind.__doc__
        assert inspect.getdoc(kind) not in {inspect.getdoc(base) for base in kind.__bases__}


def test_the_list_of_codes_is_complete() -> None:
    """ERRORS holds every kind of job error, each by its own code."""
    assert set(errors.ERRORS.values()) == set(job_errors())
    assert all(kind.code == code for code, kind in errors.ERRORS.items())
