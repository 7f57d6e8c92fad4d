"""An authority of the test's own and the certificates that it signs, made by openssl."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

_NEW = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"


# `req` makes no certificate of the past or the future.
_DATED = """[ca]
default_ca = here
[here]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
[signed]
subjectAltName = {names}
"""


class Identity(NamedTuple):
    """The files of a certificate and of its key."""

    certificate: str
    key: str


class Authority:
    """Signs certificates, in a folder of the test's."""

    def __init__(
        self,
        folder: Path,
        name: str = "authority",
        *,
        names: Sequence[str] = ("IP:127.0.0.1",),
        usage: str = "keyUsage=critical,keyCertSign",
    ) -> None:
        self._folder = folder
        self._names = ",".join(names)
        self._own = self._make(name, *filter(None, [usage]))

    @property
    def file(self) -> str:
        """The authority's own certificate, by which those that it signs are verified."""
        return self._own.certificate

    def issue(self, name: str, *extensions: str) -> Identity:
        """Make a certificate for the names that this authority vouches for, or with these extensions instead."""
        signed = ("-CA", self._own.certificate, "-CAkey", self._own.key)
        chosen = extensions or (f"subjectAltName={self._names}",)
        return self._make(name, "basicConstraints=critical,CA:FALSE", *chosen, options=signed)

    def issue_for(self, name: str, years: tuple[int, int]) -> Identity:
        """Make a certificate that is valid from the beginning of one year to that of another."""
        made, folder = self.issue(name), self._folder / f"{name}.ca"
        folder.mkdir()
        (folder / "index.txt").touch()
        (folder / "ca.cnf").write_text(_DATED.format(folder=folder, names=self._names))
        request = str(folder / "request")
        _openssl("req", "-new", "-key", made.key, "-subj", f"/CN={name}", "-out", request)
        start, end = (f"{year}0101000000Z" for year in years)
        dates = ("-startdate", start, "-enddate", end)
        signer = ("-cert", self._own.certificate, "-keyfile", self._own.key)
        files = ("-config", str(folder / "ca.cnf"), "-in", request, "-out", made.certificate)
        _openssl("ca", "-batch", "-notext", "-extensions", "signed", *dates, *signer, *files)
        return made

    def self_signed(self, name: str) -> Identity:
        """Make a certificate for the same names that no authority has signed."""
        return self._make(name, f"subjectAltName={self._names}")

    def server_context(self, identity: Identity | None = None, *, demanding: bool = False) -> ssl.SSLContext:
        """Return what a server at 127.0.0.1 needs; `demanding` a certificate of this authority from its clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*(identity or self.issue("server")))
        if demanding:
            context.load_verify_locations(self.file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _make(self, name: str, *extensions: str, options: Sequence[str] = ()) -> Identity:
        made = Identity(str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key"))
        files = ("-out", made.certificate, "-keyout", made.key)
        added = chain.from_iterable(("-addext", extension) for extension in extensions)
        _openssl(*_NEW.split(), "-subj", f"/CN={name}", *added, *options, *files)
        return made


def encrypted(key: str, password: str) -> str:
    """Encrypt a key; return the file."""
    file = f"{key}.encrypted"
    _openssl("pkcs8", "-topk8", "-in", key, "-out", file, "-passout", f"pass:{password}")
    return file


def _openssl(*arguments: str) -> None:
    command = ("openssl", *arguments)
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own words
