"""An outcome list in every published form is read, and what is no reply is never taken for one."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.canaries import masking
from tests.support.lcm import SAMPLE, raw_reply, reply
from worker.contract.outcomes import OutcomeList
from worker.lcm import outcome_list
from worker.lcm.envelope import ErrorReply, Malformed, Unparseable, open_envelope, session_errors_of
from worker.lcm.outcome_list import Frame, Reply, ReplyMemory, classify
from worker.simulator import documents

ACCOUNT = "18|1|2|0|0|44|274"
NOT_LISTED = frozenset[str]()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
IN_SAMPLE_FORM = '[{"OutComeID":"5","Description":"x \\\\"},{"OutComeID":"6","Description":"\\""}]'
IN_ANOTHER_FORM = '[{"OutComeID":5,"Description":"x","Extra":[]},{"OutComeID":"6"}]'


def test_the_request_is_the_documented_one() -> None:
    """A request has the sample's fields and nothing else; the account number passes unread."""
    account = '5|3 "ü" \\ |'
    assert json.loads(outcome_list.encode(account)) == {
        "channel": "LCM",
        "topic": "WebService",
        "subtopic": "SetCallOutComeOffline",
        "data": {"AccountNumber": account},
    }


def test_the_sample_is_read_in_its_order() -> None:
    """The documented reply gives its 49 outcomes as they stand, whether compact or indented."""
    assert classify(SAMPLE) == Reply(OutcomeList(documents.OUTCOMES))
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
    assert classify(reply(response)) == Reply(OutcomeList(items))


@pytest.mark.parametrize("payload", [{}, {"success": True, "msg": "OK", "errorType": None}])
def test_an_answer_may_come_with_empty_error_fields(payload: dict[str, object]) -> None:
    """Error fields that say nothing, and a `msg` beside the list, spoil no reply."""
    assert classify(reply(None, message={"response": [], **payload})) == Reply(OutcomeList())


@pytest.mark.parametrize("payload", [{}, {"data": {}}])
def test_a_reply_without_a_response_is_malformed(payload: dict[str, object]) -> None:
    """A payload that holds neither a response nor an error can't be read."""
    assert isinstance(classify(reply(None, message={}, **payload)), Malformed)


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
def test_errors_in_a_reply_are_about_the_account(under: str, payload: dict[str, object], said: str) -> None:
    """Error shape (b): error fields or `success: false` in the reply are about the account asked for."""
    raw = reply(None, **{"message": ..., "data": ...} | {under: payload})
    assert classify(raw) == ErrorReply(said, about_lcm=False)


@pytest.mark.parametrize("listed", ["WS_Error", "Invalid.", "wserror", "WS error", " INVALID. "])
def test_listed_errors_are_about_lcm(listed: str) -> None:
    """An `errorType` or `msg` of `lcm.session_errors` speaks of LCM; letter case, blanks and `_` don't count."""
    raw = reply(None, message=ERROR_FIELDS)
    assert classify(raw, session_errors_of([listed])) == ErrorReply(
        "WS_Error | Invalid Account | Invalid.", about_lcm=True
    )


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("empty", Reply),
        ("refuse", ErrorReply),
        ("refuse-plain", ErrorReply),
        ("not-logged-in", ErrorReply),
        ("error", ErrorReply),
        ("cut-off", Unparseable),
        ("not-json", Unparseable),
        ("nan", Malformed | Unparseable),
        ("deep", Malformed | Unparseable),
        ("boolean", Malformed),
        ("strings", Malformed),
        ("no-response", Malformed),
        ("no-id", Malformed),
    ],
)
def test_the_simulators_faults_are_understood(fault: str, kind: type[Frame]) -> None:
    """Each text that the simulator sends in place of the good reply is what it means to be."""
    assert isinstance(classify(documents.BAD[fault](ACCOUNT, NOT_LISTED)), kind)


@pytest.mark.parametrize(
    "raw", [documents.open_id("worker"), documents.error("TYPE", "text", NOT_LISTED), b""]
)
def test_what_is_no_reply_is_what_its_envelope_says(raw: bytes) -> None:
    """Other messages, errors about LCM and what can't be parsed are told apart as for every exchange."""
    frame = classify(raw)
    assert not isinstance(frame, Reply)
    assert frame == open_envelope(raw, outcome_list.REPLY_SUBTOPIC)


@pytest.mark.parametrize(
    ("response", "key", "value"),
    [
        *(
            (IN_SAMPLE_FORM, key, '"6"')
            for key in ("OutComeID", "Description", "channel", "topic", "subtopic")
        ),
        *((IN_ANOTHER_FORM, key, '"6"') for key in ("OutComeID", "Description", "channel", "Extra")),
        (IN_SAMPLE_FORM, "response", "[]"),
        (IN_SAMPLE_FORM, "message", '{"response":[]}'),
        (IN_ANOTHER_FORM, "message", "{}"),
    ],
)
def test_repeated_keys_are_malformed(response: str, key: str, value: str) -> None:
    """`json` accepts repeated keys: here any makes a reply malformed, spelled with escapes or not."""
    text = raw_reply(response).decode()
    assert isinstance(classify(text.encode()), Reply)
    for again in (key, f"\\u{ord(key[0]):04x}{key[1:]}"):
        spoiled = text.replace(f'"{key}":', f'"{again}":{value},"{key}":', 1)
        assert classify(spoiled.encode()) == Malformed("a key stands twice in one object", key)


def test_a_repeated_key_is_found_where_another_outcome_lacks_it() -> None:
    """Two descriptions in one outcome and none in the next are not taken for one in each."""
    spoiled = raw_reply('[{"OutComeID":"1","Description":"a","Description":"b"},{"OutComeID":"2"}]')
    assert classify(spoiled) == Malformed("a key stands twice in one object", "Description")


@pytest.mark.parametrize("place", ["id", "Description", "Extra", "envelope"])
@pytest.mark.parametrize(
    "spoiled", [b'"\xff"', b'"\xed\xa0\x80"', b"NaN", b"-Infinity", b"[" * 10_000 + b"]" * 10_000, b"'x'"]
)
def test_a_strict_decoder_reads_replies(place: str, spoiled: bytes) -> None:
    """`json` accepts `NaN` and overflows on deep nesting: here neither gives a reply, nor does invalid UTF-8."""
    texts = {
        "id": b'[{"OutComeID":?,"Description":"x"}]',
        "Description": b'[{"OutComeID":"1","Description":?}]',
        "Extra": b'[{"OutComeID":"1","Description":"x","Extra":?}]',
        "envelope": b'[],"Extra":?',
    }
    raw = reply("?").replace(b'"?"', texts[place].replace(b"?", spoiled))
    assert isinstance(classify(raw), Malformed | Unparseable)


def test_a_reply_of_ten_megabytes_is_read() -> None:
    """Size alone does not trouble the reader: bounding it is the session's part."""
    text = "x" * 10_000_000
    assert classify(reply([{"OutComeID": "1", "Description": text}])) == Reply(OutcomeList([("1", text)]))


def test_a_reply_that_is_cut_off_is_never_a_reply() -> None:
    """However many bytes of the sample arrive, only all of them are a reply."""
    kinds = {type(classify(SAMPLE[:length])) for length in range(len(SAMPLE))}
    assert kinds == {Unparseable}


@given(st.binary())
def test_classify_never_raises_for_bytes(raw: bytes) -> None:
    """Any bytes are some frame."""
    assert isinstance(classify(raw), Frame)


@given(JSON, st.sampled_from(["whole", "message", "data", "response", "outcome"]), st.booleans())
def test_classify_never_raises_for_json(value: object, place: str, error: bool) -> None:
    """Any JSON, in any place of a message, is some frame."""
    topic = {"topic": "Error"} if error else {}
    raw = {
        "whole": msgspec.json.encode(value),
        "message": reply(None, message=value, **topic),
        "data": reply(None, message=..., data=value, **topic),
        "response": reply(value, **topic),
        "outcome": reply([value], **topic),
    }[place]
    assert isinstance(classify(raw), Frame)


@given(
    st.lists(st.tuples(st.text(min_size=1).filter(lambda text: text.strip()), st.text())),
    st.booleans(),
    st.booleans(),
)
def test_every_list_of_outcomes_is_read(
    items: list[tuple[str, str]], indented: bool, ascii_only: bool
) -> None:
    """Ids and descriptions come out as they went in, however the JSON is laid out and escaped."""
    document = json.loads(reply([{"OutComeID": id_, "Description": text} for id_, text in items]))
    raw = json.dumps(document, indent=2 if indented else None, ensure_ascii=ascii_only).encode()
    assert classify(raw) == Reply(OutcomeList(items))


@given(st.integers(0, len(SAMPLE) - 1), st.binary(max_size=4), st.integers(0, 4))
def test_the_short_way_says_what_the_long_way_says(at: int, insert: bytes, removed: int) -> None:
    """A reply in the sample's form, spoiled anywhere, is understood as it would be without the short way."""
    raw = SAMPLE[:at] + insert + SAMPLE[at + removed :]
    long_way = classify(raw.replace(b'"channel"', b'"subTopic":null,"channel"', 1))
    frame = classify(raw)
    assert type(frame) is type(long_way)
    if isinstance(frame, Reply):
        assert frame == long_way


def of_size(size: int, letter: str = "x") -> bytes:
    """Return a reply of this many bytes."""
    return reply(
        [
            {
                "OutComeID": "1",
                "Description": letter * (size - len(reply([{"OutComeID": "1", "Description": ""}]))),
            }
        ]
    )


@given(
    st.lists(
        st.sampled_from(
            [SAMPLE, SAMPLE[:-1], reply([]), reply([{"OutComeID": 5}]), reply(None), b"", b"{}", of_size(400)]
        )
        | st.binary(max_size=8).map(lambda inserted: SAMPLE[:400] + inserted + SAMPLE[400:]),
        max_size=30,
    )
)
def test_a_memory_changes_no_reading(messages: list[bytes]) -> None:
    """Whatever came before, every message means what it means by itself."""
    memory = ReplyMemory(8 * len(SAMPLE))
    for raw in messages:
        assert classify(raw, NOT_LISTED, memory) == classify(raw)


def test_the_same_bytes_are_the_same_list() -> None:
    """A list that came twice is given again itself, with what was worked out of it; errors are not remembered."""
    memory = ReplyMemory()
    first, second, third = (classify(bytes(bytearray(SAMPLE)), NOT_LISTED, memory) for _ in range(3))
    assert isinstance(first, Reply)
    assert first is not second
    assert second is third
    for raw in (reply(None), b"{", reply("?"), reply(None, message={"errorType": "X"})):
        for _ in range(2):
            classify(raw, NOT_LISTED, memory)
        assert memory.get(raw) is None


def test_lists_that_come_once_are_not_kept() -> None:
    """Where each account has its own list, the memory holds none; of their hashes it holds a bounded number."""
    memory = ReplyMemory()
    for number in range(5000):
        classify(documents.good(str(number), frozenset()), NOT_LISTED, memory)
    assert not memory._kept
    assert len(memory._hashes_seen) <= 4096


def test_a_memory_forgets_what_was_not_asked_for() -> None:
    """At most so many bytes of replies are kept, the ones that came last, and none that would drive out many."""
    memory = ReplyMemory(4000)
    one, two, three = (of_size(1000, letter) for letter in "abc")
    for raw in (one, two, three, one, of_size(1000, "d"), of_size(1000, "e"), of_size(1001)):
        for _ in range(2):
            classify(raw, NOT_LISTED, memory)
    assert [memory.get(raw) is not None for raw in (one, two, three, of_size(1001))] == [
        True,
        False,
        True,
        False,
    ]
    assert sum(map(len, memory._kept)) == memory._size == 4000


@pytest.mark.parametrize("key", ["k" * 1_000_000, "é" * 300], ids=["long", "wide"])
def test_a_repeated_key_is_told_in_few_words(key: str) -> None:
    """However long the key that stands twice is, the reason is as short as any other."""
    frame = classify(raw_reply(f'[{{"OutComeID":"1","{key}":1,"{key}":2}}]'))
    assert isinstance(frame, Malformed)
    assert len(frame.why) <= 200


def test_replies_that_differ_by_a_byte_are_not_mixed_up() -> None:
    """Two accounts whose replies are alike but for one digit get each their own list."""
    memory = ReplyMemory()
    for _ in range(3):
        for account in ("18|1|2", "18|1|3"):
            frame = classify(documents.good(account, frozenset()), NOT_LISTED, memory)
            assert isinstance(frame, Reply)
            assert frame.items[-1] == (documents.ACCOUNT_ID, f"Account {account}")


def test_a_list_can_not_be_changed() -> None:
    """A list that several jobs are answered with is made of tuples all through."""
    frame = classify(SAMPLE)
    assert isinstance(frame, Reply)
    assert isinstance(frame.items, tuple)
    assert {type(item) for item in frame.items} == {tuple}
    assert isinstance(frame.items.normalized.outcomes, tuple)


@pytest.mark.parametrize(
    ("raw", "frame"),
    [
        (
            reply(
                [
                    {"OutComeID": "hunter22", "Description": "of hunter22"},
                    {"OutComeID": "7", "Description": "x"},
                ]
            ),
            Reply(OutcomeList([("**********", "of **********"), ("7", "x")])),
        ),
        (
            documents.reply({"success": False, "msg": "no hunter22"}),
            ErrorReply("no **********", about_lcm=False),
        ),
        (
            raw_reply('[{"hunter22":1,"hunter22":2,"OutComeID":"7"}]'),
            Malformed("a key stands twice in one object", "**********"),
        ),
    ],
    ids=["outcomes", "error", "malformed"],
)
def test_a_secret_that_lcm_tells_back_is_masked(raw: bytes, frame: Frame) -> None:
    """Outcomes and errors go to others than those who may know it; what comes again is masked again."""
    memory, secrets = ReplyMemory(), masking("hunter22")
    assert [classify(raw, NOT_LISTED, memory, secrets) for _ in range(3)] == [frame] * 3


def test_a_list_without_secrets_stays_as_it_is() -> None:
    """Masking changes no outcome list that holds none."""
    frame = classify(SAMPLE, NOT_LISTED, None, masking("hunter22"))
    assert frame == classify(SAMPLE)
