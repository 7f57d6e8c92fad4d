"""The messages of the simulated LCM: every text that it can send, as pure functions of account and variants."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

Variants: TypeAlias = frozenset[str]

REQUEST = "SetCallOutComeOffline"
REPLY = f"{REQUEST}Response"
ACCOUNT_ID = "1000"

VARIANTS: Mapping[str, str] = {
    "topic-case": "the topic is `Webservice`",
    "subtopic-key": "the key of the subtopic is `subTopic`",
    "subtopic-case": "the subtopic is `SetCallOutcomeOfflineResponse`",
    "id-key": "the key of an id is `OutcomeID`",
    "id-key-camel": "the key of an id is `OutcomeId`; wins over `id-key`",
    "under-data": "the payload is under `data`",
    "error-under-message": "the payload of an Error message is under `message`",
    "numeric-ids": "ids are numbers",
    "single-object": "the response is one object, the account's own, in place of an array",
    "null-descriptions": "every other description is null",
    "stray-blanks": "blanks around ids, and around and inside descriptions",
}

# The list is data, read once: an id and a description each, in the order of the documented sample.
OUTCOMES: tuple[tuple[str, str], ...] = tuple(
    (outcome_id, description)
    for outcome_id, description in json.loads(Path(__file__).with_name("outcomes.json").read_bytes())
)

_encode = msgspec.json.Encoder().encode
# No JSON text holds a raw NUL, so a prepared reply can be split at it.
_GAP = b"\0"


def _addressed(subtopic: str, payload: object, variants: Variants) -> bytes:
    return _encode(
        {
            "channel": "LCM",
            "topic": "Webservice" if "topic-case" in variants else "WebService",
            "subTopic" if "subtopic-key" in variants else "subtopic": subtopic,
            "data" if "under-data" in variants else "message": payload,
        }
    )


def reply(payload: object, variants: Variants = frozenset()) -> bytes:
    """Address a payload as the reply to SetCallOutComeOffline."""
    subtopic = REPLY.replace("OutCome", "Outcome") if "subtopic-case" in variants else REPLY
    return _addressed(subtopic, payload, variants)


def of_another_channel(number: int) -> bytes:
    """Return a message of another channel, of which no two are equal."""
    return _encode(
        {"channel": f"Other {number}", "topic": "Notice", "subtopic": "Changed", "message": "x" * 500}
    )


def _items(variants: Variants, account_text: object) -> Iterator[dict[str, Any]]:
    key = "OutcomeID" if "id-key" in variants else "OutComeID"
    if "id-key-camel" in variants:
        key = "OutcomeId"
    blanks = "stray-blanks" in variants
    for index, (outcome_id, text) in enumerate(OUTCOMES):
        value = int(outcome_id) if "numeric-ids" in variants else f" {outcome_id} " if blanks else outcome_id
        description = f"  {text.replace(' ', '   ')} " if blanks else text
        nulled = "null-descriptions" in variants and index % 2
        yield {key: value, "Description": None if nulled else description}
    yield {key: int(ACCOUNT_ID) if "numeric-ids" in variants else ACCOUNT_ID, "Description": account_text}


@lru_cache(maxsize=4096)
def _prepared(variants: Variants) -> tuple[bytes, bytes]:
    items = list(_items(variants, msgspec.Raw(_GAP)))
    head, tail = reply({"response": items[-1] if "single-object" in variants else items}, variants).split(
        _GAP
    )
    return head, tail


def good(account: str, variants: Variants = frozenset()) -> bytes:
    """Return the outcome list: the sample, and 1000 = `Account <account>`, which reveals a list of another account."""
    head, tail = _prepared(variants)
    text = f"Account {account}"
    return head + _encode(f" {text}  " if "stray-blanks" in variants else text) + tail


def full() -> bytes:
    """Return the error that a session gets for which there is no room."""
    return error("TOO_MANY_SESSIONS", "LCM has as many sessions as it may have")


def error(error_type: str, message: str, variants: Variants = frozenset()) -> bytes:
    """Return error shape (a): an Error message on the LCM channel, about LCM itself."""
    under = "message" if "error-under-message" in variants else "data"
    payload = {"errorType": error_type, "errorMessage": message, "msg": message}
    return _encode({"channel": "LCM", "topic": "Error", "subtopic": "ApiError", under: payload})


def greeted(subtopic: str, variants: Variants = frozenset()) -> bytes:
    """Return the reply to a login."""
    return _addressed(f"{subtopic}Response", {"success": True}, variants)


def huge(account: str, variants: Variants, size: int) -> bytes:
    """Return a reply that is well-formed and at least `size` bytes long."""
    return good(account + "x" * size, variants)


def _refuse(account: str, variants: Variants) -> bytes:
    text = "Invalid Account Number"
    error_message = f"{text}:{account}"
    return reply({"errorType": "WS_Error", "errorMessage": error_message, "msg": f"{text}."}, variants)


def _not_logged_in(_account: str, variants: Variants) -> bytes:
    text = "Agent not logged in"
    return reply({"errorType": "NOT_LOGGED_IN", "errorMessage": text, "msg": text}, variants)


def _cut_off(account: str, variants: Variants) -> bytes:
    text = good(account, variants).decode()
    return text[: len(text) // 2].encode()


def _raw(response: bytes, variants: Variants) -> bytes:
    return reply({"response": msgspec.Raw(response)}, variants)


# The faults that are one whole message in place of the good reply.
BAD: Mapping[str, Callable[[str, Variants], bytes]] = {
    "refuse": _refuse,
    "refuse-plain": lambda account, variants: reply(
        {"success": False, "msg": f"No outcomes for account {account}"}, variants
    ),
    "error": lambda _, variants: error("WEBSOCKET_ERROR", "WebSocket connection is reconnecting", variants),
    "not-logged-in": _not_logged_in,
    "empty": lambda _, variants: _raw(b"[]", variants),
    "cut-off": _cut_off,
    "not-json": lambda _account, _variants: b"<html><body>502 Bad Gateway</body></html>",
    "nan": lambda _, variants: _raw(b'[{"OutComeID":NaN,"Description":"Success"}]', variants),
    "deep": lambda _, variants: _raw(b"[" * 10_000 + b"]" * 10_000, variants),
    "boolean": lambda _, variants: _raw(b"true", variants),
    "strings": lambda _, variants: _raw(b'["Success","Busy"]', variants),
    "no-response": lambda _, variants: reply({}, variants),
    "no-id": lambda _, variants: _raw(b'[{"OutComeID":null,"Description":"Success"}]', variants),
}


def wrong_subtopic(account: str, variants: Variants) -> bytes:
    """Return a message that differs from the reply only by its subtopic."""
    payload = {"response": [{"OutComeID": ACCOUNT_ID, "Description": f"Account {account}"}]}
    return _addressed("GetBusinessOutComeOfflineResponse", payload, variants)


def open_id(name: str) -> bytes:
    """Return the first frame of the vendor's metrics socket."""
    return _encode(
        {"Sender": "Server", "Receiver": name, "MessageType": "OpenID", "Data": name.encode().hex()}
    )


def heartbeat(name: str) -> bytes:
    """Return the frame that the vendor's metrics socket repeats."""
    return _encode({"Sender": name, "Receiver": name, "MessageType": "Heartbeat", "Data": "***heartbeat***"})


UNASKED: Mapping[str, bytes] = {
    "outcome-set": _encode(
        {
            "channel": "LCM",
            "topic": "WebService",
            "subtopic": "OutcomeSetForCall",
            "message": "90|1|2|0|0|44|1",
        }
    ),
    "call-state": _encode(
        {
            "channel": "LCM",
            "topic": "Outbound",
            "subtopic": "OutBoundCallStateChange",
            "call": {"callId": "4711", "state": "Ringing"},
        }
    ),
    "state-sync": _encode(
        {"channel": "LCM", "topic": "WebService", "subtopic": "StateSync", "message": [{"state": "Ready"}, 1]}
    ),
    "other-channel": _encode(
        {"channel": "Webex cc", "topic": "WebService", "subtopic": REPLY, "message": {"response": []}}
    ),
    "other-error": _encode(
        {
            "channel": "Amazon",
            "topic": "Error",
            "subtopic": "ApiError",
            "data": {
                "errorType": "WEBSOCKET_ERROR",
                "errorMessage": "WebSocket connection is reconnecting",
                "msg": "WebSocket connection is reconnecting",
            },
        }
    ),
    "other-reply": wrong_subtopic("of another call", frozenset()),
    "heartbeat": heartbeat("lcm"),
}
