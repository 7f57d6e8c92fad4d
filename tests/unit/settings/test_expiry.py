"""When the certificates of the settings expire, as openssl made them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from worker.settings import expiries_of, load


def expiries(**files: str) -> dict[str, float]:
    """Return what is told where the settings name these files."""
    return expiries_of(load(None, {f"LCM_WORKER_{name.upper()}": file for name, file in files.items()}))


def new_year(year: int) -> float:
    return datetime(year, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("years", [(2020, 2021), (2020, 2049), (2020, 2055), (2051, 2055)])
def test_a_certificate_expires_when_it_says(tmp_path: Path, years: tuple[int, int]) -> None:
    """In the past or the future, with the two digits or the four that its form has for a year."""
    own = Authority(tmp_path).issue_for("own", years)
    assert expiries(lcm__cert_file=own.certificate, lcm__key_file=own.key) == {
        "lcm.cert_file": new_year(years[1])
    }


def test_of_authorities_the_last_to_expire_counts(tmp_path: Path) -> None:
    """An old one beside the new one is no trouble, and Python reads the same time from the new one."""
    authority = Authority(tmp_path)
    old = authority.issue_for("old", (2020, 2021)).certificate
    both = tmp_path / "both.pem"
    both.write_text(Path(old).read_text() + "a comment: é\n" + Path(authority.file).read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.file)
    [known] = context.get_ca_certs()
    assert expiries(broker__ca_file=str(both)) == {
        "broker.ca_file": ssl.cert_time_to_seconds(str(known["notAfter"]))
    }


def test_of_our_own_the_first_counts(tmp_path: Path) -> None:
    """Those behind it in the file are the authorities between it and the one that the server knows."""
    authority = Authority(tmp_path)
    own, between = authority.issue_for("own", (2020, 2030)), authority.issue_for("between", (2020, 2040))
    chain = tmp_path / "chain.pem"
    chain.write_text(Path(own.certificate).read_text() + Path(between.certificate).read_text())
    assert expiries(broker__cert_file=str(chain), broker__key_file=own.key) == {
        "broker.cert_file": new_year(2030)
    }


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----"]
)
def test_what_is_no_certificate_has_no_expiry(tmp_path: Path, text: str) -> None:
    """Nor has a file that is not there; nothing is raised, and the others are told."""
    authority = Authority(tmp_path)
    own = authority.issue_for("own", (2020, 2030))
    file = tmp_path / "file.pem"
    file.write_text(text)
    settings = load(
        None,
        {
            "LCM_WORKER_BROKER__CA_FILE": str(file),
            "LCM_WORKER_LCM__CA_FILE": authority.file,
            "LCM_WORKER_LCM__CERT_FILE": own.certificate,
            "LCM_WORKER_LCM__KEY_FILE": own.key,
        },
    )
    Path(authority.file).unlink()
    assert expiries_of(settings) == {"lcm.cert_file": new_year(2030)}


def test_a_file_that_is_too_large_tells_nothing(tmp_path: Path) -> None:
    """What no connection would be opened by is not read to its end here either."""
    large = tmp_path / "large.pem"
    large.write_bytes(Path(Authority(tmp_path).file).read_bytes().ljust(2**20 + 1, b"\n"))
    assert expiries(lcm__ca_file=str(large)) == {}
