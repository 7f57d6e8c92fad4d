"""Notices when nearly every job fails for good in a way that points to a bad deploy, not to bad jobs. Pure."""

from __future__ import annotations

from collections import OrderedDict

SUSPICIOUS = frozenset({"lcm_rejected", "reply_too_large", "internal"})


class Guard:
    """Watches the last `window` jobs of different accounts; `ratio` 0 switches it off.

    While `tripped`, a few jobs at a time are let through, until one of them comes out well.
    """

    def __init__(self, window: int, ratio: float) -> None:
        self.tripped = False
        self._window = window
        self._needed = ratio * window
        self._last: OrderedDict[str, bool] = OrderedDict()
        self._suspicious = 0

    def __repr__(self) -> str:
        state = "tripped" if self.tripped else "watching"
        return f"<Guard {state}, {self._suspicious} of the last {len(self._last)} suspicious>"

    def job_ended(self, account: str, error_code: str | None) -> bool:
        """Take note of a job's end, `None` for a good one; return whether `tripped` has changed."""
        if not self._needed:
            return False
        suspicious = error_code in SUSPICIOUS
        self._note(account, suspicious=suspicious)
        if self.tripped:
            if error_code is None:
                self._reset()
                return True
            return False
        self.tripped = len(self._last) >= self._window and self._suspicious >= self._needed
        return self.tripped

    def _note(self, account: str, *, suspicious: bool) -> None:
        # One account counts once, by its latest job: a producer that repeats one bad job is no bad deploy.
        self._suspicious -= self._last.pop(account, False)
        self._last[account] = suspicious
        self._suspicious += suspicious
        if len(self._last) > self._window:
            _, oldest = self._last.popitem(last=False)
            self._suspicious -= oldest

    def _reset(self) -> None:
        self.tripped = False
        self._last.clear()
        self._suspicious = 0
