"""The words for faults of TLS that no server of the tests has."""

from __future__ import annotations

import ssl

import pytest

from tests.support.settings import broker_settings, lcm_settings
from worker.settings.tls_faults import TlsFaults

BROKER = TlsFaults("broker", broker_settings("amqps://broker/"))


def error_of(reason: str | None) -> ssl.SSLError:
    """Return an error as OpenSSL's, with this reason."""
    error = ssl.SSLError(1, f"[SSL: {reason}] in other words")
    error.reason = reason  # type: ignore[assignment] # it has none where this Python does not know it
    return error


@pytest.mark.parametrize(
    ("reason", "why", "remedy"),
    [
        ("TLSV1_UNRECOGNIZED_NAME", "it does not know this host name", "name in broker.url the host"),
        (
            "SSLV3_ALERT_BAD_CERTIFICATE",
            "it requires a certificate of its clients",
            "in broker.cert_file and",
        ),
        (
            "SSLV3_ALERT_HANDSHAKE_FAILURE",
            "it refuses the TLS handshake",
            "certificate (broker.cert_file), or",
        ),
        ("RECORD_LAYER_FAILURE", "it does not speak TLS", "write amqp:// in broker.url"),
        ("UNSUPPORTED_PROTOCOL", "it speaks no version of TLS from 1.2 on", "enable TLS 1.2 or 1.3"),
        ("DH_KEY_TOO_SMALL", "the TLS handshake failed: dh key too small", "the log of that server"),
        (None, "the TLS handshake failed: [SSL: None] in other words", "the log of that server"),
    ],
)
def test_what_openssl_says(reason: str | None, why: str, remedy: str) -> None:
    """Each reason has words of its own; one that is not known here is shown as it is."""
    fault = BROKER.of(error_of(reason))
    assert fault.why.startswith(why)
    assert remedy in fault.remedy


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (92, "basicConstraints CA:TRUE and keyUsage keyCertSign"),
        (66, "a longer key"),
        (1, "see broker.ca_file, in place of the system's authorities"),
    ],
)
def test_certificates_that_do_not_verify(code: int, remedy: str) -> None:
    """The remedy goes by OpenSSL's code, and nobody is let in before it was applied: a refusal."""
    error = ssl.SSLCertVerificationError(1, "words")
    error.verify_code, error.verify_message = code, "it is so."
    fault = BROKER.of(error)
    assert (fault.why, fault.refused) == ("its certificate does not verify: it is so", True)
    assert remedy in fault.remedy


def test_an_end_in_mid_handshake() -> None:
    """Whether OpenSSL notices it, or the network, the words are the same."""
    assert BROKER.of(ssl.SSLEOFError(8, "EOF")) == BROKER.closed(is_open=False)


def test_another_address_than_the_sections() -> None:
    """What is asked with the files of a section at another address names the option that has it."""
    api = TlsFaults("lcm", lcm_settings("wss://lcm/"), url="--management", schemes=("http", "https"))
    assert api.of(error_of("WRONG_VERSION_NUMBER")).remedy == (
        "write http:// in --management, or name the port with TLS"
    )
