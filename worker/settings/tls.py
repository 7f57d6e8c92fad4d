"""TLS for clients, the same for LCM and the broker."""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

from worker.contract.errors import SettingsError
from worker.settings.files import read_whole
from worker.settings.secret_file import SecretFile, read_secret

_AGAIN_AFTER = 1.0
_DER = b"0"  # the first byte of a sequence
_OTHER_KEY = "KEY_VALUES_MISMATCH"


class _Kind(NamedTuple):
    """What a file must hold: by name, how it begins in PEM, and OpenSSL's command for it."""

    name: str
    begins: re.Pattern[bytes]
    tool: str


_CERTIFICATE = _Kind("certificate", re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----"), "x509")
_KEY = _Kind("private key", re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"), "pkey")


class Certificates(Protocol):
    """The part of a settings section that names certificate files; empty where there is none."""

    @property
    def ca_file(self) -> str: ...
    @property
    def cert_file(self) -> str: ...
    @property
    def key_file(self) -> str: ...
    @property
    def key_password_file(self) -> SecretFile: ...


def client_context(section: str, files: Certificates) -> ssl.SSLContext:
    """Return a context that verifies the server, by `ca_file` or the system's authorities.

    Raises:
        SettingsError: a file of the section can't be used as what it should be; the text names the setting.
    """
    context = _empty_context() if files.ca_file else system_context()
    try:
        if files.ca_file:
            _check("ca_file", files.ca_file, _CERTIFICATE)
            with _damaged("ca_file", files.ca_file):
                context.load_verify_locations(files.ca_file)
        if files.cert_file:
            _load_own(context, files)
    except _Unusable as error:
        raise SettingsError(f"{section}.{error}") from error
    return context


def system_context() -> ssl.SSLContext:
    """Return a context that verifies a server by the system's authorities."""
    context = _empty_context()
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def log_no_keys() -> None:
    """Have libraries that make contexts of their own, as the exporter of traces does, log no keys either."""
    os.environ.pop("SSLKEYLOGFILE", None)


def _empty_context() -> ssl.SSLContext:
    """Return a context that trusts nobody yet. It verifies a server's name, too, and speaks TLS 1.2 or later.

    Not the library's default one, which obeys SSLKEYLOGFILE: whoever sets that could read all that is sent.
    """
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Unusable(Exception):
    """A file can't be used: which setting, which file, why, and what to do."""

    def __init__(self, setting: str, file: str, why: str, remedy: str) -> None:
        super().__init__(f"{setting} can't be used: {why} ({file}); {remedy}")


def _load_own(context: ssl.SSLContext, files: Certificates) -> None:
    """Load the certificate and the key by which a server knows us. Raises _Unusable."""
    holder = ("key_file", files.key_file) if files.key_file else ("cert_file", files.cert_file)
    _check("cert_file", files.cert_file, _CERTIFICATE)
    _check(*holder, _KEY)
    with _damaged("cert_file", files.cert_file):
        _empty_context().load_verify_locations(files.cert_file)
    told: list[str] = []

    def password() -> str:
        told.append(_key_password(*holder, files.key_password_file))
        return told[0]

    try:
        with _damaged(*holder):
            context.load_cert_chain(files.cert_file, files.key_file or None, password)
    except _Unusable as error:
        if told and getattr(error.__cause__, "reason", None) != _OTHER_KEY:
            why = f"the password of key_password_file ({files.key_password_file}) does not open the key"
            raise _Unusable(*holder, why, "put the password of this key there") from error
        raise


def _check(setting: str, file: str, kind: _Kind) -> None:
    """Check that a file can be read, and holds at least one part of a kind in PEM. Raises _Unusable."""
    try:
        content = read_whole(Path(file))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _Unusable(setting, file, why, "see the file and its permissions") from error
    if not kind.begins.search(content):
        is_der = content[:1] == _DER
        remedy = f"convert it from DER: `openssl {kind.tool} -inform der`" if is_der else "put one there"
        raise _Unusable(setting, file, f"the file holds no {kind.name} in PEM", remedy)


@contextmanager
def _damaged(setting: str, file: str) -> Iterator[None]:
    """Tell what OpenSSL says of a file. Raises _Unusable."""
    try:
        yield
    except ssl.SSLError as error:
        if error.reason == _OTHER_KEY:
            why, remedy = (
                "the key is not that of the certificate in cert_file",
                "put both there from the same renewal",
            )
        elif not error.reason:  # from its library for PEM
            why, remedy = "the file is damaged, or of an unknown form", "put a whole one there"
        else:
            why, remedy = (
                error.reason.lower().replace("_", " "),
                "put one there that OpenSSL takes",
            )
        raise _Unusable(setting, file, why, remedy) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _Unusable(setting, file, why, "see the file") from error


def _key_password(setting: str, key: str, file: SecretFile) -> str:
    """Return the password of an encrypted key; without this, OpenSSL would ask for it on the terminal."""
    if not file:
        raise _Unusable(
            setting, key, "the key is encrypted", "name the file that holds its password in key_password_file"
        )
    try:
        secret = read_secret(file)
    except ValueError as error:
        raise _Unusable(
            "key_password_file",
            file,
            str(error).removeprefix("can't be read: "),
            "see the file and its permissions",
        ) from error
    file.hold(secret)
    return secret


@dataclass(frozen=True, slots=True)
class Tls:
    """A context, and a digest of the files that it was made of."""

    context: ssl.SSLContext
    digest: str


def load_tls(section: str, files: Certificates, before: Tls | None = None) -> Tls:
    """Return the context of what the files hold now: the one from before, where that is the same.

    What can't be used, such as a certificate and a key that don't belong together, is read again after a second:
    somebody may be replacing one after the other.

    Raises:
        SettingsError: a file can't be read as what it should be.
    """
    digest = _digest_of(files)
    if before is not None and digest == before.digest:
        return before
    try:
        return Tls(client_context(section, files), digest)
    except SettingsError:
        time.sleep(_AGAIN_AFTER)
    digest = _digest_of(files)
    return Tls(client_context(section, files), digest)


def _digest_of(files: Certificates) -> str:
    """Return the same text only for the same contents; a file that can't be read is one without any."""
    digest = sha256()
    for name in (files.ca_file, files.cert_file, files.key_file, files.key_password_file):
        try:
            content = read_whole(Path(name)) if name else b""
        except (OSError, ValueError):
            content = b""  # whoever makes a context of it says what is wrong
        digest.update(sha256(content).digest())
    return digest.hexdigest()
