"""A job is read as the contract says; whatever else comes is an InvalidJob that says why."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from worker.contract.errors import InvalidJob
from worker.contract.job import MAX_BODY, Job, Producer
from worker.contract.job_reader import read_job
from worker.contract.message import Properties

NOTHING = Properties()
DEADLINE_RULE = "deadline must be an RFC 3339 time with its offset, such as 2026-01-31T12:00:00Z"


def body_of(**fields: Any) -> bytes:
    return json.dumps({"account_number": "18|1|2|0|0|44|274", **fields}).encode()


def refused(body: bytes, properties: Properties = NOTHING) -> tuple[str, Job]:
    with pytest.raises(InvalidJob) as caught:
        read_job(body, properties)
    return caught.value.message, caught.value.job


def test_a_full_job_is_read() -> None:
    """Every field of the body and every property that counts arrives in the job."""
    body = b"""{"job_id": "job-1", "account_number": "18|1|2|0|0|44|274", "route": "emea_1-A", "more": [1],
        "deadline": "2026-01-31T13:00:00+01:00", "metadata": {"b" : 1,\t"a": "\xc3\xa9"} }"""
    headers = {
        "outcome-attempts": 4,
        "outcome-retries": 1,
        "outcome-replays": 2,
        "outcome-error-code": "timeout",
        "outcome-error-reason": "no reply",
        "traceparent": "00-ab-cd-01",
        "tracestate": "v=1",
        "outcome-passes": 3,
        "outcome-job-id": "job-1",
        "outcome-user-id": "dialer",
        "other": "x",
    }
    properties = Properties(
        message_id="m-1", correlation_id="c-1", app_id="crm", user_id="worker", headers=headers
    )
    assert read_job(body, properties) == Job(
        job_id="job-1",
        account_number="18|1|2|0|0|44|274",
        route="emea_1-A",
        deadline=datetime(2026, 1, 31, 12, tzinfo=UTC),
        metadata=Raw(b'{"b" : 1,\t"a": "\xc3\xa9"}'),
        attempts=4,
        retries=1,
        replays=2,
        passes=3,
        last_error="timeout: no reply",
        correlation_id="c-1",
        trace={"traceparent": "00-ab-cd-01", "tracestate": "v=1"},
        producer=Producer("dialer", "crm", "emea_1-A"),
    )


def test_a_bare_job_has_defaults() -> None:
    """An account number is enough."""
    job = read_job(b'{"account_number": "1"}', Properties(message_id="m-1"))
    assert job == Job(job_id="m-1", account_number="1", correlation_id="m-1")
    assert bytes(job.metadata) == b"{}"


def test_null_counts_as_absent() -> None:
    """Null in an optional field is the same as leaving it out."""
    nulls = body_of(job_id=None, route=None, deadline=None, metadata=None)
    assert read_job(nulls, Properties(message_id="m")) == read_job(body_of(), Properties(message_id="m"))


def test_the_last_of_repeated_keys_counts() -> None:
    """Of a repeated key the last value counts, a wrong one before it doesn't."""
    job = read_job(
        b'{"account_number": 5, "account_number": "2", "metadata": [], "metadata": {"a":1}}', NOTHING
    )
    assert (job.account_number, bytes(job.metadata)) == ("2", b'{"a":1}')
    text, _ = refused(b'{"account_number": "1", "account_number": null}')
    assert text.startswith("account_number must be")


def test_keys_may_be_escaped() -> None:
    """A key is compared by its characters, however they are written."""
    assert read_job(rb'{"account\u005fnumber": "\u0031"}', NOTHING).account_number == "1"


@pytest.mark.parametrize(
    ("header", "asked_as", "message_id", "expected"),
    [
        ("h", "b", "m", "h"),
        (None, "b", "m", "b"),
        (None, None, "m", "m"),
        (7, "b", "m", "b"),
        ("", "b", "m", "b"),
        ("h" * 129, "b", "m", "b"),
        ("h" * 129, None, "m" * 128, "m" * 128),
        (None, "b", "m" * 129, "b"),
        (None, None, "\u00a0\x00", "\u00a0\x00"),
    ],
)
def test_the_job_id_comes_from_the_first_that_has_one(
    header: object, asked_as: str | None, message_id: str, expected: str
) -> None:
    """A job's id is our copies' header, else the body's, else the AMQP message id."""
    headers = {} if header is None else {"outcome-job-id": header}
    job = read_job(body_of(job_id=asked_as), Properties(message_id=message_id, headers=headers))
    assert job.job_id == job.correlation_id == expected


@pytest.mark.parametrize("headers", [{}, {"outcome-job-id": "of-a-copy"}])
def test_a_message_id_that_serves_as_job_id_has_so_many_characters(headers: dict[str, str]) -> None:
    """A longer one is a mistake, in the first delivery as in a copy of ours, and never a job's id."""
    long = Properties(message_id="m" * 129, headers=headers)
    with pytest.raises(InvalidJob) as caught:
        read_job(body_of(), long)
    told = "message_id must have at most 128 characters where the body has no job_id, found 129"
    assert (caught.value.message, str(caught.value)) == (f"{told}: '{'m' * 78}…", told)
    without = Properties(headers=headers)
    assert caught.value.job == read_job(body_of(), without)
    assert refused(body_of(job_id=5), long) == refused(body_of(job_id=5), without)


def test_a_derived_id_follows_the_body() -> None:
    """Without any id, equal bodies have equal ids, and these never change between versions."""
    assert read_job(b'{"account_number":"1"}', NOTHING).job_id == "fa209447-e44e-5806-94e6-a9496ed9daf2"
    assert (
        read_job(b'{"account_number":"1"}', Properties(message_id="")).job_id
        == "fa209447-e44e-5806-94e6-a9496ed9daf2"
    )
    assert read_job(b'{"account_number":"2"}', NOTHING).job_id != "fa209447-e44e-5806-94e6-a9496ed9daf2"


@pytest.mark.parametrize("account", ["a", "x" * 256, "😀" * 256, " ", "\u00a0\u2028", "\u200b"])
def test_any_text_without_control_characters_is_an_account(account: str) -> None:
    """An account number is opaque: up to 256 characters of anything but category Cc."""
    assert read_job(body_of(account_number=account), NOTHING).account_number == account


@pytest.mark.parametrize(
    ("fields", "mistake"),
    [
        ({"account_number": 4711}, "a string of 1 to 256 characters, found a number of 4 characters"),
        ({"account_number": None}, "a string of 1 to 256 characters, found null"),
        ({"account_number": ["4711"]}, "a string of 1 to 256 characters, found an array of 8 characters"),
        ({"account_number": True}, "a string of 1 to 256 characters, found a boolean of 4 characters"),
        ({"account_number": ""}, "a string of 1 to 256 characters, found 0"),
        ({"account_number": "4" * 257}, "a string of 1 to 256 characters, found 257"),
        ({"account_number": "4711\n"}, "no control characters, found U+000A as character 5 of 5"),
        ({"account_number": "4711\x00|"}, "no control characters, found U+0000 as character 5 of 6"),
        ({"account_number": "\x7f4711"}, "no control characters, found U+007F as character 1 of 5"),
        ({"account_number": "\x9f4711"}, "no control characters, found U+009F as character 1 of 5"),
    ],
)
def test_a_wrong_account_is_described_and_never_shown(fields: dict[str, Any], mistake: str) -> None:
    """The text names rule and finding, and holds no part of the account number."""
    text, job = refused(body_of(**fields))
    assert text.startswith("account_number must ")
    assert text.endswith(mistake)
    assert "4711" not in text
    assert job.account_number == ""


def test_a_missing_account_is_named() -> None:
    """A job without an account number says so."""
    text, _ = refused(b"{}")
    assert text == "account_number must be a string of 1 to 256 characters, found nothing"


@pytest.mark.parametrize(
    ("fields", "mistake"),
    [
        ({"job_id": 42}, "job_id must be a string of 1 to 128 characters, found a number (42)"),
        ({"job_id": ""}, "job_id must be a string of 1 to 128 characters, found ''"),
        (
            {"job_id": "j" * 129},
            f"job_id must be a string of 1 to 128 characters, found 129: '{'j' * 78}…",
        ),
        (
            {"route": "a.b"},
            "route must be a string of 1 to 64 of A-Z a-z 0-9 _ -, found 'a.b'",
        ),
        ({"route": "emea\n"}, r"route must be a string of 1 to 64 of A-Z a-z 0-9 _ -, found 'emea\n'"),
        ({"route": False}, "route must be a string of 1 to 64 of A-Z a-z 0-9 _ -, found a boolean (false)"),
        (
            {"deadline": "2026-01-31T12:00:00"},
            f"{DEADLINE_RULE}, found '2026-01-31T12:00:00'",
        ),
        (
            {"deadline": 1769860800},
            f"{DEADLINE_RULE}, found a number (1769860800)",
        ),
        ({"metadata": [1]}, "metadata must be a JSON object, found an array ('[1]')"),
        ({"metadata": "{}"}, "metadata must be a JSON object, found '{}'"),
    ],
)
def test_a_wrong_field_is_named_with_rule_and_finding(fields: dict[str, Any], mistake: str) -> None:
    """Each field's mistake tells the field, its rule, and what was found."""
    text, _ = refused(body_of(**fields))
    assert text == mistake


def test_what_was_found_stands_apart_from_this_workers_own_words() -> None:
    """A log that may not hold account numbers leaves out what a field holds, which may be one in the wrong place."""
    account = "18|77001|2"
    for field in ("job_id", "route", "deadline", "metadata"):
        wrong = {"account_number": "9|9", field: "x" * 119 + account if field == "job_id" else account}
        with pytest.raises(InvalidJob) as caught:
            read_job(body_of(**wrong), NOTHING)
        assert field in str(caught.value)
        assert account not in str(caught.value)
        assert field == "job_id" or repr(account) in caught.value.message


@pytest.mark.parametrize("raw", ["7700188", "[7700188]", '"7700188\\n"', f'"{"7700188" * 40}"'])
def test_an_account_that_can_t_be_read_is_known_for_what_it_is(raw: str) -> None:
    """So it can be hashed where an id repeats it."""
    _, job = refused(b'{"account_number": %b}' % raw.encode())
    assert job.account_number == ""
    assert "7700188" in job.unread


def test_all_mistakes_are_reported_together() -> None:
    """One answer names every mistake, in the order of the contract's fields as read."""
    text, _ = refused(b'{"account_number": 1, "job_id": 2, "route": 3, "deadline": 4, "metadata": 5}')
    assert [part.split()[0] for part in text.split("; ")] == [
        "job_id",
        "account_number",
        "route",
        "deadline",
        "metadata",
    ]


def test_an_invalid_job_carries_what_could_be_read() -> None:
    """A failed result still goes where the producer listens, with its ids and metadata."""
    properties = Properties(
        message_id="m", correlation_id="c", headers={"outcome-attempts": 2, "traceparent": "t"}
    )
    _, job = refused(body_of(job_id=5, route="emea", metadata={"a": 1}), properties)
    assert job == Job(
        job_id="m",
        account_number="18|1|2|0|0|44|274",
        route="emea",
        metadata=Raw(b'{"a": 1}'),
        attempts=2,
        correlation_id="c",
        trace={"traceparent": "t"},
        producer=Producer(route="emea"),
    )


@pytest.mark.parametrize(
    ("body", "mistake"),
    [
        (b"", "the body must be a JSON object: Input data was truncated"),
        (b"[]", "the body must be a JSON object, found an array"),
        (b' "x"', "the body must be a JSON object, found a string"),
        (b"null", "the body must be a JSON object, found null"),
        (b'{"account_number": "1"} x', "the body must be a JSON object: "),
        (b'{"account_number": "1"', "the body must be a JSON object: "),
        (b'\xef\xbb\xbf{"account_number": "1"}', "the body must be a JSON object: "),
        (b'{"account_number": NaN}', "the body must be a JSON object: "),
        (b'{"account_number": "1", "x": NaN}', "the body must be a JSON object: "),
        (b'{"account_number": "1", "metadata": {"x": -Infinity}}', "the body must be a JSON object: "),
        (b'{"account_number": "1", "metadata": {"x": 01}}', "the body must be a JSON object: "),
        (b'{"account_number": "1", "metadata": {"x": "\\q"}}', "the body must be a JSON object: "),
        (b'{"account_number": "1", "metadata": {"x": "\n"}}', "the body must be a JSON object: "),
        (b'{"account_number": "1", "metadata": {"x": "\xff"}}', "the body must be JSON in UTF-8, found"),
        (b'{"account_number": "1", "\xff": 1}', "the body must be JSON in UTF-8, found"),
        (b'{"account_number": "1", "x": "\xed\xa0\x80"}', "the body must be JSON in UTF-8, found"),
        (b'{"account_number": "\\ud800"}', "the body must be a JSON object: "),
        (b'{"account_number": "\\udc00 and more text"}', "the body must be a JSON object: "),
        (b'{"account_number": "1", "metadata": {"x": "\\ud800 and more"}}', "the body must be a JSON"),
        (b'{"account_number": "1", "metadata": {"x": "\\udfff"}}', "the body must be a JSON object: "),
    ],
)
def test_what_is_no_json_object_is_refused_anywhere(body: bytes, mistake: str) -> None:
    """Bad JSON is found wherever it stands, also inside metadata, which does not come out again."""
    text, job = refused(body, Properties(message_id="m"))
    assert text.startswith(mistake)
    assert job == Job(job_id="m", account_number="", correlation_id="m")


@pytest.mark.parametrize("prefix", [b'{"x":', b'{"account_number":"1","metadata":', b'{"account_number":'])
@pytest.mark.parametrize("unit", [b"[", b'{"a":'])
def test_deep_nesting_is_an_invalid_job(prefix: bytes, unit: bytes) -> None:
    """Nesting 10,000 deep and more is refused like any other bad body."""
    body = prefix + unit * ((MAX_BODY - len(prefix)) // len(unit))
    text, _ = refused(body)
    assert "nested too deeply" in text


def test_deep_nesting_that_is_complete_is_an_invalid_job() -> None:
    """Complete JSON nested 30,000 deep is refused, too."""
    text, _ = refused(b'{"account_number":"1","metadata":{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}}")
    assert "nested too deeply" in text


def test_metadata_may_hold_what_python_cannot() -> None:
    """Metadata is echoed unread: numbers of any size, repeated keys, escapes stay as they are."""
    written = rb'{"a":1e999,"a":123456789012345678901234567890,"b":"\ud83d\ude00\u0000"}'
    job = read_job(b'{"account_number":"1","metadata":' + written + b"}", NOTHING)
    assert bytes(job.metadata) == written


def test_the_body_may_have_64_kib_and_no_more() -> None:
    """A body of 65,536 bytes is read, one of 65,537 is not, and keeps its id."""
    largest = b'{"account_number":"1"}'.ljust(MAX_BODY)
    assert read_job(largest, NOTHING).account_number == "1"
    text, job = refused(largest + b" ", Properties(message_id="m"))
    assert text == "the body must have at most 65536 bytes, found 65537"
    assert (job.job_id, job.account_number) == ("m", "")


@pytest.mark.parametrize(
    ("value", "count"),
    [(0, 0), (3, 3), (-1, 0), ("3", 0), (b"3", 0), (True, 0), (1.5, 0), (None, 0), (2**63 - 1, 2**31 - 1)],
)
def test_counters_of_a_wrong_kind_count_as_zero(value: object, count: int) -> None:
    """A counter that is no integer is 0, it is never negative, and can always be counted on."""
    names = ("outcome-attempts", "outcome-retries", "outcome-replays")
    job = read_job(body_of(), Properties(headers=dict.fromkeys(names, value)))
    assert (job.attempts, job.retries, job.replays) == (count, count, count)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [("timeout", "no reply", "timeout: no reply"), ("timeout", None, ""), (1, "x", "")],
)
def test_the_last_error_needs_both_headers(code: object, reason: object, expected: str) -> None:
    """The last error is told only where a copy of ours wrote both its code and its reason."""
    headers = {"outcome-error-code": code, "outcome-error-reason": reason}
    assert read_job(body_of(), Properties(headers=headers)).last_error == expected


def test_trace_headers_of_a_wrong_kind_are_left_out() -> None:
    """Only text is carried over as a trace header, under its exact name."""
    headers = {"traceparent": b"00", "tracestate": "v=1", "Traceparent": "00"}
    assert read_job(body_of(), Properties(headers=headers)).trace == {"tracestate": "v=1"}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("c" * 255, "c" * 255),
        ("c" * 256, "c" * 255),
        ("é" * 128, "é" * 127),
        ("c" + "😀" * 64, "c" + "😀" * 63),
    ],
)
def test_a_correlation_id_fits_an_amqp_short_string(text: str, kept: str) -> None:
    """A correlation id is cut to 255 bytes of UTF-8, between two characters."""
    assert read_job(body_of(), Properties(correlation_id=text)).correlation_id == kept
    assert len(kept.encode()) <= 255


def test_a_long_job_id_is_cut_only_as_correlation_id() -> None:
    """A job id of 128 wide characters stays whole; the correlation id made of it fits AMQP."""
    job = read_job(body_of(job_id="😀" * 128), Properties(correlation_id=""))
    assert (job.job_id, job.correlation_id) == ("😀" * 128, "😀" * 63)


def test_an_id_with_a_lone_surrogate_is_made_well_formed() -> None:
    """An AMQP message id that UTF-8 can't hold becomes one that it can."""
    assert read_job(body_of(), Properties(message_id="m\ud800")).job_id == r"m\ud800"


PIECES = st.sampled_from(
    [
        *rb"""{ } [ ] , : " \ \u d800 1 - e "a" null NaN {}""".split(),
        *b'"account_number": "metadata": "job_id": "deadline":'.split(),
        *(b"\xff", b"\x00", b" "),
    ]
)


@given(st.lists(PIECES).map(b"".join) | st.binary())
def test_whatever_comes_is_a_job_or_an_invalid_job(piece: bytes) -> None:
    """No body raises anything but InvalidJob, and what is read of it can be written again."""
    for body in (piece, b'{"account_number":"1","metadata":' + piece + b"}"):
        try:
            job = read_job(body, NOTHING)
        except InvalidJob as error:
            job = error.job
        assert job.job_id
        assert isinstance(json.loads(bytes(job.metadata).decode()), dict)
