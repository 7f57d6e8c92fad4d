"""One worker's place in the fleet: what it may use now, when it has to beat, and what it says then.

What keeps the sum within the limit, beside the roster:

- More than before is used only once the own beat that claims it has been read back.
- A claim of less holds from the moment of sending, and is never less than what is held at that moment.
- Nothing is used any more `hold` seconds after *sending* the last beat that was read back; so long as a reply may take
  before that, nothing is asked any more.
- Who is silent is declared gone, in a beat, `hold` and `MARGIN` seconds after its last beat was *read*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from worker.fleet.beat import Amounts, Beat
from worker.fleet.roster import Roster

EVERY = 2.0
"""Seconds between two beats."""
QUICKLY = 0.2
"""Seconds after a beat, at least, before one that changes something."""
MARGIN = 5.0
"""Seconds for clocks that differ, and for a connection that ends late."""
BEATS_IN_HOLD = 5
_MOST_GONE = 100  # in one beat, whose size is limited; the others follow in the next


class Seat:
    """One worker's place.

    Args:
        id: the worker, by a name that no other and no later one has.
        name: the worker as the log names it.
        limit: what all may use together; 0 is no limit.
        want: the most that this worker can use.
        reply_timeout: seconds that an exchange may take.
    """

    def __init__(self, id: str, name: str, limit: Amounts, want: Amounts, reply_timeout: float) -> None:  # noqa: A002
        self.id = id
        self.roster = Roster()
        self.hold = reply_timeout + BEATS_IN_HOLD * EVERY
        self._name = name
        self._limit = limit
        self._want = want
        self._reply_timeout = reply_timeout
        self._number = 0
        self._sent: dict[int, tuple[float, Amounts]] = {}
        self._last_sent = -math.inf
        self._lease_from = -math.inf
        self._heard: dict[str, float] = {}
        self._known_fair: Amounts | None = None

    @property
    def limited(self) -> bool:
        """Whether this worker's settings have a limit for all."""
        return self._limit != Amounts()

    @property
    def size(self) -> int:
        """How many workers there are, this one included once it has read its own beat."""
        return len(self.roster.members)

    @property
    def asks_until(self) -> float:
        """Until when exchanges may begin."""
        return self.ends_at - self._reply_timeout

    @property
    def ends_at(self) -> float:
        """Until when anything may be used, unless another beat is read back."""
        return self._lease_from + self.hold

    def share(self, now: float) -> Amounts:
        """Return what may be used now: what is granted, or less where less was claimed or is fair."""
        return self._usable(now).least(self._fair)

    def beat(self, now: float, held: int, *, paused: Sequence[str] = (), leaves: bool = False) -> Beat:
        """Return the beat to send now, while so many sessions are held. The caller keeps to `share` from now on."""
        self._number += 1
        claim = self._claim(now, held)
        self._sent[self._number] = now, claim
        self._last_sent = now
        return self._beat(
            number=self._number,
            claim=claim,
            held=held,
            gone={other: self.roster.members[other].offset for other in self._silent(now)[:_MOST_GONE]},
            paused=tuple(paused),
            leaves=leaves,
        )

    def read(self, beat: Beat, offset: int, now: float) -> None:
        """Take the next entry of the log, at this position."""
        self.roster.apply(beat, offset)
        if beat.id == self.id and beat.number in self._sent:
            self._lease_from, _ = self._sent[beat.number]
            self._sent = {number: sent for number, sent in self._sent.items() if number > beat.number}
        self._known_fair = None
        for left in (*beat.gone, beat.id):
            if left not in self.roster.members:
                self._heard.pop(left, None)
        if beat.id in self.roster.members:
            self._heard[beat.id] = now

    def forget(self) -> None:
        """Begin anew with an empty log; nothing may be used until a beat has been read back."""
        self.roster, self._heard = Roster(), {}
        self._lease_from = -math.inf
        self._known_fair = None

    def due(self, now: float, held: int) -> float:
        """Return when the next beat is to be sent."""
        soon = self._last_sent + QUICKLY
        regular = self._last_sent + EVERY
        # One that is under way may change what there is to say.
        if not self._sent and self._has_news(now, held):
            return soon
        silence = min(map(self._declared_gone_at, self._heard), default=math.inf)
        return min(regular, max(soon, silence))

    def _has_news(self, now: float, held: int) -> bool:
        """Whether a beat would change what this worker is granted."""
        granted = self._granted()
        return self._claim(now, held).least(self.roster.free_for(self.id)) != granted

    def _claim(self, now: float, held: int) -> Amounts:
        kept = min(held, self._usable(now).sessions)
        return Amounts(max(self._fair.sessions, kept), self._fair.rate)

    def _usable(self, now: float) -> Amounts:
        if now >= self.ends_at:
            return Amounts()
        usable = self._granted()
        for _, claim in self._sent.values():
            usable = usable.least(claim)
        return usable

    def _granted(self) -> Amounts:
        known = self.roster.members.get(self.id)
        return known.grant if known else Amounts()

    @property
    def _fair(self) -> Amounts:
        # Not at each entry: who joins reads those of an hour at once.
        if self._known_fair is None:
            self._known_fair = self.roster.fair(self._beat(number=self._number))
        return self._known_fair

    def _beat(self, **said: object) -> Beat:
        known = self.roster.members.get(self.id)
        return Beat(
            id=self.id,
            name=self._name,
            since=known.since if known else None,
            hold=self.hold,
            limit=self._limit,
            want=self._want,
            **said,  # type: ignore[arg-type]
        )

    def _silent(self, now: float) -> list[str]:
        return [other for other in self._heard if self._declared_gone_at(other) <= now]

    def _declared_gone_at(self, other: str) -> float:
        if other == self.id:
            return math.inf
        return self._heard[other] + self.roster.members[other].beat.hold + MARGIN
