"""What the bars of a submission say of its speed."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.progress import Progress, Task

from worker.cli.submit.screen import rate_of


class Timed:
    """A task of a progress bar whose clock stands where the test puts it."""

    def __init__(self, total: int) -> None:
        self.now = 100.0
        self._progress = Progress(console=Console(quiet=True), get_time=lambda: self.now)
        self._id = self._progress.add_task("published", total=total, moved=self.now)

    def go_on(self, seconds: float, done: int) -> None:
        self.now += seconds
        self._progress.update(self._id, completed=done, moved=self.now)

    @property
    def task(self) -> Task:
        return self._progress.tasks[0]


@pytest.mark.parametrize(("quiet", "said"), [(0.0, "100/s"), (4.9, "100/s"), (22.4, "none for 22 s")])
def test_what_stands_still_says_for_how_long(quiet: float, said: str) -> None:
    """A speed that was measured long ago is not shown as if it still held."""
    timed = Timed(total=10_000)
    timed.go_on(1.0, 100)
    timed.go_on(1.0, 200)
    assert rate_of(timed.task, timed.now + quiet) == said


def test_what_has_ended_keeps_its_speed() -> None:
    """The speed of the whole stays as it was, however long one looks at it."""
    timed = Timed(total=300)
    timed.go_on(2.0, 100)
    timed.go_on(1.0, 300)
    assert rate_of(timed.task, timed.now) == rate_of(timed.task, timed.now + 60) == "100/s"
