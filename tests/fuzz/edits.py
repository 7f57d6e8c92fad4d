"""Changes of bytes that make new inputs of known ones: by hypothesis, which shrinks them, and by the fuzz loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from hypothesis import strategies as st

_WORDS = (
    *(b"\x00", b"\xff", b"\x7f", b"\x80", b"\r\n", b"\n", b" ", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800"),
    *(b"0", b"-1", b"1e999", b"9" * 30, b"4294967296", b"null", b"true", b"{}", b"[]", b'""', b"[" * 2000),
    *(b'"', b",", b":", b"{", b"}", b"[", b"]", b"\\", b"\x1b[2J", "é".encode(), "\u2028".encode()),
)
_MOST_EDITS = 4
_LONGEST_CUT = 64
_LARGEST = 1 << 16


class Edit(NamedTuple):
    """At a place, taken modulo the length, so many bytes give way to others."""

    at: int
    removed: int
    inserted: bytes


def edited(data: bytes, edits: Iterable[Edit]) -> bytes:
    """Return the bytes after these edits, one after the other."""
    for at, removed, inserted in edits:
        start = at % (len(data) + 1)
        data = data[:start] + inserted + data[start + removed :]
    return data[:_LARGEST]


def inputs(seeds: Sequence[bytes], words: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return the strategy of inputs near the seeds, and of others."""
    piece = st.sampled_from((*_WORDS, *words)) | st.binary(max_size=4)
    edit = st.builds(Edit, st.integers(0, 4096), st.just(0) | st.integers(0, _LONGEST_CUT), piece)
    near = st.builds(edited, st.sampled_from(seeds), st.lists(edit, max_size=_MOST_EDITS))
    return near | st.binary(max_size=64) | st.lists(piece, max_size=12).map(b"".join)


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    """Return an input near one of the seeds; parts of others get into it, too."""
    base = random.choice(seeds)
    return edited(base, [_drawn(base, seeds, words, random) for _ in range(random.randint(1, _MOST_EDITS))])


def _drawn(base: bytes, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> Edit:
    at = random.randrange(len(base) + 1)
    match random.randrange(6):
        case 0:  # a bit turns over
            here = base[at : at + 1] or b"\x00"
            return Edit(at, 1, bytes([here[0] ^ 1 << random.randrange(8)]))
        case 1:
            return Edit(at, random.randrange(2), bytes([random.randrange(256)]))
        case 2:
            return Edit(at, random.randrange(1, _LONGEST_CUT), b"")
        case 3:  # a part of an input, of this one perhaps
            other = random.choice(seeds)
            start = random.randrange(len(other) + 1)
            part = other[start : start + random.randrange(1, _LONGEST_CUT)]
            return Edit(at, random.choice((0, len(part))), part)
    word = random.choice((*_WORDS, *words))
    return Edit(at, random.choice((0, 0, len(word))), word)
