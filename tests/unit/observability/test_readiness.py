"""What a worker answers when it is asked whether it is ready."""

from __future__ import annotations

import re

import msgspec
import pytest

from worker.observability.readiness import NotReady, verdict


def test_nothing_against_it_is_good() -> None:
    """Without a reason the verdict is good, and its body says just that."""
    assert msgspec.json.encode(verdict({})) == b'{"ok":true,"reasons":[]}'


def test_each_reason_stands_with_its_meaning_and_its_detail() -> None:
    """Reasons come in the order in which they were given, with meaning, detail and remedy."""
    blocked, outage = NotReady.BLOCKED, NotReady.OUTAGE
    said = msgspec.to_builtins(verdict({blocked: "", outage: "HTTP 503"}))
    told = {"meaning": "LCM is out; jobs are deferred", "detail": "HTTP 503", "remedy": outage.remedy}
    assert said == {
        "ok": False,
        "reasons": (
            {"code": "broker_blocked", "meaning": blocked.meaning, "detail": "", "remedy": blocked.remedy},
            {"code": "lcm_outage", **told},
        ),
    }


@pytest.mark.parametrize("reason", NotReady)
def test_each_reason_has_a_code_of_its_own(reason: NotReady) -> None:
    """A code is a name for programs and no other reason's; meaning and remedy are for people."""
    assert re.fullmatch("[a-z]+(_[a-z]+)*", reason.code)
    assert " " in reason.meaning
    assert " " in reason.remedy
    assert [other for other in NotReady if other.code == reason.code] == [reason]
