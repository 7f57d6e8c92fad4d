"""Bodies that are no JSON in UTF-8, as `invalid_job` tells them."""

from __future__ import annotations

import codecs
import gzip
import zlib

import pytest

from worker.contract.errors import InvalidJob
from worker.contract.foreign_body import foreign_form
from worker.contract.job import MAX_BODY
from worker.contract.job_reader import read_job
from worker.contract.message import Properties

JSON = '{"account_number": "4711-0815"}'
GZIP = gzip.compress(JSON.encode(), mtime=0)
ZSTD = b"\x28\xb5\x2f\xfd\x20\x1f\xf9\x00\x00" + JSON.encode()  # a frame with one raw block
BROTLI = b"\x8f\x0f\x00\x80" + JSON.encode() + b"\x03"


def reason(body: bytes, encoding: str | None = None) -> str:
    with pytest.raises(InvalidJob) as raised:
        read_job(body, Properties(content_encoding=encoding))
    assert "4711" not in raised.value.message
    return raised.value.message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            codecs.BOM_UTF8 + JSON.encode(),
            "begins with a byte order mark (EF BB BF); send it in UTF-8 without one",
        ),
        (JSON.encode("utf-16"), "is UTF-16 with a byte order mark; send it in UTF-8 without one"),
        (codecs.BOM_UTF16_BE + JSON.encode("utf-16-be"), "is UTF-16 with a byte order mark; "),
        (JSON.encode("utf-32"), "is UTF-32 with a byte order mark; "),
        (codecs.BOM_UTF32_BE + JSON.encode("utf-32-be"), "is UTF-32 with a byte order mark; "),
        (JSON.encode("utf-16-le"), "is UTF-16; send it in UTF-8"),
        (JSON.encode("utf-16-be"), "is UTF-16; send it in UTF-8"),
        (JSON.encode("utf-32-le"), "is UTF-32; send it in UTF-8"),
        (JSON.encode("utf-32-be"), "is UTF-32; send it in UTF-8"),
    ],
)
def test_other_encodings(body: bytes, said: str) -> None:
    """A byte order mark, and UTF-16 and UTF-32 with and without one, are told as that, with what to send."""
    assert reason(body).startswith(f"the body must be a JSON object: it {said}")
    assert reason(body, "utf-16").startswith(f"the body must be a JSON object: it {said}")


@pytest.mark.parametrize("level", [1, 5, 6, 9])
@pytest.mark.parametrize("encoding", [None, "", "utf-8"])
def test_compression_without_a_header(encoding: str | None, level: int) -> None:
    """Compressed data is known by its first bytes."""
    assert reason(GZIP, encoding) == (
        "the body must be a JSON object: it is gzip data, without a content_encoding that says so;"
        " send it uncompressed"
    )
    assert "it is zlib (deflate) data, without" in reason(zlib.compress(JSON.encode(), level), encoding)
    assert "it is zstd data, without" in reason(ZSTD, encoding)


@pytest.mark.parametrize(
    ("body", "encoding", "said"),
    [
        (GZIP, "gzip", "is gzip data, as its content_encoding 'gzip' says; send it uncompressed, without"),
        (
            zlib.compress(JSON.encode()),
            "deflate",
            "is zlib (deflate) data, as its content_encoding 'deflate' says; ",
        ),
        (
            zlib.compress(JSON.encode(), wbits=-15),
            "deflate",
            "has the content_encoding 'deflate'; send it as plain JSON",
        ),
        (ZSTD, "zstd", "is zstd data, as its content_encoding 'zstd' says; "),
        (
            BROTLI,
            "br",
            "has the content_encoding 'br'; send it as plain JSON in UTF-8, without content_encoding",
        ),
        (b"eyJ9", "BASE64", "has the content_encoding 'BASE64'; "),
        (b'{"account_number": "\xfc"}', "iso-8859-1", "has the content_encoding 'iso-8859-1'; "),
    ],
)
def test_compression_with_a_header(body: bytes, encoding: str, said: str) -> None:
    """A content_encoding is told, whether its data has first bytes to know it by or not."""
    assert reason(body, encoding).startswith(f"the body must be a JSON object: it {said}")


def test_a_log_with_hashed_accounts_does_not_quote_the_encoding() -> None:
    """It may be any text, an account number too: the error itself tells no more than that there is one."""
    for body in (GZIP, b"\x00no json"):
        with pytest.raises(InvalidJob) as raised:
            read_job(body, Properties(content_encoding="4711-0815"))
        assert "4711" in raised.value.message
        assert "content_encoding" in str(raised.value)
        assert "4711" not in str(raised.value)


def test_too_large_as_well() -> None:
    """A body over the limit is told as both."""
    said = reason(JSON.encode("utf-16") + b"\x20\x00" * MAX_BODY)
    assert said.startswith(f"the body must have at most {MAX_BODY} bytes")
    assert "it is UTF-16 with a byte order mark" in said


@pytest.mark.parametrize("encoding", ["gzip", "br", "utf-8", "identity"])
def test_plain_json_is_read_whatever_the_header_says(encoding: str) -> None:
    """A header that does not fit takes nothing away from a body that can be read, or from its own mistakes."""
    assert read_job(JSON.encode(), Properties(content_encoding=encoding)).account_number == "4711-0815"
    assert "truncated" in reason(b'{"account_number": ', encoding)


@pytest.mark.parametrize("body", [b"", b"x", b"\x00", b"\x00\x00\x00\x00", b"\xff", b"12"])
def test_what_can_not_be_told_is_not_guessed(body: bytes) -> None:
    """Too few bytes, or none that mean anything, are left to the message about JSON."""
    assert foreign_form(body, None) == ""
