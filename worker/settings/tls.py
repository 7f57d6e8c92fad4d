"""TLS for clients, the same for LCM and the broker."""

from __future__ import annotations

import ssl
from typing import Protocol

from worker.contract.errors import SettingsError


class Certificates(Protocol):
    """The part of a settings section that names certificate files; empty where there is none."""

    @property
    def ca_file(self) -> str: ...
    @property
    def cert_file(self) -> str: ...
    @property
    def key_file(self) -> str: ...


def client_context(files: Certificates) -> ssl.SSLContext:
    """Return a context that verifies the server, by `ca_file` or the system's authorities.

    Raises:
        SettingsError: a file can't be read as what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=files.ca_file or None)
        if files.cert_file:
            context.load_cert_chain(files.cert_file, files.key_file or None)
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(name for name in (files.ca_file, files.cert_file, files.key_file) if name)
        raise SettingsError(f"TLS files can't be used ({named}): {error}") from error
    return context
