"""Opening a session: who we are, how we get there, what is offered, greetings, and a goodbye."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.support.certificates import Authority
from tests.support.lcm import ACCOUNT, SAMPLE, Ends, answering, good, names, opened, peer
from tests.support.settings import lcm_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from tests.support.wire.raw_frames import RawConversation
from tests.support.wire.swallowing import resolve, swallowing
from worker.contract.errors import LcmError, SessionNotOpened, SettingsError
from worker.lcm.handshake import SessionOpener
from worker.simulator import documents
from worker.simulator.server import Behaviour, Simulator

LOGIN = {"channel": "LCM", "topic": "WebService", "subtopic": "Login"}


async def refusal(url: str, **settings: Any) -> SessionNotOpened:
    """Return the error with which no session opens."""
    with pytest.raises(SessionNotOpened) as raised:
        async with opened(url, **settings):
            pass
    return raised.value


async def test_an_exchange() -> None:
    """A session asks, in the documented form, and gives the outcomes as LCM said them; any number of times."""
    async with Simulator() as lcm, opened(lcm.url) as session:
        for account in (ACCOUNT, '5|"ü"|'):
            items = await session.exchange(account, 10)
            assert len(items) == 50
            assert names(items, account)
        assert (session.exchanges, session.answered, session.alive) == (2, 2, True)
        assert repr(session) == "<Session 1 idle, 2 exchanges>"
        assert (lcm.violations, lcm.max_in_flight) == (0, 1)


async def test_a_goodbye() -> None:
    """Closing an idle session takes leave of the peer, and is told once as our own doing."""
    ends = Ends()
    async with Simulator() as lcm:
        async with opened(lcm.url, ends) as session:
            pass
        assert ends.reasons == ["closed by us"]
        assert (session.ended_by_us, session.alive) == (True, False)
        await until(lambda: lcm.live == 0)


@pytest.mark.parametrize(
    ("fault", "refused", "words"),
    [("unauthorized", True, "HTTP 401"), ("unavailable", False, "HTTP 503")],
)
async def test_the_status_of_the_handshake_decides(fault: str, refused: bool, words: str) -> None:
    """A 401 means that LCM does not want us, for which insisting is no remedy; a 503 may pass."""
    async with Simulator(Behaviour(faults={fault: 1})) as lcm:
        error = await refusal(lcm.url)
        assert (error.refused, words in str(error), f":{lcm.port}" in str(error)) == (refused, True, True)


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 100\r\n\r\nbusy",
        b"Transfer-Encoding: chunked\r\n\r\nfff\r\nbusy",
        b"\r\n",
        b"Content-Length: 4\r\n\r\nbusy",
        b"Transfer-Encoding: gzip\r\n\r\n",
        b"Server: x",
    ],
)
async def test_a_status_is_told_whatever_becomes_of_the_body(body: bytes) -> None:
    """An answer whose body never ends, can't be read, or whose headers never end: the error has the status."""
    async with answering(b"HTTP/1.1 503 Busy\r\nRetry-After: 86400\r\n" + body) as at:
        ends = b"\r\n\r\n" in body or body == b"\r\n"
        error = await refusal(f"ws://{at}/", connect_timeout=60 if ends else 0.2)
        assert "it answered HTTP 503, asking for a pause of 86400 s" in str(error)
        assert (error.refused, error.pause) == (False, 600)


async def test_a_proxy_that_fails_is_named() -> None:
    """Where it is the proxy that can't be reached, refuses or does not answer, the error says so, and no password."""
    async with Simulator() as lcm:
        proxy = f"http://me:t0psecret@127.0.0.1:{lcm.port}"
    named = f"the proxy 127.0.0.1:{lcm.port} (lcm.proxy): "
    error = await refusal("ws://lcm.test/", proxy=proxy)
    assert (named in str(error), "t0psecret" in str(error)) == (True, False)
    error = await refusal("ws://lcm.test/", proxy="http://nowhere.invalid")
    assert "the proxy nowhere.invalid:80 (lcm.proxy): " in str(error)
    for head, words, refused in (
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 9\r\n\r\n", "HTTP 407", True),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "HTTP 502", False),
        (b"HTTP/1.1 401 No\r\nRetry-After: 5\r\nRetry-After: 9\r\n\r\n", "HTTP 401", True),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "did not receive a valid HTTP response", False),
        (b"", "lcm.connect_timeout", False),
    ):
        async with answering(head) as at:
            error = await refusal("ws://lcm.test/", proxy=f"http://me:t0psecret@{at}", connect_timeout=0.5)
            assert f"the proxy {at} (lcm.proxy): " in str(error)
            assert (words in error.message, error.refused) == (True, refused)
            assert "t0psecret" not in error.message


async def test_lcm_behind_a_proxy_is_named() -> None:
    """Where the proxy has let us through, what fails is LCM's, and the error does not name the proxy."""
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 401 Unauthorized\r\n\r\n") as at:
        error = await refusal("ws://lcm.test/", proxy=f"http://{at}")
        assert (str(error).endswith(": it answered HTTP 401"), error.refused) == (True, True)


async def test_a_redirect_is_not_followed() -> None:
    """Nobody but the LCM of the settings gets credentials and accounts; a proxy would lead anywhere."""
    asked: list[bytes] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: ws://elsewhere.test/\r\n\r\n",
        ):
            asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
            writer.write(answer)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(redirect, "127.0.0.1") as proxy:
        at = proxy.sockets[0].getsockname()
        error = await refusal("ws://lcm.test/", proxy=f"http://127.0.0.1:{at[1]}")
        assert str(error).endswith(": it answered HTTP 307")
        assert asked == [b"lcm.test:80", b"/"]


async def test_a_subprotocol_is_agreed_upon() -> None:
    """LCM may choose of the names that are offered."""

    async def stay(lcm: ServerConnection) -> None:
        chosen.append(lcm.subprotocol)
        await lcm.wait_closed()

    chosen: list[str | None] = []
    spoken = [Subprotocol(name) for name in ("v1", "v2")]
    async with serve(stay, "127.0.0.1", 0, subprotocols=spoken) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for offered in (["v3", "v2"], ["v1"]):
            async with opened(url, subprotocols=offered):
                pass
    assert chosen == ["v2", "v1"]


async def test_no_agreement_on_a_subprotocol() -> None:
    """An LCM that chooses none of those offered, or another one, opens no session, and the error says so."""

    async def stay(lcm: ServerConnection) -> None:
        await lcm.wait_closed()

    async with peer(stay) as url:
        error = await refusal(url, subprotocols=["v1"])
        assert "no agreement on a subprotocol: LCM chose no subprotocol" in error.message
        assert error.message.endswith("; see lcm.subprotocols")

    def choose(_lcm: ServerConnection, _request: Request, response: Response) -> Response:
        response.headers["Sec-WebSocket-Protocol"] = "v9"
        return response

    async with serve(stay, "127.0.0.1", 0, process_response=choose) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for offered, words in (
            (["v1"], "unsupported subprotocol: v9"),
            ([], "chose one, and none was offered"),
        ):
            assert words in (await refusal(url, subprotocols=offered)).message


async def test_nobody_there() -> None:
    """A port on which nobody listens is an outage, and said to be one, with the host and port."""
    async with Simulator() as lcm:
        url = lcm.url
    error = await refusal(url)
    assert not error.refused
    assert "127.0.0.1" in str(error)


async def test_an_address_that_swallows_packets_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall `a name with two addresses, the first swallowing`: a session is opened with the other, by TLS too."""
    authority = Authority(tmp_path, names=("IP:127.0.0.1", "DNS:lcm.test"))
    resolve(monkeypatch, "lcm.test", "127.0.0.2", "127.0.0.1")
    for context, files in ((None, {}), (authority.server_context(), {"ca_file": authority.file})):
        async with Simulator(ssl_context=context) as lcm:
            with swallowing("127.0.0.2", lcm.port):
                url = lcm.url.replace("127.0.0.1", "lcm.test")
                async with opened(url, connect_timeout=60, **files) as session:
                    assert names(await session.exchange(ACCOUNT, 10), ACCOUNT)


async def test_no_session_within_the_timeout() -> None:
    """A peer that accepts the connection and says nothing is given up after `connect_timeout`."""
    async with Simulator() as lcm, Proxy(RawConversation, lcm.url) as proxy:
        proxy.freeze()
        error = await refusal(proxy.url, connect_timeout=0.05)
        assert (error.refused, "lcm.connect_timeout" in str(error)) == (False, True)
        proxy.thaw()
        # A busy proxy accepts it only now, or never.
        await until(lambda: not proxy.connections and proxy.accepted <= 1)


async def test_an_opening_that_is_cancelled_leaves_no_connection() -> None:
    """Cancelled in the handshake, or in the greeting, a session is not left half open."""
    async with Simulator(Behaviour(login="Login")) as lcm, Proxy(RawConversation, lcm.url) as proxy:
        greeting = [{"send": json.dumps(LOGIN), "await": "never"}]
        for frozen in (True, False):
            if frozen:
                proxy.freeze()
            else:
                proxy.thaw()
            settings = lcm_settings(proxy.url, greeting=greeting)
            opening = asyncio.ensure_future(SessionOpener(settings, "w")(1, Ends()))
            await until(lambda: len(proxy.connections) == 1 and (proxy.accepted == 1 or lcm.live == 1))
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            proxy.thaw()
            await until(lambda: not proxy.connections and lcm.live == 0)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall `proxies are taken from the environment by default`: LCM is called upon directly."""
    async with Simulator() as lcm, Proxy(RawConversation, lcm.url) as trap:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "SOCKS_PROXY"):
            for spelled in (name, name.lower()):
                monkeypatch.setenv(spelled, f"http://127.0.0.1:{trap.port}")
        async with opened(lcm.url) as session:
            assert names(await session.exchange(ACCOUNT, 10), ACCOUNT)
        assert trap.accepted == 0
        error = await refusal(lcm.url, proxy=f"http://127.0.0.1:{trap.port}")
        assert not error.refused
        assert trap.accepted == 1


async def test_compression_is_not_offered() -> None:
    """Pitfall `permessage-deflate`: a small frame can't inflate a thousandfold, since none may be compressed."""
    heard = asyncio.get_running_loop().create_future()

    async def listen(lcm: ServerConnection) -> None:
        assert lcm.request is not None
        heard.set_result(dict(lcm.request.headers.raw_items()))
        await lcm.wait_closed()

    async with peer(listen) as url, opened(url, headers={"X-Api-Key": "k"}):
        headers = await heard
        assert "Sec-WebSocket-Extensions" not in headers
        assert headers["X-Api-Key"] == "k"


async def test_the_name_is_query_parameter_and_user() -> None:
    """Each session calls itself by `session_name`, and the password goes with that name."""
    settings: dict[str, Any] = {"session_name": "{worker}/{n}/{unixtime}", "password": "token", "sessions": 2}
    async with Simulator(Behaviour(credentials="worker-1/*:token", unique_names=True)) as lcm:
        async with opened(lcm.url, **settings):
            [attempt] = lcm.connections
        assert attempt.name is not None
        worker, number, unixtime = attempt.name.split("/")
        assert (worker, number) == ("worker-1", "1")
        assert abs(int(unixtime) - attempt.at) < 60
        assert (await refusal(lcm.url, **settings | {"password": "other"})).refused


async def test_a_name_that_is_taken_may_become_free() -> None:
    """`Prevents duplicate logins`: a name twice is not opened, and not taken for a wrong password."""
    async with Simulator(Behaviour(unique_names=True)) as lcm:
        async with opened(lcm.url, session_name="me", sessions=1):
            error = await refusal(lcm.url, session_name="me", sessions=1)
            assert (error.refused, "HTTP 409" in str(error)) == (False, True)
        await until(lambda: lcm.live == 0)
        async with opened(lcm.url, session_name="me", sessions=1) as session:
            assert session.alive


async def test_a_greeting_logs_in() -> None:
    """The first exchange takes place only after the greeting and its awaited reply, whatever else comes."""
    greeting = [{"send": json.dumps(LOGIN), "await": "loginRESPONSE"}]
    behaviour = Behaviour(login="Login", open_id=True, heartbeat=0.001)
    async with Simulator(behaviour) as lcm:
        async with opened(lcm.url, greeting=greeting) as session:
            assert names(await session.exchange(ACCOUNT, 10), ACCOUNT)
        async with opened(lcm.url) as session:
            with pytest.raises(LcmError):
                await session.exchange(ACCOUNT, 10)


@pytest.mark.parametrize(
    ("answer", "refused", "words"),
    [
        (
            {"subtopic": "LoginResponse", "message": {"success": False, "msg": "No such agent"}},
            True,
            "No such agent",
        ),
        ({"subtopic": "LoginResponse", "data": {"errorType": "LOCKED"}}, True, "LOCKED"),
        ({"topic": "Error", "subtopic": "ApiError", "data": {"msg": "reconnecting"}}, False, "reconnecting"),
    ],
)
async def test_a_greeting_that_fails(answer: dict[str, Any], refused: bool, words: str) -> None:
    """Who is not logged in has no session; where LCM says no to the greeting itself, insisting is no remedy."""

    async def turn_down(lcm: ServerConnection) -> None:
        await lcm.recv()
        await lcm.send(json.dumps(LOGIN | answer))
        await lcm.wait_closed()

    async with peer(turn_down) as url:
        error = await refusal(url, greeting=[{"send": json.dumps(LOGIN), "await": "LoginResponse"}])
        assert (error.refused, words in error.message) == (refused, True)


async def test_a_greeting_without_an_answer() -> None:
    """A peer that never gives the awaited reply, or closes, has no session with us."""
    greeting = [{"send": json.dumps(LOGIN), "await": "never"}]
    async with Simulator(Behaviour(login="Login")) as lcm:
        error = await refusal(lcm.url, greeting=greeting, connect_timeout=0.05)
        assert "lcm.connect_timeout" in str(error)
        await until(lambda: lcm.live == 0)
        lcm.behaviour = Behaviour(faults={"accept-and-close": 1}, close_code=1008)
        error = await refusal(lcm.url, greeting=greeting)
        assert ("1008" in str(error), error.refused) == (True, True)


@pytest.mark.parametrize(("code", "refused"), [(4401, True), (1008, True), (1011, False)])
async def test_accepted_and_then_closed(code: int, refused: bool) -> None:
    """Pitfall `LCM accepts, then closes with 4401`: no session was opened; code and reason are told."""

    async def turn_out(lcm: ServerConnection) -> None:
        await lcm.close(code, "token expired")

    ends = Ends()
    async with peer(turn_out) as url, opened(url, ends) as session:
        assert not await session.lasts()
        assert session.not_opened is not None
        assert session.not_opened.refused == refused
        assert f"with code {code}" in str(session.not_opened)
        assert session.not_opened.message.endswith(": token expired")
        assert (len(ends.reasons), session.said) == (1, "token expired")


async def test_an_error_as_soon_as_a_session_is_open() -> None:
    """LCM reports an error of its own accord before any request: no session was opened, and its words are told."""

    async def complain(lcm: ServerConnection) -> None:
        await lcm.send(documents.error("NOT_LOGGED_IN", "nobody is there"), text=True)
        await lcm.wait_closed()

    async with peer(complain) as url, opened(url) as session:
        assert not await session.lasts()
        assert session.not_opened is not None
        assert "nobody is there" in session.not_opened.message


@pytest.mark.parametrize("form", ["topic Error", "of the reply", "unasked", "after an answer"])
async def test_an_error_that_says_that_lcm_is_full(form: str) -> None:
    """In whatever form it comes before an answer, no session was opened; afterwards it is an error like any other."""
    error = {"errorType": "Too_Many Sessions", "errorMessage": "3 of 3"}
    of_the_reply = documents.reply(error)
    said = of_the_reply if form == "of the reply" else documents.error("TOO_MANY_SESSIONS", "3 of 3")

    async def turn_away(lcm: ServerConnection) -> None:
        if form == "after an answer":
            await lcm.recv()
            await lcm.send(SAMPLE, text=True)
        if form != "unasked":
            await lcm.recv()
        await lcm.send(said, text=True)
        await lcm.wait_closed()

    async with peer(turn_away) as url, opened(url) as session:
        if form == "after an answer":
            await session.exchange(ACCOUNT, 5)
        if form == "unasked":
            assert not await session.lasts()
        else:
            with pytest.raises(LcmError):
                await session.exchange(ACCOUNT, 5)
        assert not session.alive
        full = session.not_opened is not None and session.not_opened.full
        assert full == (form != "after an answer")


async def test_a_session_lasts_by_an_answer_or_by_time() -> None:
    """Opening has succeeded with the first answer, else after a moment; a later end changes nothing."""
    async with (
        Simulator(Behaviour(close_code=4401)) as lcm,
        opened(lcm.url) as quiet,
        opened(lcm.url) as asked,
    ):
        await asked.exchange(ACCOUNT, 10)
        assert await asked.lasts()
        assert await quiet.lasts()
        await lcm.close_sessions()
        await until(lambda: not asked.alive and not quiet.alive)
        assert (asked.not_opened, quiet.not_opened) == (None, None)


async def test_a_reply_before_any_request_ends_the_session() -> None:
    """What LCM says in reply to nobody, even while greeting, is never taken for the first exchange's."""

    async def say_first(lcm: ServerConnection) -> None:
        await lcm.recv()
        await lcm.send(json.dumps(LOGIN | {"subtopic": "LoginResponse"}))
        await lcm.send(good("nobody"), text=True)
        await lcm.wait_closed()

    ends = Ends()
    async with peer(say_first) as url:
        async with opened(url, ends, greeting=[{"send": "{}", "await": "LoginResponse"}]):
            await until(lambda: ends.reasons)
        assert ends.reasons == ["replied with no request in flight"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give an authority that the system does not know."""
    return Authority(tmp_path)


async def test_tls(authority: Authority) -> None:
    """With `ca_file` a session is opened, and ended, over TLS as without it."""
    async with (
        Simulator(ssl_context=authority.server_context()) as lcm,
        opened(lcm.url, ca_file=authority.file) as session,
    ):
        assert lcm.url.startswith("wss://")
        assert names(await session.exchange(ACCOUNT, 10), ACCOUNT)
        session.abort("enough")
        await until(lambda: lcm.live == 0)


async def test_a_certificate_that_does_not_verify(authority: Authority) -> None:
    """Pitfall `certificate errors count as transient`: an unknown authority, or another host, is a refusal."""
    async with Simulator(ssl_context=authority.server_context()) as lcm:
        error = await refusal(lcm.url)
        assert (error.refused, "certificate does not verify" in str(error)) == (True, True)
        error = await refusal(lcm.url.replace("127.0.0.1", "localhost"), ca_file=authority.file)
        assert (error.refused, "certificate does not verify" in str(error)) == (True, True)
        assert lcm.connections == []


@pytest.mark.parametrize("proxy", ["", "http://proxy.test:3128"])
async def test_a_token_file_that_is_gone(tmp_path: Path, proxy: str) -> None:
    """A file that could be read at the start, and no longer can, keeps a session from being opened, and is named."""
    file = tmp_path / "token"
    file.write_text("token")
    settings = lcm_settings("ws://lcm.test/", username="me", password_file=str(file), proxy=proxy)
    opener = SessionOpener(settings, "worker-1")
    file.unlink()
    with pytest.raises(SessionNotOpened) as raised:
        await opener(1, Ends())
    assert str(raised.value).startswith(
        "no session with LCM at lcm.test:80: lcm.password_file can't be read: "
    )
    assert not raised.value.refused


async def test_files_that_are_no_certificates(tmp_path: Path) -> None:
    """A file that holds no certificate is a wrong setting, found before any connection, and named."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate\n")
    with pytest.raises(SettingsError, match=r"ca\.pem"):
        SessionOpener(lcm_settings("wss://127.0.0.1:1/", ca_file=str(file)), "worker-1")
