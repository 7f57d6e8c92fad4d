"""LCM's messages of every kind: which message is this? Bytes in, meaning out, without any input or output.

Messages are JSON texts addressed by `channel`, `topic` and `subtopic` (see docs/lcm-protocol.md). A reply names
neither the account nor the request, so only the session that asked can tell what it answers. The vendor's pages spell
the same things in several ways; all of them are read here, and only the documented ones are sent.

What a reply's `response` holds is the subject of the module of its exchange, such as `outcome_list`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from worker.common.text import shortened
from worker.contract.result import MAX_ERROR_MESSAGE

CHANNEL = "LCM"
TOPIC = "WebService"

# msgspec raises its own errors, UnicodeDecodeError for bytes that are no UTF-8 (both are ValueErrors), and
# RecursionError for a document nested too deep.
UNREADABLE = (ValueError, RecursionError)

_LONGEST_LABEL = 80
# Characters, so that a secret is masked whole before the text is cut to what is kept of it.
_LONGEST_TEXT = 16 * MAX_ERROR_MESSAGE
_LONGEST_REASON = 200
_REPLY_TOPIC = TOPIC.casefold()
_BETWEEN_TEXTS = " | "
_ABSENT = msgspec.Raw()
_NOT_OF_NAME = re.compile(r"[\W_]+")
# As it is written, with whatever stands between and behind its words or is escaped there, or with a letter escaped. No
# repetition can pass the start of another match, so that the time it takes grows with the reply, and no faster.
_MAY_NAME_ACCOUNT = re.compile(
    rb'account[^a-z0-9"\\]*(?:\\|number[^a-z0-9"\\]*(?:\\|"\s*:))|\\u00[4-7]', re.IGNORECASE
)
_WHOLE_NUMBER = re.compile("0|[1-9][0-9]*")


@dataclass(slots=True, frozen=True)
class ErrorReply:
    """An error: LCM's own words, and whether it is about LCM itself rather than the account that was asked for."""

    remote_message: str
    about_lcm: bool


@dataclass(slots=True, frozen=True)
class Malformed:
    """A reply to our request that can't be read as what it should be: why, and what LCM wrote there."""

    why: str
    said: str = ""


@dataclass(slots=True, frozen=True)
class Unsolicited:
    """A message that LCM sends of its own accord: to be skipped and counted."""

    what: str


@dataclass(slots=True, frozen=True)
class Unparseable:
    """Something that no LCM message looks like."""

    why: str


class UnreadableReply(Exception):
    """The reply is malformed; the text says how, and `said` has LCM's own words."""

    def __init__(self, why: str, said: str = "") -> None:
        super().__init__(why)
        self.said = said


class ErrorFields(msgspec.Struct, gc=False):
    """The fields by which LCM reports an error in place of a payload."""

    success: Any = None
    error_type: Any = msgspec.field(default=None, name="errorType")
    error_message: Any = msgspec.field(default=None, name="errorMessage")
    msg: Any = None


class Payload(ErrorFields, gc=False):
    """What a reply holds under `message`, as in the vendor's sample, or `data`, as in the vendor's table."""

    response: msgspec.Raw = _ABSENT


class _Envelope(msgspec.Struct, gc=False):
    channel: Any = None
    topic: Any = None
    subtopic: Any = None
    sub_topic: Any = msgspec.field(default=None, name="subTopic")
    kind: Any = msgspec.field(default=None, name="MessageType")
    message: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT


class _Request(msgspec.Struct):
    channel: str
    topic: str
    subtopic: str
    data: dict[str, str]


_encode = msgspec.json.Encoder().encode
_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_payload = msgspec.json.Decoder(Payload).decode
read_error_fields = msgspec.json.Decoder(ErrorFields).decode


def encode_request(subtopic: str, data: dict[str, str]) -> bytes:
    """Encode a request as documented, as the UTF-8 of one text message."""
    return _encode(_Request(CHANNEL, TOPIC, subtopic, data))


def open_envelope(
    raw: bytes, reply_subtopic: str
) -> Payload | ErrorReply | Malformed | Unsolicited | Unparseable:
    """Say what one incoming message is, its payload where it is the reply of this subtopic. Never raises.

    The payload may still be an error: see `error_in`.
    """
    try:
        envelope = _read_envelope(raw)
        other = _unless_reply(envelope, reply_subtopic)
    except UNREADABLE as error:
        return Unparseable(reason(error))
    if other is not None:
        return other
    try:
        return _payload(envelope)
    except UnreadableReply as error:
        return Malformed(str(error))
    except UNREADABLE as error:
        return Malformed(reason(error))


def is_reply_of(raw: bytes, subtopic: str) -> bool:
    """Whether a message has this subtopic, in any letter case."""
    try:
        return _is(_subtopic(_read_envelope(raw)), subtopic)
    except UNREADABLE:
        return False


def error_of(raw: bytes, session_errors: frozenset[str] = frozenset()) -> ErrorReply | None:
    """Return the error in a reply of any subtopic; `None` where it holds none."""
    try:
        return error_in(_payload(_read_envelope(raw)), session_errors, answered=True)
    except (UnreadableReply, *UNREADABLE):
        return None


def error_in(fields: ErrorFields, session_errors: frozenset[str], *, answered: bool) -> ErrorReply | None:
    """Find an error in a reply: error fields or `success: false`.

    Args:
        fields: what the reply holds.
        session_errors: the values of `errorType` or `msg` that mean that LCM itself or the session is unwell, as
            `session_errors_of` returns them.
        answered: whether the reply answers all the same. `msg` alone is an error only where it stands in place of
            an answer, since a reply may say `"msg": "OK"`.
    """
    failed = fields.success is False or (
        isinstance(fields.success, str) and fields.success.strip().casefold() == "false"
    )
    if not (failed or fields.error_type or fields.error_message or (fields.msg and not answered)):
        return None
    about_lcm = any(
        isinstance(value, str) and _folded(value) in session_errors
        for value in (fields.error_type, fields.msg)
    )
    return ErrorReply(_remote_message(fields) or "success: false", about_lcm=about_lcm)


def session_errors_of(texts: Iterable[str]) -> frozenset[str]:
    """Return the values of `lcm.session_errors` in a form that letter case, blanks and `_` don't change."""
    return frozenset(map(_folded, texts))


def says(remote_message: str, texts: frozenset[str]) -> bool:
    """Whether one of an error's texts is among these, which `session_errors_of` has returned."""
    return any(_folded(text) in texts for text in remote_message.split(_BETWEEN_TEXTS))


def repeated_key(raw: bytes) -> str | None:
    """Find a key that stands twice in one object, whose meaning depends on who reads it."""
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) < len(pairs):
            repeated.append(Counter(key for key, _ in pairs).most_common(1)[0][0])

    json.loads(raw.decode(), object_pairs_hook=look)
    return repeated[0] if repeated else None


def names_another(raw: bytes, account: str) -> bool:
    """Tell whether a reply names an account anywhere that is not the one that was asked for.

    None is published to be named. What is, beyond all that is published, shows a reply that is another request's.
    Where a list or an object stands there, it has to hold the account.
    """
    # Most replies hold no such word, and a pattern takes longer to see that.
    if not (b"ccount" in raw.lower() or b"\\u00" in raw) or _MAY_NAME_ACCOUNT.search(raw) is None:
        return False
    asked = _bare(account)
    named: list[list[str]] = []

    def look(pairs: list[tuple[str, Any]]) -> list[Any]:
        named.extend(
            list(_texts_in(value))
            for key, value in pairs
            if _NOT_OF_NAME.sub("", key).casefold() == "accountnumber"
        )
        return [value for _, value in pairs]

    with suppress(*UNREADABLE):
        # As texts, since what the envelope's reader has passed over may be a number that is too long to be one.
        json.loads(
            raw.decode(errors="replace"), object_pairs_hook=look, parse_int=str, parse_float=_reader_of(asked)
        )
    return any(texts and asked not in map(_bare, texts) for texts in named)


def _reader_of(asked: str) -> Callable[[str], str]:
    """Return what reads a number with a fraction or an exponent: as the account where it equals it, else as text."""
    number = Decimal(asked) if _WHOLE_NUMBER.fullmatch(asked) else None

    def read(text: str) -> str:
        try:
            return asked if number is not None and Decimal(text) == number else text
        except InvalidOperation:  # its exponent is beyond all measure
            return text

    return read


def _texts_in(value: Any) -> Iterator[str]:
    """Yield the texts and numbers of a value, in whatever lists."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, str):
            yield one


def _bare(account: str) -> str:
    return account.strip().casefold()


def reason(error: Exception) -> str:
    """Say in a few words why a message can't be read."""
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return shortened(str(error), _LONGEST_REASON)


def _folded(text: str) -> str:
    return "".join(text.replace("_", " ").split()).casefold()


def _subtopic(envelope: _Envelope) -> Any:
    return envelope.subtopic if envelope.subtopic is not None else envelope.sub_topic


def _is(subtopic: Any, expected: str) -> bool:
    return isinstance(subtopic, str) and subtopic.casefold() == expected.casefold()


def _unless_reply(envelope: _Envelope, reply_subtopic: str) -> ErrorReply | Unsolicited | Unparseable | None:
    """Say what a message is that is not the reply of this subtopic; None for the reply."""
    subtopic = _subtopic(envelope)
    if envelope.channel != CHANNEL or not isinstance(envelope.topic, str):
        return _foreign(envelope, subtopic)
    topic = envelope.topic.casefold()
    if topic == "error":
        text = _remote_message(_error_fields(envelope))
        return ErrorReply(text or "an error without a text", about_lcm=True)
    if topic == _REPLY_TOPIC and _is(subtopic, reply_subtopic):
        return None
    return Unsolicited(shortened(f"{envelope.topic}/{subtopic}", _LONGEST_LABEL))


def _foreign(envelope: _Envelope, subtopic: Any) -> Unsolicited | Unparseable:
    """Tell the messages of other channels from what is no message of this family."""
    if isinstance(envelope.channel, str):
        return Unsolicited(shortened(f"{envelope.channel}/{envelope.topic}/{subtopic}", _LONGEST_LABEL))
    if isinstance(envelope.kind, str):
        return Unsolicited(shortened(envelope.kind, _LONGEST_LABEL))
    return Unparseable("an object without a channel")


def _payload(envelope: _Envelope) -> Payload:
    found = [_read_payload(part) for part in _parts(envelope.message, envelope.data)]
    if len(found) > 1:
        found = [payload for payload in found if payload != Payload()] or found[:1]
    if len(found) != 1:
        raise UnreadableReply("no payload" if not found else "payloads under both message and data")
    return found[0]


def _error_fields(envelope: _Envelope) -> ErrorFields:
    for part in _parts(envelope.data, envelope.message):
        try:
            return read_error_fields(part)
        except UNREADABLE:
            break
    return ErrorFields()


def _parts(*raw: msgspec.Raw) -> list[bytes]:
    """Keep those that hold a JSON object."""
    return [part for part in map(bytes, raw) if part[:1] == b"{"]


def _remote_message(fields: ErrorFields) -> str:
    """Join LCM's texts of an error, each once, the type first; more of them than is kept, see `told.told`."""
    texts = [
        value if isinstance(value, str) else _encode(value).decode()
        for value in (fields.error_type, fields.error_message, fields.msg)
        if value not in (None, "")
    ]
    return shortened(_BETWEEN_TEXTS.join(dict.fromkeys(texts)), _LONGEST_TEXT)
