"""The LCM exchange *SetCallOutComeOffline*, without any input or output: bytes in, meaning out.

The vendor documents one request and one reply, as JSON text messages addressed by `channel`, `topic` and
`subtopic` (see docs/lcm-protocol.md). The reply names neither the account nor the request, so it can only be
understood by the session that asked. Sibling pages spell the same things in other ways; those are read here,
and never sent.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from worker.text import kind_of

CHANNEL = "LCM"
TOPIC = "WebService"
REQUEST_SUBTOPIC = "SetCallOutComeOffline"
REPLY_SUBTOPIC = "SetCallOutComeOfflineResponse"

_REPLY_TOPIC = TOPIC.casefold()
_REPLY = REPLY_SUBTOPIC.casefold()
_ABSENT = msgspec.Raw()

Item = tuple[str, str]
"""One outcome as LCM said it: its id (not blank) and its description, `""` where missing or null."""


@dataclass(slots=True, frozen=True)
class Reply:
    """An outcome list, in LCM's order and spelling."""

    items: list[Item]


@dataclass(slots=True, frozen=True)
class Refusal:
    """An error in LCM's own words; `about_lcm` where it is not about the account that was asked for."""

    said: str
    about_lcm: bool


@dataclass(slots=True, frozen=True)
class Malformed:
    """A reply to our request that can't be read as an outcome list."""

    why: str


@dataclass(slots=True, frozen=True)
class Unasked:
    """A message that LCM sends of its own accord: to be skipped and counted."""

    what: str


@dataclass(slots=True, frozen=True)
class Garbage:
    """Something that no LCM message looks like."""

    why: str


Frame = Reply | Refusal | Malformed | Unasked | Garbage


class _Unreadable(Exception):
    """The reply is malformed; the text says how."""


class _Envelope(msgspec.Struct, gc=False):
    channel: Any = None
    topic: Any = None
    subtopic: Any = None
    sub_topic: Any = msgspec.field(default=None, name="subTopic")
    kind: Any = msgspec.field(default=None, name="MessageType")
    message: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT


class _ErrorFields(msgspec.Struct, gc=False):
    success: Any = None
    error_type: Any = msgspec.field(default=None, name="errorType")
    error_message: Any = msgspec.field(default=None, name="errorMessage")
    msg: Any = None


class _Payload(_ErrorFields, gc=False):
    response: msgspec.Raw = _ABSENT


class _Outcome(msgspec.Struct, gc=False):
    documented_id: str | int | None = msgspec.field(default=None, name="OutComeID")
    sibling_id: str | int | None = msgspec.field(default=None, name="OutcomeID")
    other_sibling_id: str | int | None = msgspec.field(default=None, name="OutcomeId")
    description: str | int | None = msgspec.field(default=None, name="Description")


class _SampleOutcome(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    identity: str = msgspec.field(name="OutComeID")
    description: str = msgspec.field(name="Description")


class _SamplePayload(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    response: list[_SampleOutcome]


class _Sample(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A reply of the very form of the vendor's sample."""

    channel: Literal["LCM"]
    topic: Literal["WebService"]
    subtopic: Literal["SetCallOutComeOfflineResponse"]
    message: _SamplePayload


class _Request(msgspec.Struct):
    channel: str
    topic: str
    subtopic: str
    data: dict[str, str]


_encode = msgspec.json.Encoder().encode
_read_sample = msgspec.json.Decoder(_Sample).decode
_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_payload = msgspec.json.Decoder(_Payload).decode
_read_errors = msgspec.json.Decoder(_ErrorFields).decode
_read_outcomes = msgspec.json.Decoder(list[_Outcome]).decode
_read_outcome = msgspec.json.Decoder(_Outcome).decode

# msgspec raises its own errors, UnicodeDecodeError for bytes that are no UTF-8 (both are ValueErrors), and
# RecursionError for a document nested too deep.
_UNREADABLE = (ValueError, RecursionError)

# Taken out from the left, as a reader takes them, they leave no quotes but those around strings.
_without_escapes = re.compile(rb"\\.", re.DOTALL).sub
# Of a sample, every key and value but the list and its items is a string between two quotes.
_QUOTES_AROUND = 2 * 8
_QUOTES_OF_ONE = 2 * 4


def encode_request(account_number: str) -> bytes:
    """Encode the documented request for one account, as the UTF-8 of one text message."""
    return _encode(_Request(CHANNEL, TOPIC, REQUEST_SUBTOPIC, {"AccountNumber": account_number}))


def classify(raw: bytes, session_errors: frozenset[str] = frozenset()) -> Frame:
    """Say what one incoming message is. Never raises, whatever the bytes.

    `session_errors` lists values of `errorType` or `msg` that mean LCM itself is unwell where they come in an
    ordinary reply.
    """
    if (items := _sample_items(raw)) is not None:
        return Reply(items)
    try:
        return _meaning(raw, _read_envelope(raw), session_errors)
    except _UNREADABLE as error:
        return Garbage(_reason(error))


def _sample_items(raw: bytes) -> list[Item] | None:
    """Read the form that nearly every message has, at a third of the price; `None` leaves it to the long way."""
    try:
        outcomes = _read_sample(raw).message.response
    except _UNREADABLE:
        return None
    items = [(outcome.identity, outcome.description) for outcome in outcomes]
    for identity, _ in items:
        if not identity or identity.isspace():
            return None
    # A key that stands twice goes unnoticed by the decoder, but not without quotes around it.
    quoted = _without_escapes(b"", raw) if b"\\" in raw else raw
    return items if quoted.count(b'"') == _QUOTES_AROUND + _QUOTES_OF_ONE * len(items) else None


def _meaning(raw: bytes, envelope: _Envelope, session_errors: frozenset[str]) -> Frame:
    subtopic = _subtopic(envelope)
    if envelope.channel != CHANNEL or not isinstance(envelope.topic, str):
        return _foreign(envelope, subtopic)
    topic = envelope.topic.casefold()
    if topic == "error":
        return Refusal(_said(_error_fields(envelope)) or "an error without a text", about_lcm=True)
    if topic != _REPLY_TOPIC or not isinstance(subtopic, str) or subtopic.casefold() != _REPLY:
        return Unasked(f"{envelope.topic}/{subtopic}"[:80])
    try:
        return _read_reply(raw, envelope, session_errors)
    except _Unreadable as error:
        return Malformed(str(error))
    except _UNREADABLE as error:
        return Malformed(_reason(error))


def subtopic_of(raw: bytes) -> str | None:
    """Return the subtopic of a message, `None` where it has none or can't be read."""
    try:
        subtopic = _subtopic(_read_envelope(raw))
    except _UNREADABLE:
        return None
    return subtopic if isinstance(subtopic, str) else None


def refusal_in(raw: bytes, session_errors: frozenset[str] = frozenset()) -> Refusal | None:
    """Return the error in a message that replies to something else than a lookup; `None` where it is fine."""
    try:
        return _refusal(_payload(_read_envelope(raw)), session_errors, answered=True)
    except (_Unreadable, *_UNREADABLE):
        return None


def _subtopic(envelope: _Envelope) -> Any:
    return envelope.subtopic if envelope.subtopic is not None else envelope.sub_topic


def _foreign(envelope: _Envelope, subtopic: Any) -> Frame:
    """Tell the messages of other channels from what is no message of this family."""
    if isinstance(envelope.channel, str):
        return Unasked(f"{envelope.channel}/{envelope.topic}/{subtopic}"[:80])
    if isinstance(envelope.kind, str):
        return Unasked(envelope.kind[:80])
    return Garbage("an object without a channel")


def _read_reply(raw: bytes, envelope: _Envelope, session_errors: frozenset[str]) -> Frame:
    payload = _payload(envelope)
    response = bytes(payload.response)
    refusal = _refusal(payload, session_errors, answered=response not in (b"", b"null"))
    if refusal is None and response[:1] == b"{":
        refusal = _refusal(_read_errors(response), session_errors, answered=_has_id(response))
    if refusal is not None:
        return refusal
    items = [_item(outcome) for outcome in _outcomes(response)]
    if (key := _repeated_key(raw)) is not None:
        raise _Unreadable(f"the key {key!r} stands twice in one object")
    return Reply(items)


def _payload(envelope: _Envelope) -> _Payload:
    """Take the payload from `message`, as in the vendor's sample, or `data`, as in the vendor's table."""
    found = [_read_payload(part) for part in _parts(envelope.message, envelope.data)]
    if len(found) > 1:
        found = [payload for payload in found if payload != _Payload()] or found[:1]
    if len(found) != 1:
        raise _Unreadable("no payload" if not found else "payloads under both message and data")
    return found[0]


def _outcomes(response: bytes) -> list[_Outcome]:
    if response[:1] == b"[":
        return _read_outcomes(response)
    if response[:1] == b"{":
        return [_read_outcome(response)]
    # By its kind alone: what LCM says may name the account, which not every log may hold.
    raise _Unreadable(f"`response` should be a list of outcomes or one outcome; it is {kind_of(response)}")


def _item(outcome: _Outcome) -> Item:
    # The common case first: this runs some fifty times for every reply.
    found = outcome.documented_id
    if found is None or outcome.sibling_id is not None or outcome.other_sibling_id is not None:
        found = _only_id(outcome)
    identity = found if type(found) is str else str(found)
    if not identity or identity.isspace():
        raise _Unreadable("an outcome with a blank id")
    description = outcome.description
    return identity, description if type(description) is str else _text(description)


def _only_id(outcome: _Outcome) -> str | int:
    spelled = (outcome.documented_id, outcome.sibling_id, outcome.other_sibling_id)
    ids = {str(value).strip(): value for value in spelled if value is not None}
    if len(ids) != 1:
        raise _Unreadable("an outcome without an id" if not ids else "an outcome with several ids")
    return next(iter(ids.values()))


def _text(description: str | int | None) -> str:
    return "" if description is None else str(description)


def _has_id(response: bytes) -> bool:
    outcome = _read_outcome(response)
    return any(
        value is not None for value in (outcome.documented_id, outcome.sibling_id, outcome.other_sibling_id)
    )


def _error_fields(envelope: _Envelope) -> _ErrorFields:
    for part in _parts(envelope.data, envelope.message):
        try:
            return _read_errors(part)
        except _UNREADABLE:
            break
    return _ErrorFields()


def _parts(*raw: msgspec.Raw) -> list[bytes]:
    """Keep those that hold a JSON object."""
    return [part for part in map(bytes, raw) if part[:1] == b"{"]


def _refusal(fields: _ErrorFields, session_errors: frozenset[str], *, answered: bool) -> Refusal | None:
    """Find an error in a reply: error fields or `success: false`.

    `msg` alone is an error only where it stands in place of an answer, since a reply may say `"msg": "OK"`.
    """
    failed = fields.success is False or (
        isinstance(fields.success, str) and fields.success.strip().casefold() == "false"
    )
    if not (failed or fields.error_type or fields.error_message or (fields.msg and not answered)):
        return None
    about_lcm = any(
        isinstance(value, str) and value in session_errors for value in (fields.error_type, fields.msg)
    )
    return Refusal(_said(fields) or "success: false", about_lcm=about_lcm)


def _said(fields: _ErrorFields) -> str:
    """Join what LCM said of an error, each text once, the type first."""
    texts = [
        value if isinstance(value, str) else _encode(value).decode()
        for value in (fields.error_type, fields.error_message, fields.msg)
        if value not in (None, "")
    ]
    return " | ".join(dict.fromkeys(texts))


def _repeated_key(raw: bytes) -> str | None:
    """Find a key that stands twice in one object, whose meaning depends on who reads it."""
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) < len(pairs):
            repeated.append(Counter(key for key, _ in pairs).most_common(1)[0][0])

    json.loads(raw.decode(), object_pairs_hook=look)
    return repeated[0] if repeated else None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error)[:200]
