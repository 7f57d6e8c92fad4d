"""How deliveries end, and what that means for the broker and the log."""

from __future__ import annotations

import pytest

from worker.contract.disposition import Disposition, Ending, Settle


@pytest.mark.parametrize(
    ("ending", "settle"),
    [
        (Ending.SUCCEEDED, Settle.ACK),
        (Ending.FAILED, Settle.ACK),
        (Ending.REJECTED, Settle.DEAD_LETTER),
        (Ending.RETRY_LATER, Settle.ACK),
        (Ending.DEFERRED, Settle.ACK),
        (Ending.STALE, Settle.NOT_AT_ALL),
        (Ending.CRASHED, Settle.DEAD_LETTER),
    ],
)
def test_each_ending_settles_in_one_way(ending: Ending, settle: Settle) -> None:
    """What something has taken the place of is acknowledged; a defect leaves the delivery to the broker's net."""
    assert ending.settle is settle


@pytest.mark.parametrize("ending", Ending)
def test_endings_have_names_of_their_own(ending: Ending) -> None:
    """The event of the log is the name that the metrics use; only the two kinds of failures share theirs."""
    assert ending.event == f"job.{ending.label}"
    same = {other for other in Ending if other.label == ending.label}
    assert same == ({Ending.FAILED, Ending.REJECTED} if ending.is_failure else {ending})


def test_a_bare_end_has_made_no_exchange() -> None:
    """Where nothing is known of a job, no exchange was made for it, nor is there an outcome list, even an empty one."""
    bare = Disposition(Ending.STALE)
    assert (bare.attempts, bare.exchanges, bare.outcomes) == (0, 0, -1)
    assert (bare.lookup_result, bare.last_exchange, bare.error, bare.queue_ms) == (None, None, None, None)
