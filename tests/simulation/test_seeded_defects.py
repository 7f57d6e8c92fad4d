"""The simulation can fail: it finds each of these defects, which are seeded into the real classes."""

from __future__ import annotations

import re

import pytest

from tests.simulation import defects
from tests.simulation.defects import Seed
from tests.simulation.run import runs

# A defect has to show within so many schedules; most do within fifty, the rarest after 6,800.
_SCHEDULES = 10_000

DEFECTS: dict[Seed, str] = {
    defects.a_session_keeps_its_socket_after_a_timeout: r"a second request on connection \d+",
    defects.a_session_keeps_its_socket_when_it_is_cancelled: r"a second request on connection \d+",
    defects.requests_go_out_without_a_fence: r"job \d+ for a\d+ was given",
    defects.a_pong_counts_before_what_came_ahead_of_it: r"job \d+ for a\d+ was given",
    defects.a_session_is_handed_out_twice: r"was asked for a second exchange",
    defects.a_promised_session_is_lost_by_a_cancellation: r"nothing is to be done, but <Pool \d busy",
    defects.a_place_is_free_before_its_session_is_closed: r"\d connections are open, of \d allowed",
    defects.no_session_is_opened_for_who_waits_meanwhile: r"have not ended",
    defects.sessions_are_opened_without_a_pause: r"connects within one probe_delay|turns of the loop",
    defects.probes_come_without_a_pause: r"a probe came \S+ s after the outage began",
    defects.a_permission_to_probe_outlasts_its_outage: r"a probe came \S+ s after the outage began",
    defects.every_outage_has_a_prober_of_its_own: r"2 probes are under way",
    defects.an_outage_is_probed_once: r"no end: <Breaker open|have not ended",
    defects.an_answer_does_not_end_an_outage: r"no end: <Breaker open|have not ended",
    defects.a_cancelled_leader_forgets_its_followers: r"have not ended",
    defects.a_flight_is_shared_by_all_accounts: r"job \d+ for a\d+ was given",
    defects.a_repeat_is_charged: r"was charged \d exchanges",
    defects.a_probe_is_charged: r"was charged \d exchanges",
}


@pytest.mark.parametrize(("seed", "shows"), DEFECTS.items(), ids=lambda given: getattr(given, "__name__", ""))
def test_a_seeded_defect_is_found(seed: Seed, shows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of this kind shows as what it is within a few schedules."""
    seed(monkeypatch)
    found: list[str] = []
    for done in runs(range(_SCHEDULES)):
        found += done.violations
        if any(re.search(shows, wrong) for wrong in done.violations):
            return
    raise AssertionError(f"not found within {_SCHEDULES} schedules, only {found[:5]}")
