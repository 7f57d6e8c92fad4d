"""When the certificates in the files of the settings expire."""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from worker.settings.files import read_whole
from worker.settings.sections import Settings

_PEM = re.compile(
    r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END (?:X509 |TRUSTED )?CERTIFICATE-----",
    re.DOTALL,
)
# DER has one form only for the validity: a sequence of two times, each of two digits for the year or of four.
_VALIDITY = re.compile(rb"\x30[\x1e\x20\x22](?:\x17\x0d|\x18\x0f)\d{12,14}Z(?:\x17\x0d|\x18\x0f)(\d{12,14})Z")
_SHORT_YEAR = 12  # digits of a time whose year has two, from 1950 to 2049


def expiries_of(settings: Settings) -> dict[str, float]:
    """Return the Unix time at which each file of certificates that the settings name is of no more use.

    That is the first certificate of a `cert_file`, our own, and the last to expire of a `ca_file`, which holds an old
    and a new authority while one replaces the other. A file without a certificate that can be read is left out: whoever
    opens a connection by it says what is wrong.
    """
    found = {}
    for section in ("broker", "lcm"):
        files = getattr(settings, section)
        if own := list(_expiries_in(files.cert_file)):
            found[f"{section}.cert_file"] = own[0]
        if authorities := list(_expiries_in(files.ca_file)):
            found[f"{section}.ca_file"] = max(authorities)
    return found


def _expiries_in(file: str) -> Iterator[float]:
    with suppress(OSError, ValueError):
        text = read_whole(Path(file)).decode("ascii", "replace") if file else ""
        for body in _PEM.findall(text):
            if validity := _VALIDITY.search(a2b_base64(body)):
                yield _timestamp(validity[1].decode())


def _timestamp(digits: str) -> float:
    if len(digits) == _SHORT_YEAR:
        digits = ("20" if digits < "50" else "19") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
