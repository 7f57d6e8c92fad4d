"""The exchange *SetCallOutComeOffline*: its request, and the outcome list in its reply. No input or output.

The vendor documents one request and one reply (see docs/lcm-protocol.md). Its sibling pages spell ids in other ways,
and an outcome list of one as an object; those are read here, and never sent.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import msgspec
from msgspec import Raw

from worker.common.remembered import Remembered
from worker.common.text import kind_of
from worker.contract.outcomes import Item, OutcomeList
from worker.lcm.envelope import (
    UNREADABLE,
    ErrorReply,
    Malformed,
    Payload,
    Unparseable,
    UnreadableReply,
    Unsolicited,
    encode_request,
    error_in,
    open_envelope,
    read_error_fields,
    reason,
    repeated_key,
)
from worker.lcm.told import NO_SECRETS, Secrets, told

REQUEST_SUBTOPIC = "SetCallOutComeOffline"
REPLY_SUBTOPIC = "SetCallOutComeOfflineResponse"


@dataclass(slots=True, frozen=True)
class Reply:
    """An outcome list."""

    items: OutcomeList


Frame = Reply | ErrorReply | Malformed | Unsolicited | Unparseable


class _Outcome(msgspec.Struct, gc=False):
    documented_id: str | int | None = msgspec.field(default=None, name="OutComeID")
    sibling_id: str | int | None = msgspec.field(default=None, name="OutcomeID")
    other_sibling_id: str | int | None = msgspec.field(default=None, name="OutcomeId")
    description: str | int | None = msgspec.field(default=None, name="Description")


class _SampleOutcome(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    identity: str = msgspec.field(name="OutComeID")
    description: str = msgspec.field(name="Description")


class _SamplePayload(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    response: list[Raw]


class _Sample(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A reply of the very form of the vendor's sample."""

    channel: Literal["LCM"]
    topic: Literal["WebService"]
    subtopic: Literal["SetCallOutComeOfflineResponse"]
    message: _SamplePayload


def _sample_item(raw: bytes) -> Item:
    """Read an item of the sample's form. Raises one of UNREADABLE where it is of another."""
    outcome = _read_sample_outcome(raw)
    if not outcome.identity.strip():
        raise ValueError("an outcome with a blank id")
    return outcome.identity, outcome.description


_read_sample = msgspec.json.Decoder(_Sample).decode
_read_sample_outcome = msgspec.json.Decoder(_SampleOutcome).decode
# The same bytes come in every reply.
_sample_items_seen = Remembered(_sample_item, len, longest=512, most=2048)
_read_outcomes = msgspec.json.Decoder(list[_Outcome]).decode
_read_outcome = msgspec.json.Decoder(_Outcome).decode

# Removed from the left, as a reader takes them, escapes leave no quotes but those around strings.
_without_escapes = re.compile(rb"\\.", re.DOTALL).sub
# Of a sample, every key and value but the list and its items is a string between two quotes.
_QUOTES_AROUND = 2 * 8
_QUOTES_OF_ONE = 2 * 4

_MOST_HASHES = 4096


def encode(account_number: str) -> bytes:
    """Encode the request for one account, as the UTF-8 of one text message."""
    return encode_request(REQUEST_SUBTOPIC, {"AccountNumber": account_number})


class ReplyMemory:
    """The last outcome lists and the bytes that they were read from, at most `most` bytes of them.

    Accounts of one campaign share their list: what the same bytes mean, and what follows from it, is known then. A
    memory is for one set of `session_errors`, by which replies are told from errors. With all that belongs to a list it
    takes some six times `most`.

    Bytes are kept when they come for the second time: where each account has its own list, none is kept in vain.
    """

    def __init__(self, most: int = 512 * 1024) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, Reply] = OrderedDict()
        self._hashes_seen: set[int] = set()
        self._size = 0

    def get(self, raw: bytes) -> Reply | None:
        """Return what these very bytes were read as."""
        if (reply := self._kept.get(raw)) is not None:
            self._kept.move_to_end(raw)
        return reply

    def keep(self, raw: bytes, reply: Reply) -> None:
        """Remember bytes that came before, unless they would drive out much of the others; `get` has not found them."""
        if len(raw) > self._most // 4 or not self._came_before(hash(raw)):
            return
        self._kept[raw] = reply
        self._size += len(raw)
        while self._size > self._most:
            oldest, _ = self._kept.popitem(last=False)
            self._size -= len(oldest)

    def _came_before(self, hashed: int) -> bool:
        if hashed in self._hashes_seen:
            return True
        if len(self._hashes_seen) >= _MOST_HASHES:
            self._hashes_seen.clear()
        self._hashes_seen.add(hashed)
        return False


def classify(
    raw: bytes,
    session_errors: frozenset[str] = frozenset(),
    memory: ReplyMemory | None = None,
    secrets: Secrets = NO_SECRETS,
) -> Frame:
    """Say what one incoming message is. Never raises, whatever the bytes.

    `session_errors` lists values of `errorType` or `msg` that mean LCM itself is unwell where they come in an
    ordinary reply, as `envelope.session_errors_of` returns them. `memory` keeps outcome lists, and nothing else.
    `secrets` masks those that LCM tells back.
    """
    if memory is not None and (known := memory.get(raw)) is not None:
        return known
    frame = _without_secrets(_classify(raw, session_errors), raw, secrets)
    if memory is not None and isinstance(frame, Reply):
        memory.keep(raw, frame)
    return frame


def _without_secrets(frame: Frame, raw: bytes, secrets: Secrets) -> Frame:
    match frame:
        case Reply(items):
            # Without escapes a reply says what it means, and is looked through at a fifth of the price of its items.
            text = "\n".join(chain.from_iterable(items)) if b"\\" in raw else raw.decode(errors="replace")
            if secrets.in_data(text) != text:
                return Reply(
                    OutcomeList((secrets.in_data(id_), secrets.in_data(said)) for id_, said in items)
                )
        case ErrorReply(text, about_lcm):
            return ErrorReply(told(text, secrets), about_lcm)
        case Malformed(why, said):
            return Malformed(why, told(said, secrets))
    return frame


def _classify(raw: bytes, session_errors: frozenset[str]) -> Frame:
    if (items := _sample_items(raw)) is not None:
        return Reply(items)
    payload = open_envelope(raw, REPLY_SUBTOPIC)
    if not isinstance(payload, Payload):
        return payload
    try:
        return _read_reply(raw, payload, session_errors)
    except UnreadableReply as error:
        return Malformed(reason(error), error.said)
    except UNREADABLE as error:
        return Malformed(reason(error))


def _sample_items(raw: bytes) -> OutcomeList | None:
    """Read the form that nearly every message has, at a third of the price; `None` leaves it to the long way."""
    try:
        items = OutcomeList(
            map(_sample_items_seen.__getitem__, map(bytes, _read_sample(raw).message.response))
        )
    except UNREADABLE:
        return None
    # The decoder ignores a key that stands twice, but its quotes count.
    quoted = _without_escapes(b"", raw) if b"\\" in raw else raw
    return items if quoted.count(b'"') == _QUOTES_AROUND + _QUOTES_OF_ONE * len(items) else None


def _read_reply(raw: bytes, payload: Payload, session_errors: frozenset[str]) -> Frame:
    response = bytes(payload.response)
    error = error_in(payload, session_errors, answered=response not in (b"", b"null"))
    if error is None and response[:1] == b"{":
        error = error_in(read_error_fields(response), session_errors, answered=_has_id(response))
    if error is not None:
        return error
    items = OutcomeList([_item(outcome) for outcome in _outcomes(response)])
    if (key := repeated_key(raw)) is not None:
        raise UnreadableReply("a key stands twice in one object", key)
    return Reply(items)


def _outcomes(response: bytes) -> list[_Outcome]:
    if response[:1] == b"[":
        return _read_outcomes(response)
    if response[:1] == b"{":
        return [_read_outcome(response)]
    # By its kind alone: LCM's text may name the account, which not every log may hold.
    raise UnreadableReply(
        f"`response` should be a list of outcomes or one outcome; it is {kind_of(response)}"
    )


def _item(outcome: _Outcome) -> Item:
    # The common case first: this runs some fifty times for every reply.
    found = outcome.documented_id
    if found is None or outcome.sibling_id is not None or outcome.other_sibling_id is not None:
        found = _only_id(outcome)
    identity = found if type(found) is str else str(found)
    if not identity or identity.isspace():
        raise UnreadableReply("an outcome with a blank id")
    description = outcome.description
    return identity, description if type(description) is str else _text(description)


def _only_id(outcome: _Outcome) -> str | int:
    ids = {str(value).strip(): value for value in _spelled_ids(outcome) if value is not None}
    if len(ids) != 1:
        raise UnreadableReply("an outcome without an id" if not ids else "an outcome with several ids")
    return next(iter(ids.values()))


def _text(description: str | int | None) -> str:
    return "" if description is None else str(description)


def _has_id(response: bytes) -> bool:
    return any(value is not None for value in _spelled_ids(_read_outcome(response)))


def _spelled_ids(outcome: _Outcome) -> tuple[str | int | None, ...]:
    return outcome.documented_id, outcome.sibling_id, outcome.other_sibling_id
