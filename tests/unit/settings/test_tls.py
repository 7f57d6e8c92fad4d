"""A client's TLS: whom it trusts, who it says that it is, and what is said of files that can't be used."""

from __future__ import annotations

import ssl
from base64 import b64decode
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority, encrypted
from worker.contract.errors import SettingsError
from worker.settings.secret_file import SecretFile
from worker.settings.tls import client_context, load_tls


@dataclass(frozen=True)
class Files:
    """The files that a settings section names."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    key_password_file: SecretFile = field(default_factory=SecretFile)


def test_keys_are_logged_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable by which libraries write the keys of all connections to a file changes nothing."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert client_context("lcm", Files()).keylog_filename is None
    assert list(tmp_path.iterdir()) == []


def test_nothing_older_than_tls_1_2_is_spoken() -> None:
    """TLS 1.0 and 1.1 are broken: a server that speaks no more than these is refused."""
    assert client_context("lcm", Files()).minimum_version >= ssl.TLSVersion.TLSv1_2


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str = "127.0.0.1") -> ssl.SSLObject:
    """Make a TLS connection in memory, and return the server's end of it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    while waiting:
        end = waiting.pop(0)
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(end)
    return ends[1]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give an authority that the system does not know."""
    return Authority(tmp_path)


def test_a_server_is_verified_by_the_authority_that_is_named(authority: Authority) -> None:
    """`ca_file` lets in the servers whose certificates it has signed, under their own name alone."""
    context = client_context("lcm", Files(ca_file=authority.file))
    assert shake_hands(context, authority.server_context()).version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="localhost"):
        shake_hands(context, authority.server_context(), "localhost")


def test_a_server_of_another_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    """Neither another `ca_file` nor the system's authorities let in a server that they don't vouch for."""
    for files in (Files(ca_file=Authority(tmp_path, "another").file), Files()):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(client_context("lcm", files), authority.server_context())


@pytest.mark.parametrize("in_one_file", [False, True])
def test_a_client_shows_its_certificate(authority: Authority, tmp_path: Path, in_one_file: bool) -> None:
    """A server that asks for one gets the certificate of `cert_file`, whose key may stand in the same file."""
    mine = authority.issue("worker-1")
    files = Files(authority.file, mine.certificate, mine.key)
    if in_one_file:
        both = tmp_path / "both.pem"
        both.write_text(Path(mine.certificate).read_text() + Path(mine.key).read_text())
        files = Files(authority.file, str(both))
    server = authority.server_context()
    server.load_verify_locations(authority.file)
    server.verify_mode = ssl.CERT_REQUIRED
    shown = shake_hands(client_context("lcm", files), server).getpeercert()
    assert shown is not None
    assert shown["subject"] == ((("commonName", "worker-1"),),)


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize("kind", ["missing", "a folder", "no certificate"])
def test_a_file_that_cannot_be_used_is_named(
    authority: Authority, tmp_path: Path, name: str, kind: str
) -> None:
    """A file that isn't there, can't be read or holds something else is a wrong setting that names the file."""
    odd = tmp_path / "odd.pem"
    if kind == "a folder":
        odd.mkdir()
    elif kind == "no certificate":
        odd.write_text("no certificate\n")
    mine = authority.issue("worker-1")
    odd_one: dict[str, Any] = {name: str(odd)}
    files = replace(Files(authority.file, mine.certificate, mine.key), **odd_one)
    with pytest.raises(SettingsError, match=rf"^lcm\.{name} can't be used: .* \(.*odd\.pem\); ") as raised:
        client_context("lcm", files)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_a_file_has_so_many_bytes(authority: Authority, tmp_path: Path, name: str) -> None:
    """A file of more than 1 MiB is not read to its end, whatever it begins with."""
    own = authority.issue("worker-1")
    files = Files(authority.file, own.certificate, own.key)
    large = tmp_path / "large.pem"
    large.write_bytes(Path(getattr(files, name)).read_bytes().ljust(2**20, b"\n"))
    named: dict[str, Any] = {name: str(large)}
    assert load_tls("lcm", replace(files, **named)).context is not None
    with large.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(
        SettingsError, match=rf"^lcm\.{name} can't be used: holds more than 1 MiB \(.*large\.pem\); see"
    ):
        load_tls("lcm", replace(files, **named))


def test_an_encrypted_key_is_opened_by_the_password_of_its_file(authority: Authority, tmp_path: Path) -> None:
    """The password is read anew with the key; without it, or with another, the text says so, and nobody is asked."""
    mine = authority.issue("worker-1")
    key, password = encrypted(mine.key, "0pen sesame"), tmp_path / "key-password"
    password.write_text("0pen sesame\n")
    files = Files(authority.file, mine.certificate, key, SecretFile.read(str(password)))
    shake_hands(client_context("lcm", files), authority.server_context())
    with pytest.raises(
        SettingsError,
        match=r"key_file can't be used: the key is encrypted \(.*\); name the file .* key_password_file",
    ):
        client_context("lcm", Files(authority.file, mine.certificate, key))
    password.write_text("changed")
    with pytest.raises(
        SettingsError, match=r"the password of key_password_file \(.*key-password\) does not open the key"
    ) as raised:
        client_context("lcm", files)
    assert "changed" not in str(raised.value)
    assert [secret.get_secret_value() for secret in files.key_password_file.held] == [
        "changed",
        "0pen sesame",
    ]
    password.unlink()
    with pytest.raises(
        SettingsError, match=r"lcm.key_password_file can't be used: No such file .*key-password"
    ):
        client_context("lcm", files)


@pytest.mark.parametrize("key_of", ["nobody", "another"])
def test_a_certificate_needs_its_own_key(authority: Authority, key_of: str) -> None:
    """A certificate without a key, or with that of another certificate, is a wrong setting that names the file."""
    mine, another = authority.issue("worker-1"), authority.issue("worker-2")
    files = Files(authority.file, mine.certificate, "" if key_of == "nobody" else another.key)
    told = {
        "nobody": r"^lcm\.cert_file can't be used: the file holds no private key in PEM \(.*worker-1\.pem\); ",
        "another": r"^lcm\.key_file can't be used: the key is not that of the certificate .* \(.*worker-2\.key\); ",
    }
    with pytest.raises(SettingsError, match=told[key_of]):
        client_context("lcm", files)


def test_a_context_is_kept_for_as_long_as_the_files_are_the_same(authority: Authority) -> None:
    """What is written anew with the same contents changes nothing; anything else does."""
    mine = authority.issue("worker-1")
    files = Files(authority.file, mine.certificate, mine.key)
    first = load_tls("lcm", files)
    Path(mine.key).write_bytes(Path(mine.key).read_bytes())
    assert load_tls("lcm", files, first) is first
    authority.issue("worker-1")
    assert load_tls("lcm", files, first).context is not first.context


def test_files_that_are_being_replaced_are_read_again(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate whose key is not there yet, or is another one's, counts only if it is so after a second."""
    mine, another = authority.issue("worker-1"), authority.issue("worker-2")
    files = Files(authority.file, mine.certificate, another.key)
    waits = list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > 1:
            Path(another.key).write_bytes(Path(mine.key).read_bytes())

    monkeypatch.setattr("worker.settings.tls.time.sleep", sleep)
    with pytest.raises(SettingsError, match=r"worker-2\.key"):
        load_tls("lcm", files)
    assert load_tls("lcm", files).context is not None
    assert waits == [1, 1]


CUT, DER = "whole, then cut", "DER"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("ca_file", CUT, "the file is damaged"),
        ("cert_file", CUT, "the file is damaged"),
        ("key_file", CUT, "the file is damaged"),
        (
            "ca_file",
            DER,
            "the file holds no certificate in PEM .* convert it from DER: `openssl x509 -inform der`",
        ),
        (
            "key_file",
            DER,
            "the file holds no private key in PEM .* convert it from DER: `openssl pkey -inform der`",
        ),
        ("ca_file", "key_file", "the file holds no certificate in PEM"),
        ("cert_file", "key_file", "the file holds no certificate in PEM"),
        ("key_file", "cert_file", "the file holds no private key in PEM"),
    ],
)
def test_a_file_with_other_contents(
    authority: Authority, tmp_path: Path, name: str, content: str, told: str
) -> None:
    """What is damaged, or holds something else, is told by the setting, with what it should hold."""
    mine = authority.issue("worker-1")
    files = Files(authority.file, mine.certificate, mine.key)
    whole = Path(getattr(files, name)).read_bytes()
    odd = tmp_path / "odd.pem"
    if content == CUT:
        odd.write_bytes(whole[: len(whole) // 2])
    elif content == DER:
        odd.write_bytes(b64decode(b"".join(whole.splitlines()[1:-1])))
    else:
        odd.write_bytes(Path(getattr(files, content)).read_bytes())
    odd_one: dict[str, Any] = {name: str(odd)}
    with pytest.raises(SettingsError, match=rf"^lcm\.{name} can't be used: {told}") as raised:
        client_context("lcm", replace(files, **odd_one))
    assert str(odd) in str(raised.value)


def test_an_authority_without_key_usage(tmp_path: Path) -> None:
    """On every Python, also on those whose own default is strict: many a company's authority is so made."""
    authority = Authority(tmp_path, usage="")
    context = client_context("lcm", Files(authority.file))
    assert shake_hands(context, authority.server_context()).version() == "TLSv1.3"
