"""Who is in the fleet and what each is granted: the same for all who have read the log as far.

A grant changes only at its member's own beats, to what is claimed or what the others' grants leave of the limit. So
their sum never exceeds the limit by a beat, and nobody has to wait for what others think: who gives up less has done so
before its beat, who takes more reads its own beat first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from worker.fleet.beat import Amounts, Beat

MOST_MEMBERS = 1000
"""Who comes beyond is no member until one has gone: each costs memory and time of all."""


@dataclass(slots=True)
class Member:
    """A worker by its last beat, which stands at `offset` of the log."""

    beat: Beat
    offset: int
    grant: Amounts
    since: int


class Roster:
    """The members by id."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}

    def apply(self, beat: Beat, offset: int) -> None:
        """Take the next entry of the log, at this position."""
        for gone, last in beat.gone.items():
            known = self.members.get(gone)
            # Only where it has not beaten since: that is what its silence was measured from.
            if known is not None and known.offset <= last and gone != beat.id:
                del self.members[gone]
        if beat.leaves:
            self.members.pop(beat.id, None)
            return
        known = self.members.get(beat.id)
        if known is None and len(self.members) >= MOST_MEMBERS:
            return
        first = known.since if known else offset
        since = first if beat.since is None else beat.since
        # Who is gone was told, and is not kept: a thousand members could hold 64 KiB each.
        kept = msgspec.structs.replace(beat, gone={}) if beat.gone else beat
        self.members[beat.id] = Member(kept, offset, Amounts(), since)
        self.members[beat.id].grant = beat.claim.least(self.free_for(beat.id))

    def limit(self) -> Amounts:
        """Return what all may use together: the least that any member's settings say, 0 where none says any."""
        limits = [member.beat.limit for member in self.members.values()]
        return Amounts(
            min((each.sessions for each in limits if each.sessions), default=0),
            min((each.rate for each in limits if each.rate), default=0),
        )

    def free_for(self, name: str) -> Amounts:
        """Return what a member would be granted now if it claimed everything."""
        limit = self.limit()
        others = [member.grant for member in self.members.values() if member.beat.id != name]
        return Amounts(
            _left(limit.sessions, sum(each.sessions for each in others)),
            _left(limit.rate, sum(each.rate for each in others)),
        )

    def fair(self, newcomer: Beat) -> Amounts:
        """Return the fair share of the sender of a beat, be it a member by now or not.

        Equal shares, the remainder to the oldest, what one can't use to the others. Of a rate only those have a
        share that have sessions.
        """
        beats = [newcomer if beat.id == newcomer.id else beat for beat in self._in_order()]
        if newcomer.id not in self.members:
            beats.append(newcomer)
        limit = self._limit_with(newcomer)
        sharing = [beat for beat in beats if beat.limit != Amounts()]
        if newcomer not in sharing:
            return Amounts()
        sessions = shares([beat.want.sessions for beat in sharing], limit.sessions)
        rates = shares(
            [beat.want.rate if one else 0 for beat, one in zip(sharing, sessions, strict=True)], limit.rate
        )
        own = sharing.index(newcomer)
        return Amounts(sessions[own], rates[own])

    def _limit_with(self, newcomer: Beat) -> Amounts:
        limit = self.limit()
        return Amounts(
            _stricter(limit.sessions, newcomer.limit.sessions), _stricter(limit.rate, newcomer.limit.rate)
        )

    def _in_order(self) -> list[Beat]:
        ordered = sorted(self.members.values(), key=lambda member: (member.since, member.beat.id))
        return [member.beat for member in ordered]


UNLIMITED = 10**12


def _left(limit: int, used: int) -> int:
    return max(0, limit - used) if limit else UNLIMITED


def _stricter(one: int, other: int) -> int:
    return min(one, other) if one and other else one or other


def shares(wants: Sequence[int], limit: int) -> list[int]:
    """Divide a limit, 0 for none, among those who want so much: equally, and what one doesn't want among the others."""
    if not limit:
        return list(wants)
    given = [0] * len(wants)
    left = limit
    while left and (open_ := [at for at, want in enumerate(wants) if given[at] < want]):
        each = max(1, left // len(open_))
        for at in open_:
            more = min(each, wants[at] - given[at], left)
            given[at] += more
            left -= more
    return given
