"""What LCM says, and what is understood by it: every published form, and every way to spoil one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lcm_support import SAMPLE, raw_reply, reply
from worker.lcm import protocol
from worker.lcm.protocol import Frame, Garbage, Malformed, Refusal, Reply, Unasked, classify
from worker.sandbox import lcm_documents as documents

ACCOUNT = "18|1|2|0|0|44|274"
NOT_LISTED = frozenset[str]()


def test_the_request_is_the_documented_one() -> None:
    """A request has the sample's fields and nothing else; the account number passes unread."""
    account = '5|3 "ü" \\ |'
    assert json.loads(protocol.encode_request(account)) == {
        "channel": "LCM",
        "topic": "WebService",
        "subtopic": "SetCallOutComeOffline",
        "data": {"AccountNumber": account},
    }


def test_the_sample_is_read_in_its_order() -> None:
    """The documented reply gives its 49 outcomes as they stand, whether compact or indented."""
    assert classify(SAMPLE) == Reply(list(documents.OUTCOMES))
    assert len(documents.OUTCOMES) == 49
    assert classify(json.dumps(json.loads(SAMPLE), indent=4).encode()) == classify(SAMPLE)


@pytest.mark.parametrize("variant", [*documents.VARIANTS, "all but the single object"])
def test_every_variant_is_read(variant: str) -> None:
    """A reply in any form of the sibling pages says the same as the sample, blanks and nulls aside."""
    variants = frozenset(documents.VARIANTS) - {"single-object"} if " " in variant else frozenset({variant})
    frame = classify(documents.good(ACCOUNT, variants))
    assert isinstance(frame, Reply)
    read = [(id_.strip(), " ".join(text.split())) for id_, text in frame.items]
    expected = [*documents.OUTCOMES, (documents.ACCOUNT_ID, f"Account {ACCOUNT}")]
    if variant == "single-object":
        expected = expected[-1:]
    if "null-descriptions" in variants:
        expected = [(id_, "" if n % 2 and n < 49 else text) for n, (id_, text) in enumerate(expected)]
    assert read == expected


@pytest.mark.parametrize(
    ("response", "items"),
    [
        ([], []),
        ([{"OutComeID": "7"}], [("7", "")]),
        ([{"OutComeID": "7", "Description": None}], [("7", "")]),
        ([{"OutComeID": 0, "Description": 5}], [("0", "5")]),
        ([{"OutComeID": None, "OutcomeId": 3, "Description": "x"}], [("3", "x")]),
        ([{"OutComeID": "3", "OutcomeID": 3, "Description": "x"}], [("3", "x")]),
        ([{"OutComeID": " 3 ", "Description": "x", "Extra": {"a": [1]}}], [(" 3 ", "x")]),
        ({"OutcomeId": 1, "Description": "one object"}, [("1", "one object")]),
        ([{"OutComeID": "a", "Description": 'say "hi" \\'}], [("a", 'say "hi" \\')]),
    ],
)
def test_a_response_is_read(response: object, items: list[tuple[str, str]]) -> None:
    """Lists, the empty one and one object give their outcomes; numbers become text and nulls are empty."""
    assert classify(reply(response)) == Reply(items)


@pytest.mark.parametrize(
    "response",
    [
        "true",
        "null",
        '"Success"',
        "7",
        '["Success","Busy"]',
        "[null]",
        "[[]]",
        '[{"Description":"no id"}]',
        '[{"OutComeID":null,"Description":"Success"}]',
        '[{"OutComeID":"","Description":"Success"}]',
        '[{"OutComeID":" \\t","Description":"Success"}]',
        '[{"OutComeID":true,"Description":"Success"}]',
        '[{"OutComeID":1.5,"Description":"Success"}]',
        '[{"OutComeID":"1","OutcomeID":"2","Description":"two ids"}]',
        '[{"OutComeID":"1","Description":["Success"]}]',
        '{"Description":"no id"}',
        "{}",
        '[{"OutComeID":' + "9" * 5000 + "}]",
    ],
)
def test_any_other_response_is_malformed(response: str) -> None:
    """Nothing is dropped in silence: one outcome that can't be read spoils the reply."""
    good = '[{"OutComeID":"1","Description":"Success"},'
    assert isinstance(classify(raw_reply(response)), Malformed)
    if response.startswith("[{"):
        assert isinstance(classify(raw_reply(good + response[1:])), Malformed)


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
        {"message": {"response": [], "success": True, "msg": "OK", "errorType": None}},
    ],
)
def test_an_envelope_is_read(envelope: dict[str, Any]) -> None:
    """The payload is taken from `message` or `data`; letter case and empty error fields don't matter."""
    assert classify(reply([], **envelope)) == Reply([])


@pytest.mark.parametrize(
    "envelope",
    [
        {"message": ...},
        {"message": "90|1|2|0|0|44|1"},
        {"message": [{"response": []}]},
        {"message": {}},
        {"message": {}, "data": {}},
        {"data": {"response": []}},
    ],
)
def test_a_reply_without_one_payload_is_malformed(envelope: dict[str, Any]) -> None:
    """A reply whose payload is missing, or there twice, can't be read."""
    assert isinstance(classify(reply([], **envelope)), Malformed)


ERROR_FIELDS = {"errorType": "WS_Error", "errorMessage": "Invalid Account", "msg": "Invalid."}


@pytest.mark.parametrize("under", ["message", "data"])
@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (ERROR_FIELDS, "WS_Error | Invalid Account | Invalid."),
        ({"response": ERROR_FIELDS}, "WS_Error | Invalid Account | Invalid."),
        ({"response": [], **ERROR_FIELDS}, "WS_Error | Invalid Account | Invalid."),
        ({"success": False, "msg": "Not on a call"}, "Not on a call"),
        ({"success": "False"}, "success: false"),
        ({"success": False, "response": [{"OutComeID": "1"}]}, "success: false"),
        ({"msg": "Not on a call"}, "Not on a call"),
        ({"response": None, "msg": "Not on a call"}, "Not on a call"),
        ({"errorType": 17, "msg": {"a": 1}}, '17 | {"a":1}'),
    ],
)
def test_errors_in_a_reply_are_about_the_account(under: str, payload: dict[str, Any], said: str) -> None:
    """Error shape (b): error fields or `success: false` in the reply are about the account asked for."""
    raw = reply(None, **{"message": ..., "data": ...} | {under: payload})
    assert classify(raw) == Refusal(said, about_lcm=False)


@pytest.mark.parametrize("listed", ["WS_Error", "Invalid."])
def test_listed_errors_are_about_lcm(listed: str) -> None:
    """An `errorType` or `msg` of `lcm.session_errors` speaks of LCM, whichever of them it is."""
    raw = reply(None, message=ERROR_FIELDS)
    assert classify(raw, frozenset({listed})) == Refusal(
        "WS_Error | Invalid Account | Invalid.", about_lcm=True
    )


@pytest.mark.parametrize("variants", [NOT_LISTED, frozenset({"error-under-message"})])
def test_the_error_topic_is_about_lcm(variants: frozenset[str]) -> None:
    """Error shape (a): topic `Error` is about LCM itself, with its texts under `data` or `message`."""
    assert classify(documents.error("TYPE", "text", variants)) == Refusal("TYPE | text", about_lcm=True)
    assert classify(b'{"channel":"LCM","topic":"error","data":7}') == Refusal(
        "an error without a text", about_lcm=True
    )


@pytest.mark.parametrize("kind", documents.UNASKED)
def test_unasked_messages_are_recognized(kind: str) -> None:
    """What is published as arriving of LCM's own accord is neither a reply nor an error."""
    assert isinstance(classify(documents.UNASKED[kind]), Unasked)
    assert isinstance(classify(documents.open_id("worker")), Unasked)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("empty", Reply),
        ("refuse", Refusal),
        ("refuse-plain", Refusal),
        ("not-logged-in", Refusal),
        ("error", Refusal),
        ("cut-off", Garbage),
        ("not-json", Garbage),
        ("nan", Malformed | Garbage),
        ("deep", Malformed | Garbage),
        ("boolean", Malformed),
        ("strings", Malformed),
        ("no-response", Malformed),
        ("no-id", Malformed),
    ],
)
def test_the_simulators_faults_are_understood(fault: str, kind: type[Frame]) -> None:
    """Each text that the simulator sends in place of the good reply is what it means to be."""
    assert isinstance(classify(documents.BAD[fault](ACCOUNT, NOT_LISTED)), kind)


def test_the_subtopic_is_found_under_either_key() -> None:
    """A greeting's reply is known by `subtopic` or `subTopic`."""
    assert protocol.subtopic_of(b'{"subtopic":"A"}') == "A"
    assert protocol.subtopic_of(b'{"subTopic":"B"}') == "B"
    assert protocol.subtopic_of(b'{"subtopic":7}') is None
