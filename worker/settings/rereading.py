"""Reads the files that a section names anew, at each opening of a connection: secrets expire, certificates are renewed.

A file system may hang. So files are read in a thread, with a deadline: a daemon thread, which does not hold up the
end of the process, and one at a time, however many ask.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Protocol

from worker.common.threads import in_thread
from worker.contract.errors import SettingsError
from worker.settings.secret_file import SecretFile, read_secret
from worker.settings.tls import Certificates, Tls, load_tls

_DEADLINE = 5.0


class Files(Certificates, Protocol):
    """The part of a settings section that names files; empty where there is none."""

    @property
    def password_file(self) -> SecretFile: ...


@dataclass(frozen=True, slots=True)
class _Contents:
    secret: str
    tls: Tls | None


class Rereader:
    """Reads the files of one section: its certificates where `tls`, and its secret, which goes into `password_file`.

    Raises SettingsError where the certificates can't be used: at the start that is a wrong setting.
    """

    def __init__(self, section: str, files: Files, *, tls: bool) -> None:
        self._section = section
        self._files = files
        self._tls = load_tls(section, files) if tls else None
        self._reading: asyncio.Future[_Contents] | None = None

    async def __call__(self) -> ssl.SSLContext | None:
        """Return the context for TLS, None where there is no TLS.

        Raises:
            SettingsError: a file can't be read as what it should be, or not in time; the text names it.
        """
        files = self._files
        if files.password_file or files.ca_file or files.cert_file:
            await self._renew()
        return None if self._tls is None else self._tls.context

    async def _renew(self) -> None:
        if self._reading is None or self._reading.done():
            self._reading = self._start()
        reading = self._reading  # by the time that it has ended, another may have begun
        done, _ = await asyncio.wait({reading}, timeout=_DEADLINE)
        if not done:
            raise SettingsError(f"the files of [{self._section}] can't be read within {_DEADLINE:g} s")
        contents = reading.result()
        self._tls = contents.tls
        if contents.secret:
            self._files.password_file.hold(contents.secret)

    def _start(self) -> asyncio.Future[_Contents]:
        try:
            return in_thread(self._read, f"read-{self._section}-files")
        except RuntimeError as error:
            raise SettingsError(f"the files of [{self._section}] can't be read: {error}") from error

    def _read(self) -> _Contents:
        secret, file = "", self._files.password_file
        if file:
            try:
                secret = read_secret(file)
            except ValueError as error:
                raise SettingsError(f"{self._section}.password_file {error} ({file})") from error
        return _Contents(
            secret, None if self._tls is None else load_tls(self._section, self._files, self._tls)
        )
