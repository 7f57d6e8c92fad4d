"""TLS for clients, the same for LCM and the broker."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from worker.contract.errors import SettingsError
from worker.settings.secret_file import SecretFile, read_secret

_AGAIN_AFTER = 1.0


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


def client_context(files: Certificates) -> ssl.SSLContext:
    """Return a context that verifies the server, by `ca_file` or the system's authorities.

    Not the library's default one, which obeys SSLKEYLOGFILE: whoever sets that could read all that is sent.

    Raises:
        SettingsError: a file can't be read as what it should be.
    """
    told: list[str] = []

    def password() -> str:
        told.append(_key_password(files.key_password_file))
        return told[0]

    try:
        # It verifies the server's certificate and its name, and speaks TLS 1.2 or later.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if files.ca_file:
            context.load_verify_locations(files.ca_file)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if files.cert_file:
            context.load_cert_chain(files.cert_file, files.key_file or None, password)
    except (OSError, ValueError) as error:
        named = ", ".join(name for name in (files.ca_file, files.cert_file, files.key_file) if name)
        hint = "; the password of key_password_file may be another key's" if told else ""
        raise SettingsError(f"TLS files can't be used ({named}): {error}{hint}") from error
    return context


def _key_password(file: SecretFile) -> str:
    """Return the password of an encrypted key; without this, OpenSSL would ask for it on the terminal."""
    if not file:
        raise ValueError("the key is encrypted: name the file that holds its password in key_password_file")
    try:
        secret = read_secret(file)
    except ValueError as error:
        raise ValueError(f"key_password_file {error} ({file})") from error
    file.hold(secret)
    return secret


@dataclass(frozen=True, slots=True)
class Tls:
    """A context, and a digest of the files that it was made of."""

    context: ssl.SSLContext
    digest: str


def load_tls(files: Certificates, before: Tls | None = None) -> Tls:
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
        return Tls(client_context(files), digest)
    except SettingsError:
        time.sleep(_AGAIN_AFTER)
    digest = _digest_of(files)
    return Tls(client_context(files), digest)


def _digest_of(files: Certificates) -> str:
    """Return the same text only for the same contents; a file that can't be read is one without any."""
    digest = sha256()
    for name in (files.ca_file, files.cert_file, files.key_file, files.key_password_file):
        try:
            content = Path(name).read_bytes() if name else b""
        except OSError:
            content = b""  # whoever makes a context of it says what is wrong
        digest.update(sha256(content).digest())
    return digest.hexdigest()
