"""What is no reply is never taken for one, whatever the bytes: repeated keys, cuts, nesting, anything."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lcm_support import SAMPLE, raw_reply, reply
from worker.lcm import protocol
from worker.lcm.protocol import Frame, Garbage, Malformed, Reply, classify

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


IN_SAMPLE_FORM = '[{"OutComeID":"5","Description":"x \\\\"},{"OutComeID":"6","Description":"\\""}]'
IN_ANOTHER_FORM = '[{"OutComeID":5,"Description":"x","Extra":[]},{"OutComeID":"6"}]'


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
        assert classify(spoiled.encode()) == Malformed(f"the key {key!r} stands twice in one object")


def test_a_repeated_key_is_found_where_another_outcome_lacks_it() -> None:
    """Two descriptions in one outcome and none in the next are not taken for one in each."""
    spoiled = raw_reply('[{"OutComeID":"1","Description":"a","Description":"b"},{"OutComeID":"2"}]')
    assert classify(spoiled) == Malformed("the key 'Description' stands twice in one object")


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
def test_what_no_message_looks_like_is_garbage(raw: bytes) -> None:
    """Whatever is no single JSON object with a channel is garbage; deep nesting overflows nothing."""
    assert isinstance(classify(raw), Garbage)
    assert protocol.subtopic_of(raw) is None


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
    assert isinstance(classify(raw), Malformed | Garbage)


def test_a_reply_of_ten_megabytes_is_read() -> None:
    """Size alone does not trouble the reader: bounding it is the session's part."""
    text = "x" * 10_000_000
    assert classify(reply([{"OutComeID": "1", "Description": text}])) == Reply([("1", text)])


def test_a_reply_that_is_cut_off_is_never_a_reply() -> None:
    """However many bytes of the sample arrive, only all of them are a reply."""
    kinds = {type(classify(SAMPLE[:length])) for length in range(len(SAMPLE))}
    assert kinds == {Garbage}


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
    assert classify(raw) == Reply(items)


@given(st.integers(0, len(SAMPLE) - 1), st.binary(max_size=4), st.integers(0, 4))
def test_the_short_way_says_what_the_long_way_says(at: int, insert: bytes, removed: int) -> None:
    """A reply in the sample's form, spoiled anywhere, is understood as it would be without the short way."""
    raw = SAMPLE[:at] + insert + SAMPLE[at + removed :]
    long_way = classify(raw.replace(b'"channel"', b'"subTopic":null,"channel"', 1))
    frame = classify(raw)
    assert type(frame) is type(long_way)
    if isinstance(frame, Reply):
        assert frame == long_way
