"""An authority of the test's own and the certificates that it signs, made by openssl."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

_NEW = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"


class Identity(NamedTuple):
    """The files of a certificate and of its key."""

    certificate: str
    key: str


class Authority:
    """Signs certificates, in a folder of the test's."""

    def __init__(
        self, folder: Path, name: str = "authority", *, names: Sequence[str] = ("IP:127.0.0.1",)
    ) -> None:
        self._folder = folder
        self._names = ",".join(names)
        self._own = self._make(name, "keyUsage=critical,keyCertSign")

    @property
    def file(self) -> str:
        """The authority's own certificate, by which those that it signs are verified."""
        return self._own.certificate

    def issue(self, name: str) -> Identity:
        """Make a certificate for the names that this authority vouches for."""
        signed = ("-CA", self._own.certificate, "-CAkey", self._own.key)
        return self._make(
            name, "basicConstraints=critical,CA:FALSE", f"subjectAltName={self._names}", options=signed
        )

    def server_context(self) -> ssl.SSLContext:
        """Return what a server at 127.0.0.1 needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue("server"))
        return context

    def _make(self, name: str, *extensions: str, options: Sequence[str] = ()) -> Identity:
        made = Identity(str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key"))
        files = ("-out", made.certificate, "-keyout", made.key)
        added = chain.from_iterable(("-addext", extension) for extension in extensions)
        command = (*_NEW.split(), "-subj", f"/CN={name}", *added, *options, *files)
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own words
        return made
