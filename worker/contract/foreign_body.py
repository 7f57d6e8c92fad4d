"""What a body is that is no JSON in UTF-8: text with a byte order mark or of another encoding, or compressed data."""

from __future__ import annotations

from worker.common.text import printable, quote

_BLANKS = b" \t\r\n"
_PLAIN = frozenset({"", "identity", "utf-8", "utf8", "us-ascii", "ascii", "binary", "7bit", "8bit"})
# UTF-32's marks come first: the little-endian one begins as UTF-16's does.
_MARKS = {
    b"\xef\xbb\xbf": "UTF-8",
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
# By which of the first four bytes are zero: JSON begins with an ASCII character.
_ZEROS = {"x000": "UTF-32", "000x": "UTF-32", "x0x0": "UTF-16", "0x0x": "UTF-16"}
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x78\x01": "zlib (deflate)",
    b"\x78\x5e": "zlib (deflate)",
    b"\x78\x9c": "zlib (deflate)",
    b"\x78\xda": "zlib (deflate)",
}


def foreign_form(body: bytes, content_encoding: str | None, *, quoting: bool = True) -> str:
    """Say what a body is, that can't be read, and what to send instead, such as "is gzip data; …"; "" if unknown.

    Without `quoting` it does not say what its content_encoding is, which may be any text of the producer's.
    """
    if unicode := _unicode(body):
        return unicode
    named = (content_encoding or "").strip().lower()
    shown = f" {quote(printable(content_encoding or ''))}" if quoting else ""
    says = "" if named in _PLAIN else f"content_encoding{shown}"
    if found := _starting(body, _MAGIC):
        if says:
            return f"is {found} data, as its {says} says; send it uncompressed, without content_encoding"
        return f"is {found} data, without a content_encoding that says so; send it uncompressed"
    if says and not _looks_like_json(body):
        return f"has the {says}; send it as plain JSON in UTF-8, without content_encoding"
    return ""


def _unicode(body: bytes) -> str:
    if (marked := _starting(body, _MARKS)) == "UTF-8":
        return "begins with a byte order mark (EF BB BF); send it in UTF-8 without one"
    if marked:
        return f"is {marked} with a byte order mark; send it in UTF-8 without one"
    unmarked = _ZEROS.get("".join("x" if byte else "0" for byte in body[:4]), "")
    return f"is {unmarked}; send it in UTF-8" if unmarked else ""


def _starting(body: bytes, kinds: dict[bytes, str]) -> str:
    return next((kind for start, kind in kinds.items() if body.startswith(start)), "")


def _looks_like_json(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return body.lstrip(_BLANKS).startswith(b"{")
