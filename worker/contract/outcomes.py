"""Outcomes in their normalized form.

Outcomes are put into one form, whatever order and blanks LCM sent them with, so that equal lists are equal bytes.
The fingerprint is the SHA-256 of those bytes: the `outcomes` array exactly as it stands in a result's body, UTF-8
JSON without blanks, its keys in the order `id`, `code`, `description`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import msgspec

from worker.common.remembered import Remembered
from worker.common.text import quote, well_formed

_MAX_NAMED = 5  # descriptions that one warning lists
_NUMBER = re.compile(r"[0-9]{1,18}")
_NO_WORD = re.compile(r"[^a-z0-9]+")
_encode = msgspec.json.Encoder().encode


Item = tuple[str, str]
"""One outcome as LCM sent it: its id, in which is more than blanks, and its description, "" where there is none."""


class OutcomeList(tuple[Item, ...]):  # noqa: SLOT001 - what follows from it is kept in its dictionary
    """An outcome list in LCM's order and spelling; it never changes."""

    _normalized: Normalized | None = None

    @property
    def normalized(self) -> Normalized:
        """The outcomes in the contract's form: worked out once, as one list may answer many jobs."""
        if self._normalized is None:
            self._normalized = normalize(self)
        return self._normalized


class Outcome(msgspec.Struct, frozen=True):
    """One telephony outcome in its normalized form. `code` may be empty and need not be unique."""

    id: str
    code: str
    description: str


class Normalized(msgspec.Struct, frozen=True):
    """Outcomes with unique ids in the contract's order, and what had to be decided to get there.

    Attributes:
        outcomes: the outcomes.
        warnings: what was decided.
        encoded: the `outcomes` array of a result's body.
        fingerprint: names `encoded` by its content: `sha256:` and 64 hexadecimal digits.
    """

    outcomes: tuple[Outcome, ...]
    warnings: tuple[str, ...]
    encoded: bytes
    fingerprint: str


class _Ranked(NamedTuple):
    """One normalized outcome, and where it belongs.

    Ranks sort as text, and are equal exactly when the ids are; so these sort by id, then description.
    """

    rank: str
    description: str
    outcome: Outcome
    encoded: bytes


def normalize(items: Iterable[Item]) -> Normalized:
    """Put items into the contract's form; the result doesn't depend on their order.

    Every id has more than blanks in it, which is for the reader of LCM's reply to make sure.
    """
    ranked = [_remembered[item] for item in items]
    by_rank = {each.rank: each for each in ranked}
    warnings: tuple[str, ...] = ()
    if len(by_rank) < len(ranked):
        ranked.sort()
        # of an id's several descriptions the first by text is kept: the last one that this writes
        by_rank = {each.rank: each for each in reversed(ranked)}
        warnings = tuple(_warnings(ranked))
    kept = [by_rank[rank] for rank in sorted(by_rank)]
    encoded = b"[%b]" % b",".join([each.encoded for each in kept])
    named = f"sha256:{sha256(encoded).hexdigest()}"
    return Normalized(tuple([each.outcome for each in kept]), warnings, encoded, named)


def _normalized(item: Item) -> _Ranked:
    id_, description = item
    id_ = well_formed(id_.strip())
    description = well_formed(" ".join(description.split()))
    code = _NO_WORD.sub("_", description.lower()).strip("_")
    rank = f"0{id_:0>18}{id_}" if _NUMBER.fullmatch(id_) else f"1{id_}"
    outcome = Outcome(id_, code, description)
    return _Ranked(rank, description, outcome, _encode(outcome))


def _characters(item: Item) -> int:
    return sum(map(len, item))


# The same items come in every list.
_remembered = Remembered(_normalized, _characters, longest=256, most=2048)


def _warnings(ranked: list[_Ranked]) -> Iterator[str]:
    """Tell which ids came with several descriptions; `ranked` is sorted."""
    for _, items in groupby(ranked, key=attrgetter("rank")):
        first, *others = dict.fromkeys(item.outcome for item in items)
        if others:
            dropped = ", ".join(quote(other.description) for other in others[:_MAX_NAMED])
            more = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
            yield (
                f"id {quote(first.id)} has {len(others) + 1} descriptions: "
                f"kept {quote(first.description)}, dropped {dropped}{more}"
            )
