"""Which message is this? LCM's replies, errors and other messages, told apart by their envelope."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.canaries import masking
from tests.support.lcm import SAMPLE, reply
from worker.contract.result import MAX_ERROR_MESSAGE
from worker.lcm.envelope import (
    ErrorFields,
    ErrorReply,
    Malformed,
    Payload,
    Unparseable,
    Unsolicited,
    encode_request,
    error_in,
    error_of,
    is_reply_of,
    names_another,
    open_envelope,
    reason,
    repeated_key,
    session_errors_of,
)
from worker.lcm.told import NO_SECRETS, told
from worker.simulator import documents

SUBTOPIC = "SetCallOutComeOfflineResponse"
NOT_LISTED = frozenset[str]()
LISTED = session_errors_of(["WS_Error"])


def test_a_request_has_the_documented_form() -> None:
    """The channel, the topic, the subtopic and the data stand in it, and nothing else."""
    assert json.loads(encode_request("Login", {"User": "ü"})) == {
        "channel": "LCM",
        "topic": "WebService",
        "subtopic": "Login",
        "data": {"User": "ü"},
    }


@pytest.mark.parametrize(
    "envelope",
    [
        {"message": ..., "data": {"response": []}},
        {"data": {}},
        {"data": None},
        {"message": None, "data": {"response": []}},
        {"message": {}, "data": {"response": []}},
        {"message": [1], "data": {"response": []}},
        {"topic": "WEBSERVICE"},
        {"subtopic": "setcalloutcomeofflineresponse"},
        {"subtopic": ..., "subTopic": "SetCallOutcomeOfflineResponse"},
        {"subtopic": None, "subTopic": "SetCallOutComeOfflineResponse"},
    ],
)
def test_a_reply_gives_its_payload(envelope: dict[str, Any]) -> None:
    """The payload is taken from `message` or `data`; the letter case of topics doesn't matter."""
    assert open_envelope(reply([], **envelope), SUBTOPIC) == Payload(response=msgspec.Raw(b"[]"))


@pytest.mark.parametrize(
    "envelope",
    [
        {"message": ...},
        {"message": "90|1|2|0|0|44|1"},
        {"message": [{"response": []}]},
        {"data": {"response": []}},
    ],
)
def test_a_reply_without_one_payload_is_malformed(envelope: dict[str, Any]) -> None:
    """A reply whose payload is missing, or there twice, can't be read, nor searched for an error."""
    raw = reply([], **envelope)
    assert isinstance(open_envelope(raw, SUBTOPIC), Malformed)
    assert error_of(raw) is None


@pytest.mark.parametrize("variants", [NOT_LISTED, frozenset({"error-under-message"})])
def test_the_error_topic_is_about_lcm(variants: frozenset[str]) -> None:
    """Error shape (a): topic `Error` is about LCM itself, with its texts under `data` or `message`."""
    raw = documents.error("TYPE", "text", variants)
    assert open_envelope(raw, SUBTOPIC) == ErrorReply("TYPE | text", about_lcm=True)


def test_an_error_may_be_without_words() -> None:
    """An error whose texts can't be read is an error all the same."""
    raw = b'{"channel":"LCM","topic":"error","data":7}'
    assert open_envelope(raw, SUBTOPIC) == ErrorReply("an error without a text", about_lcm=True)


@pytest.mark.parametrize("raw", [*documents.UNASKED.values(), documents.open_id("worker")])
def test_unsolicited_messages_are_recognized(raw: bytes) -> None:
    """What is published as arriving of LCM's own accord is neither a reply nor an error."""
    assert isinstance(open_envelope(raw, SUBTOPIC), Unsolicited)


def test_the_reply_of_another_exchange_is_unsolicited() -> None:
    """A reply counts for the exchange of its own subtopic alone."""
    assert open_envelope(reply([]), "LoginResponse") == Unsolicited(f"WebService/{SUBTOPIC}")


def test_the_subtopic_is_found_under_either_key() -> None:
    """A greeting's reply is known by `subtopic` or `subTopic`."""
    assert is_reply_of(b'{"subtopic":"Alpha"}', "aLPHA")
    assert is_reply_of(b'{"subTopic":"B"}', "b")
    assert not is_reply_of(b'{"subtopic":7}', "7")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"LCM"',
        b"{}",
        b'{"channel":null}',
        b'{"channel":7,"topic":"WebService"}',
        SAMPLE + SAMPLE,
        SAMPLE + b"x",
        b"\xef\xbb\xbf" + SAMPLE,
        SAMPLE.decode().encode("utf-16"),
        bytes(range(256)),
        b"{" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    ],
)
def test_what_no_message_looks_like_is_unparseable(raw: bytes) -> None:
    """Whatever is no single JSON object with a channel is no message; deep nesting overflows nothing."""
    assert isinstance(open_envelope(raw, SUBTOPIC), Unparseable)
    assert not is_reply_of(raw, "")
    assert error_of(raw) is None


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_raise(raw: bytes) -> None:
    """Whatever arrives is said to be something."""
    assert isinstance(
        open_envelope(raw, SUBTOPIC), Payload | ErrorReply | Malformed | Unsolicited | Unparseable
    )


@pytest.mark.parametrize("success", [False, "false", " FALSE "])
def test_a_failure_is_an_error_without_any_text(success: object) -> None:
    """`success: false`, in any spelling, is an error even beside an answer."""
    found = error_in(ErrorFields(success=success), NOT_LISTED, answered=True)
    assert found == ErrorReply("success: false", about_lcm=False)


@pytest.mark.parametrize("fields", [{}, {"success": True}, {"error_type": ""}, {"error_message": None}])
def test_empty_error_fields_are_no_error(fields: dict[str, Any]) -> None:
    """Error fields that say nothing are as good as absent."""
    assert error_in(ErrorFields(**fields), NOT_LISTED, answered=False) is None


def test_a_text_alone_is_an_error_only_in_place_of_an_answer() -> None:
    """`"msg": "OK"` beside an answer is none; without an answer `msg` is what is wrong."""
    assert error_in(ErrorFields(msg="OK"), NOT_LISTED, answered=True) is None
    assert error_in(ErrorFields(msg="Busy"), NOT_LISTED, answered=False) == ErrorReply(
        "Busy", about_lcm=False
    )


def test_texts_of_an_error_are_said_once() -> None:
    """The type stands first, a text that comes twice is not repeated, and what is no text is written as JSON."""
    fields = ErrorFields(error_type="WS_Error", error_message="Busy", msg="Busy")
    assert error_in(fields, NOT_LISTED, answered=False) == ErrorReply("WS_Error | Busy", about_lcm=False)
    fields = ErrorFields(error_type=17, msg={"a": 1})
    assert error_in(fields, NOT_LISTED, answered=False) == ErrorReply('17 | {"a":1}', about_lcm=False)


@pytest.mark.parametrize(
    ("fields", "about_lcm"),
    [
        ({"errorType": "WS_Error"}, True),
        ({"errorType": "Other", "msg": "WS_Error"}, True),
        ({"errorMessage": "WS_Error"}, False),
        ({"errorType": ["WS_Error"]}, False),
        ({"errorType": "Other"}, False),
    ],
)
def test_listed_errors_are_about_lcm(fields: dict[str, Any], about_lcm: bool) -> None:
    """An `errorType` or `msg` of `lcm.session_errors` speaks of LCM, in the reply of any subtopic."""
    found = error_of(reply(None, subtopic="LoginResponse", message=fields), LISTED)
    assert found is not None
    assert found.about_lcm is about_lcm


def test_a_reply_of_any_subtopic_may_hold_no_error() -> None:
    """A greeting that is answered well has no error in it."""
    assert error_of(reply(None, subtopic="LoginResponse", message={"success": True, "msg": "OK"})) is None


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b'{"a":1,"b":{"a":2}}', None),
        (b'[{"a":1},{"a":2}]', None),
        (b'{"a":1,"a":1}', "a"),
        (b'{"a":[{"b":1,"\\u0062":2}]}', "b"),
    ],
)
def test_a_repeated_key_is_found(raw: bytes, key: str | None) -> None:
    """A key may come again in another object; twice in one it is found, however deep and however spelled."""
    assert repeated_key(raw) == key


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RecursionError("maximum recursion depth exceeded"), "nested too deep"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "not UTF-8"),
        (ValueError("x" * 1000), "x" * 199 + "…"),
    ],
)
def test_why_a_message_cannot_be_read_is_said_in_few_words(error: Exception, words: str) -> None:
    """The reason names the kind of damage, and an error's own text is cut."""
    assert reason(error) == words


@pytest.mark.parametrize(
    "fields",
    [{"channel": "c" * 10**6}, {"topic": "t" * 10**6}, {"channel": ..., "MessageType": "m" * 10**6}],
)
def test_a_long_name_of_an_unasked_message_is_cut(fields: dict[str, Any]) -> None:
    """What it was is counted and logged by a short name, however long its own is."""
    found = open_envelope(reply([], **fields), "SetCallOutComeOfflineResponse")
    assert isinstance(found, Unsolicited)
    assert len(found.what) == 80


def test_a_long_error_text_is_cut() -> None:
    """Of LCM's error texts no more is kept than a result keeps, however long they are, and a secret is masked whole."""
    raw = reply(None, message={"errorType": "E" * 100, "errorMessage": "é" * 1_000_000, "msg": "m"})
    error = error_of(raw)
    assert error is not None
    kept = told(error.remote_message, NO_SECRETS)
    assert len(kept.encode()) in range(MAX_ERROR_MESSAGE - 1, MAX_ERROR_MESSAGE + 1)
    at_the_cut = error_of(reply(None, message={"errorType": "E" * (MAX_ERROR_MESSAGE - 4) + "hunter22"}))
    assert at_the_cut is not None
    assert told(at_the_cut.remote_message, masking("hunter22")).endswith("E****")


@pytest.mark.parametrize(
    ("raw", "another"),
    [
        (b'{"AccountNumber": "a"}', False),
        (b'{"AccountNumber": " A ", "more": [{"account_number": "a"}]}', False),
        (b'{"AccountNumber": "b"}', True),
        (b'{"more": [{"accountNumber": 7}]}', True),
        (b'{"AccountN\\u0075mber": "b", "AcCount Number": "a"}', True),
        (b'{"account-NUMBER": ["b"]}', True),
        (b'{"ACCOUNT_NUMBER": {"type": "x", "value": [{"of": "b"}]}}', True),
        (b'{"ACCOUNT_NUMBER": {"type": "x", "value": [{"of": "a"}]}}', False),
        (b'{"AccountNumber": null, "Account Number": [], "accountnumber": true}', False),
        (b'{"Description": "Account number: b"}', False),
        (b'{"AccountNumber": "a", "z": ' + b"1" * 5000 + b"}", False),
        (b'{"AccountNumber": "b", "z": ' + b"1" * 5000 + b"}", True),
        (b'{"AccountNumber": "b", "z": "\xff"}', True),
        (b'{"AccountNumber": "b"', False),
        (b'{"AccountNumber": ' + b"[" * 100_000, False),
    ],
)
def test_another_account_is_found(raw: bytes, another: bool) -> None:
    """Whatever else stands there, such as a number that no integer holds, or what is no text: it raises nothing."""
    assert names_another(raw, "a") is another


@pytest.mark.parametrize("between", [" ", "  ", "__", "-", "- -", ".", "\t", "\u00a0", "\u2013", '"', "/"])
@pytest.mark.parametrize("around", ["", " ", "_", "\u00a0"])
@pytest.mark.parametrize("escaped", [True, False])
def test_another_account_is_found_however_its_key_is_spelled(
    between: str, around: str, escaped: bool
) -> None:
    """What stands between, before and behind the words of the key may be anything, as it is or as JSON escapes it."""
    key = f"{around}Account{between}Number{around}"
    if escaped:
        written = "".join(sign if sign.isalpha() else f"\\u{ord(sign):04x}" for sign in key)
    else:
        written = json.dumps(key, ensure_ascii=False)[1:-1]
    raw = f'{{"{written}" : "b"}}'.encode()
    assert json.loads(raw) == {key: "b"}
    assert names_another(raw, "a")
    assert not names_another(raw, "b")


@pytest.mark.parametrize(
    ("account", "number", "another"),
    [
        ("99", "99", False),
        ("99", "99.0", False),
        (" 99 ", "9.9e1", False),
        ("100000", "1e5", False),
        ("0", "0.0", False),
        ("99", "99.5", True),
        ("99", "100.0", True),
        ("99", "-99.0", True),
        ("a", "99.0", True),
        ("99", "1e5", True),
        ("12345678901234567890", "12345678901234567890.0", False),
        ("12345678901234567890", "12345678901234567891.0", True),
        ("99", "1e999999999", True),
        ("99", f"1e{'9' * 30}", True),
        ("99", f"1e-{'9' * 30}", True),
    ],
)
def test_another_account_is_found_as_a_number(account: str, number: str, another: bool) -> None:
    """A number names the account that it equals, however it is written, to the last digit."""
    assert names_another(b'{"AccountNumber": %s}' % number.encode(), account) is another
