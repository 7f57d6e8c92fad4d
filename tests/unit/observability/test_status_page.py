"""The page for people: what it shows, and what hostile texts can't do there."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

import pytest

from tests.support.html import Document
from worker.contract.disposition import Disposition, Ending
from worker.contract.errors import ERRORS, JobError, LcmRejected
from worker.observability.failures import Failures
from worker.observability.metrics import Now
from worker.observability.readiness import NotReady, Reason, Verdict, verdict
from worker.observability.status_page import View, status_page

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOSTILE = (
    "</style><script>alert(1)</script>\"'><img src=//evil onerror=alert(2)>&lt;\x1b[31m\u202e\u2028\ud800"
)
MOST_BYTES = 64 * 1024
"""What an answer of a worker may have, see SECURITY.md."""


GOOD = Verdict(ok=True)
NOTHING = Now()


def failed(*errors: JobError) -> Failures:
    failures = Failures(lambda: NOON)
    for error in errors:
        failures(Disposition(Ending.FAILED, error=error))
    return failures


def page(
    *,
    name: str = "w-1",
    live: Verdict = GOOD,
    ready: Verdict = GOOD,
    now: Now = NOTHING,
    failures: Failures | None = None,
) -> Document:
    view = View(name, "1.2.3", NOON, live, ready, now, {"succeeded": 1234, "stale": 0}, failures or failed())
    return Document(status_page(view, str).body)


def test_it_shows_what_the_worker_does() -> None:
    """State, sessions, share, connections, totals, failures with their time, and the links are on it."""
    now = Now(
        in_flight=17,
        sessions={"busy": 3, "idle": 1, "opening": 0},
        waiting=5,
        links={"consume": True, "publish": False},
        blocked=True,
        fleet={"workers": 4, "sessions": 8, "rate": 12.5},
    )
    found = page(now=now, failures=failed(LcmRejected("LCM rejected the account")))
    text = "|".join(found.texts)
    for part in (
        "w-1|ready|2026-01-31 12:00:00 UTC",
        "busy|3|idle|1|opening|0",
        "deliveries in hand|17",
        "connection to consume|up|connection to publish|down|the broker's alarm|takes no messages",
        "succeeded|1,234",
        "sessions of this one|8|exchanges/s of this one|12.5",
        "lcm_rejected|1|0|2026-01-31 12:00:00|LCM rejected the account",
        "version 1.2.3",
    ):
        assert part in text
    assert ("rect", {"width": "75.0", "height": "8"}) in found.elements
    assert [found["href"] for tag, found in found.elements if tag == "a"] == ["/readyz", "/livez", "/metrics"]


@pytest.mark.parametrize("reason", NotReady)
def test_a_reason_is_told_in_words_with_what_to_do(reason: NotReady) -> None:
    """Each reason has its meaning, its detail and its remedy there."""
    text = "|".join(page(ready=verdict({reason: "HTTP 503"})).texts)
    assert (
        f"not ready|2026-01-31 12:00:00 UTC, anew every 5 s|{reason.meaning}| |{reason.code}|HTTP 503|"
        in text
    )
    assert f"What to do: {reason.remedy}." in text


def test_a_worker_that_has_to_be_restarted_says_so() -> None:
    """What is not live stands above everything else."""
    assert "restart it" in page(live=Verdict(ok=False, reasons=(Reason("gone", "it is gone"),))).texts


def test_no_text_is_taken_for_markup() -> None:
    """A hostile name, detail and message bring no element and no attribute, and stand there as their letters."""
    shown = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\u2028", "\\u2028")
    shown = shown.replace("\ud800", "\\ud800")
    reasons = Verdict(ok=False, reasons=(Reason(HOSTILE, HOSTILE, HOSTILE, HOSTILE),))
    harmless = page(
        ready=Verdict(ok=False, reasons=(Reason("a", "b", "c", "d"),)), failures=failed(LcmRejected("e"))
    )
    found = page(name=HOSTILE, live=reasons, ready=reasons, failures=failed(LcmRejected(HOSTILE)))
    assert (found.tags, found.attributes) == (harmless.tags, harmless.attributes)
    assert "script" not in found.tags
    assert not {"src", "onerror", "style"} & found.attributes
    assert len([text for text in found.texts if shown in text]) == 11


def test_a_secret_is_masked_before_a_text_is_cut() -> None:
    """Of a secret that stands where a text is cut, no beginning is shown."""
    text = "x" * 295 + "passw0rd"
    view = View("w-1", "1", NOON, GOOD, verdict({NotReady.OUTAGE: text}), NOTHING, {}, failed())
    body = status_page(view, lambda said: said.replace("passw0rd", "***")).body
    assert b"xxx***" in body
    assert b"passw" not in body


def test_it_is_never_larger_than_an_answer_may_be() -> None:
    """With every reason and every error code, and texts without end that grow as they are escaped, it is bounded."""
    endless = "\U000e0001\"'&<" * 100_000
    every = verdict(dict.fromkeys(NotReady, endless))
    failures = failed()
    for code in ERRORS:
        failures.by_code[code] = failed(LcmRejected(endless)).by_code["lcm_rejected"]
    view = View(endless, "1", NOON, every, every, NOTHING, {}, failures)
    body = status_page(view, str).body
    Document(body)
    assert len(body) < MOST_BYTES


def test_a_browser_needs_nothing_else_for_it() -> None:
    """It has its style in it, by whose hash it is allowed, and asks for nothing but itself, anew."""
    view = View("w-1", "1", NOON, GOOD, GOOD, NOTHING, {}, failed())
    made = status_page(view, str)
    found = Document(made.body)
    [style] = found.code
    assert made.style == f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"
    assert not {"src", "srcset", "action"} & found.attributes
    assert "url(" not in style
    assert "@import" not in style
    assert found.meta("refresh") == "5"
