"""Why TLS with a server failed, and what to do about it: what OpenSSL says, in words that name the setting."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from worker.settings.tls import Certificates

_EXPIRED = "renew it there, or see whether this host's clock is right"
_NOT_YET = "see whether the clocks of both hosts are right"
_OTHER_NAME = (
    "name in {url} the host that it is for, or have it made with this host as its subjectAltName (DNS:… for a name,"
    " IP:… for an address; the common name does not count)"
)
_SELF_SIGNED = "where that server is to be trusted, name a file with this certificate in {ca_file}, {now}"
_UNKNOWN = (
    "name the authority that signed it in {ca_file}, {now}; the server must send any intermediate certificate"
)
_NO_AUTHORITY = (
    "have the authority's certificate made as one:"
    " basicConstraints CA:TRUE and keyUsage keyCertSign, both critical"
)
_NOT_FOR_SERVERS = "have it made for servers: extendedKeyUsage serverAuth"
_WEAK = "have it made anew, with a longer key and SHA-256"
# By OpenSSL's codes, X509_V_ERR_….
_UNVERIFIED: Mapping[int, str] = {
    9: _NOT_YET,
    10: _EXPIRED,
    18: _SELF_SIGNED,
    **dict.fromkeys((2, 19, 20, 21), _UNKNOWN),
    **dict.fromkeys((24, 32, 79, 92), _NO_AUTHORITY),
    26: _NOT_FOR_SERVERS,
    **dict.fromkeys((62, 64), _OTHER_NAME),
    **dict.fromkeys((66, 67, 68), _WEAK),
}

_NO_TLS = ("it does not speak TLS", "write {plain}:// in {url}, or name the port with TLS{usual_tls}")
_OTHER_VERSION = (
    "it speaks no version of TLS from 1.2 on, and this worker none before",
    "enable TLS 1.2 or 1.3 there",
)
_OTHER_HOST = ("it does not know this host name", "name in {url} the host that its certificate is for")
_REFUSES = ("it refuses the TLS handshake", "it {may_want}, or have no cipher of ours; see its log")
# By OpenSSL's reasons.
_FAILED: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"), _NO_TLS
    ),
    **dict.fromkeys(
        ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION", "VERSION_TOO_LOW"),
        _OTHER_VERSION,
    ),
    **dict.fromkeys(("SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV1_ALERT_INSUFFICIENT_SECURITY"), _REFUSES),
    "TLSV1_UNRECOGNIZED_NAME": _OTHER_HOST,
}
# What a server says of a client's certificate; where it was shown none, each means that it wants one.
_OF_OURS: Mapping[str, str] = {
    "SSLV3_ALERT_BAD_CERTIFICATE": "",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": ": it has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": ": it is revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": ": it is of a kind that it does not take",
    "TLSV1_ALERT_ACCESS_DENIED": ": it gives it no access",
    "TLSV1_ALERT_UNKNOWN_CA": ": it does not know the authority that signed it",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "",
}
_OWN = "name one that it accepts, and its key, in {own}"
_RENEW = "put one that it accepts into {own}"
_SCHEMES = {"lcm": ("ws", "wss"), "broker": ("amqp", "amqps")}


@dataclass(frozen=True, slots=True)
class TlsFault:
    """What is wrong, and the remedy. `refused` where the server, or we, would not have the other as who it is."""

    why: str
    remedy: str
    refused: bool = False


class TlsFaults:
    """Explains what keeps connections from being opened with the files of a section, `lcm` or `broker`.

    `url` is the setting or option that has the address, where it is not that of the section, with its two schemes.
    """

    def __init__(
        self, section: str, files: Certificates, *, url: str = "", schemes: tuple[str, str] | None = None
    ) -> None:
        self._has_own = bool(files.cert_file)
        plain, encrypted = schemes or _SCHEMES[section]
        usual = (", usually 5672", ", usually 5671") if plain == "amqp" else ("", "")
        own = f"{section}.cert_file"
        self._names = {
            "plain": plain,
            "encrypted": encrypted,
            "usual_plain": usual[0],
            "usual_tls": usual[1],
            "url": url or f"{section}.url",
            "ca_file": f"{section}.ca_file",
            "now": f"which is {files.ca_file}" if files.ca_file else "in place of the system's authorities",
            "own": f"{own} and {section}.key_file",
            "may_want": f"may not accept {own}" if self._has_own else f"may ask for a certificate ({own})",
        }

    def of(self, error: ssl.SSLError) -> TlsFault:
        """Explain an error of OpenSSL's."""
        reason = getattr(error, "reason", None) or ""  # an error of asyncio's own has none
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate does not verify: {error.verify_message.rstrip('.')}"
            remedy = _UNVERIFIED.get(error.verify_code, "see {ca_file}, {now}")
            return self._fault(why, remedy, refused=True)
        if reason in _OF_OURS:
            return self._of_ours(_OF_OURS[reason])
        if isinstance(error, ssl.SSLEOFError):
            return self.closed(is_open=False)
        said = reason.lower().replace("_", " ") or str(error)
        other = (f"the TLS handshake failed: {said}", "see the TLS settings and the log of that server")
        return self._fault(*_FAILED.get(reason, other))

    def closed(self, *, is_open: bool) -> TlsFault:
        """Explain an end without a word, in the handshake or, with `is_open`, behind it.

        A TLS 1.3 client has ended its handshake before the server has looked at the client's certificate.
        """
        when, other = ("right after", "") if is_open else ("in", ", or speak no TLS, or none from 1.2 on")
        return self._fault(
            f"it closed the connection without a word {when} the TLS handshake",
            f"it {{may_want}}{other}; see its log, and whether {{url}} names its port with TLS",
        )

    def late(self) -> TlsFault:
        """Explain a handshake that was not over in time."""
        return self._fault(
            "the TLS handshake was not over by then", "see whether {url} names the port with TLS{usual_tls}"
        )

    def spoken(self) -> TlsFault:
        """Explain a server that answers in TLS to somebody who does not speak it."""
        return self._fault(
            "it speaks TLS", "write {encrypted}:// in {url}, or name the port without TLS{usual_plain}"
        )

    def _of_ours(self, why: str) -> TlsFault:
        if not self._has_own:
            return self._fault("it requires a certificate of its clients", _OWN, refused=True)
        return self._fault(f"it refuses our certificate{why}", _RENEW, refused=True)

    def _fault(self, why: str, remedy: str, *, refused: bool = False) -> TlsFault:
        return TlsFault(why, remedy.format(**self._names), refused)
