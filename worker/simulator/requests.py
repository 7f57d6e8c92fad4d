"""What the simulated LCM accepts: the one documented request, to the letter, a login, and credentials."""

from __future__ import annotations

import base64
import binascii
import hmac
from fnmatch import fnmatchcase
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import msgspec


class _Data(msgspec.Struct, forbid_unknown_fields=True, rename={"account": "AccountNumber"}):
    account: str


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    channel: Literal["LCM"]
    topic: Literal["WebService"]
    subtopic: Literal["SetCallOutComeOffline"]
    data: _Data


class _Addressed(msgspec.Struct):
    channel: Literal["LCM"]
    subtopic: str


_request = msgspec.json.Decoder(_Request).decode
_addressed = msgspec.json.Decoder(_Addressed).decode


def name_in(path: str) -> str | None:
    """Return the `name` query parameter of a handshake's path."""
    return parse_qs(urlsplit(path).query).get("name", [None])[0]


def account_of(message: str | bytes) -> str:
    """Return the account number of a request. Raises ValueError, which tells the mistake, for anything else."""
    if isinstance(message, bytes):
        raise ValueError("the request is a binary message")  # noqa: TRY004 -- the peer's doing
    try:
        return _request(message).data.account
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(f"not a SetCallOutComeOffline request: {exc}") from exc


def is_login(message: str | bytes, subtopic: str) -> bool:
    """Tell whether a message is the login that the behaviour asks for; an empty subtopic asks for none."""
    if not subtopic or isinstance(message, bytes):
        return False
    try:
        return _addressed(message).subtopic == subtopic
    except (msgspec.DecodeError, RecursionError):
        return False


def is_authorized(credentials: str, authorization: str) -> bool:
    """Tell whether an Authorization header holds `user:password`; user `*` matches any user, `""` no header."""
    if not credentials:
        return True
    scheme, _, encoded = authorization.partition(" ")
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except binascii.Error:
        return False
    user, _, password = given.decode(errors="replace").partition(":")
    wanted_user, _, wanted_password = credentials.partition(":")
    same_password = hmac.compare_digest(password.encode(), wanted_password.encode())
    return scheme.lower() == "basic" and fnmatchcase(user, wanted_user) and same_password
