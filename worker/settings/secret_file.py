"""A file that holds a secret, and may be replaced at any time; what it held before stays known, to be masked."""

import time
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from worker.settings.files import check_file, read_whole

_REMEMBERED = 8
_AGAIN_AFTER = 1.0


class SecretFile(str):
    """The path of a file that holds a secret, with the last values that it held, the newest first."""

    __slots__ = ("held",)
    held: tuple[SecretStr, ...]

    def __new__(cls, path: str = "", secret: str = "") -> Self:
        file = super().__new__(cls, path)
        file.held = (SecretStr(secret),) if secret else ()
        return file

    @classmethod
    def read(cls, path: object) -> Self:
        """Read the secret; an empty path is no secret.

        Raises:
            ValueError: there is no such file, or it can't be read, or holds no secret.
        """
        if not isinstance(path, str):
            raise ValueError("must be the path of a file, in quotes")  # noqa: TRY004 - pydantic asks for it
        if not path:
            return cls()
        check_file(path)
        return cls(path, read_secret(path))

    @property
    def secret(self) -> SecretStr:
        """What the file held when it was read last."""
        return self.held[0] if self.held else SecretStr("")

    def hold(self, secret: str) -> None:
        """Take note of what it holds now."""
        if secret != self.secret.get_secret_value():
            self.held = (SecretStr(secret), *self.held)[:_REMEMBERED]


def read_secret(path: str) -> str:
    """Return the secret in a file, without a byte order mark, and without blanks and line breaks at its end.

    An empty file is read again after a second: somebody may be about to write it.

    Raises:
        ValueError: there is no such file, or it can't be read, or holds no secret.
    """
    secret = _text_of(path)
    if not secret:
        time.sleep(_AGAIN_AFTER)
        secret = _text_of(path)
    if not secret:
        raise ValueError("holds no secret: the file is empty")
    return secret


def _text_of(path: str) -> str:
    try:
        return read_whole(Path(path)).decode("utf-8-sig").rstrip()
    except UnicodeDecodeError:
        raise ValueError("can't be read: it is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror}") from error
