"""The simulated LCM, met by a real websocket client: every fault, every variant, every switch."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus

from tests.support.certificates import Authority
from tests.support.waiting import until
from worker.simulator.documents import UNASKED, VARIANTS
from worker.simulator.scenarios import SCENARIOS, behaviour_from
from worker.simulator.server import Behaviour, Exchange, Simulator, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

ACCOUNT = "18|1|2|0|0|44|274"
HOUR = 3600.0


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test, which is not to hang."""
    asyncio.run(asyncio.wait_for(main, 30))


def dial(simulator: Simulator, query: str = "", **options: Any) -> connect:
    """Connect as a client that takes messages of any size, and never gives up on a silent peer."""
    return connect(
        simulator.url + query, compression=None, proxy=None, max_size=None, ping_interval=None, **options
    )


@asynccontextmanager
async def talking(
    scenario: str | None = None, **switches: Any
) -> AsyncIterator[tuple[Simulator, ClientConnection]]:
    """Give a simulator of this behaviour, and a connection with it."""
    async with Simulator(behaviour_from(scenario, **switches)) as simulator, dial(simulator) as websocket:
        yield simulator, websocket


def request(account: str = ACCOUNT) -> str:
    """Give the documented request."""
    document = {
        "channel": "LCM",
        "topic": "WebService",
        "subtopic": "SetCallOutComeOffline",
        "data": {"AccountNumber": account},
    }
    return json.dumps(document)


async def ask(websocket: ClientConnection, account: str = ACCOUNT) -> str:
    """Make one exchange; give the reply's text."""
    await websocket.send(request(account))
    return await websocket.recv(decode=True)


def outcomes(reply: str) -> list[Any]:
    """Give the outcome list of a reply in the documented form."""
    listed = json.loads(reply)["message"]["response"]
    assert isinstance(listed, list)
    return listed


def is_good(reply: str, account: str = ACCOUNT) -> bool:
    """Tell whether this is the reply for this account."""
    return len(outcomes(reply)) == 50 and outcomes(reply)[-1]["Description"] == f"Account {account}"


async def nothing_came(websocket: ClientConnection) -> bool:
    """Tell whether all that the simulator sent so far has been read."""
    await (await websocket.ping())
    try:
        async with asyncio.timeout(0):
            await websocket.recv()
    except TimeoutError:
        return True
    return False


def finished(simulator: Simulator) -> asyncio.Queue[Exchange]:
    """Give the queue into which exchanges go when they are over."""
    queue: asyncio.Queue[Exchange] = asyncio.Queue()
    simulator.on_exchange = queue.put_nowait
    return queue


# The documented behaviour, and what is recorded


def test_by_default_it_answers_as_documented() -> None:
    """The reply has the sample's form, lists its 49 outcomes, and names the account."""

    async def main() -> None:
        async with talking() as (simulator, websocket):
            reply = await ask(websocket)
            assert is_good(reply)
            assert (json.loads(reply)["topic"], json.loads(reply)["subtopic"]) == (
                "WebService",
                "SetCallOutComeOfflineResponse",
            )
            assert repr(simulator) == "<Simulator 1 live, 1 exchanges, 0 violations>"

    run(main())


def test_it_does_not_compress() -> None:
    """An offer of permessage-deflate is declined."""

    async def main() -> None:
        async with Simulator() as simulator, connect(simulator.url, proxy=None) as websocket:
            assert websocket.protocol.extensions == []

    run(main())


def test_it_records_attempts_and_exchanges() -> None:
    """Each exchange refers to its connection by number, and has its account, its fault and its times."""

    async def main() -> None:
        times = iter(range(100))
        simulator = Simulator(
            behaviour_from(None, rules=["9=refuse", "8=silence"]), clock=lambda: next(times)
        )
        over = finished(simulator)
        async with simulator, dial(simulator) as one, dial(simulator, "?name=second") as two:
            await ask(two, "1")
            await ask(one, "9")
            await two.send(request("8"))
            expected = [
                Exchange(1, "1", None, 2, 3),
                Exchange(0, "9", "refuse", 4, 5),
                Exchange(1, "8", "silence", 6),
            ]
            assert [await over.get() for _ in range(3)] == expected == simulator.record
            attempts = [(each.number, each.at, each.name, each.accepted) for each in simulator.connections]
            assert attempts == [(0, 0, None, True), (1, 1, "second", True)]
            assert simulator.live == 2

    run(main())


def test_the_record_can_be_bounded() -> None:
    """At least the newest `keep` exchanges are held, and at most twice as many."""

    async def main() -> None:
        async with Simulator(keep=3) as simulator, dial(simulator) as websocket:
            for account in range(20):
                await ask(websocket, str(account))
                newest = [exchange.account for exchange in simulator.record]
                assert min(3, account + 1) <= len(newest) <= 6
                assert newest[-1] == str(account)

    run(main())


def test_requests_in_flight_on_one_connection_are_counted() -> None:
    """One after the other is 1, also over several connections; two without a reply between them are 2."""

    async def main() -> None:
        async with talking() as (simulator, websocket), dial(simulator) as other:
            await asyncio.gather(ask(websocket), ask(other))
            await ask(websocket)
            assert simulator.max_in_flight == 1
            await asyncio.gather(websocket.send(request("1")), websocket.send(request("2")))
            assert is_good(await websocket.recv(decode=True), "1")
            assert is_good(await websocket.recv(decode=True), "2")
            assert simulator.max_in_flight == 2

    run(main())


@pytest.mark.parametrize("fault", ["silence", "wrong-subtopic", "late"])
def test_a_request_without_its_reply_stays_in_flight(fault: str) -> None:
    """A client that asks again on a connection that owes it a reply is found out."""

    async def main() -> None:
        async with talking(rules=[f"9={fault}"], late_by=HOUR) as (simulator, websocket):
            await websocket.send(request("9"))
            await websocket.send(request("1"))
            while not is_good(await websocket.recv(decode=True), "1"):
                pass
            assert simulator.max_in_flight == 2
            assert [exchange.replied is None for exchange in simulator.record] == [True, False]

    run(main())


def test_a_flood_is_of_messages_that_nobody_asked_for_and_of_which_no_two_are_equal() -> None:
    """It goes on until the client leaves, and does not stop the others."""

    async def main() -> None:
        async with talking(rules=["9=flood"]) as (simulator, websocket), dial(simulator) as other:
            await websocket.send(request("9"))
            came = [json.loads(await websocket.recv()) for _ in range(3000)]
            assert len({message["channel"] for message in came}) == 3000
            await ask(other)

    run(main())


BAD_REQUESTS = [
    "",
    "[]",
    "not json",
    "[" * 5000,
    request().encode(),
    request().replace("LCM", "Lcm"),
    request().replace("WebService", "Webservice"),
    request().replace("subtopic", "subTopic"),
    request().replace("OutCome", "Outcome"),
    request().replace("data", "message"),
    request().replace("AccountNumber", "accountNumber"),
    request().replace(f'"{ACCOUNT}"', "18"),
    request().replace(f'"{ACCOUNT}"', "null"),
    request().replace('"channel"', '"id": 1, "channel"'),
    request().replace('"AccountNumber"', '"id": 1, "AccountNumber"'),
    request().replace('"channel": "LCM", ', ""),
]


@pytest.mark.parametrize("message", BAD_REQUESTS)
def test_anything_but_the_documented_request_is_a_violation(message: str | bytes) -> None:
    """It gets an Error message that says what is wrong, and is counted, but not as an exchange."""

    async def main() -> None:
        async with talking() as (simulator, websocket):
            await websocket.send(message)
            reply = json.loads(await websocket.recv())
            assert (reply["channel"], reply["topic"], reply["data"]["errorType"]) == (
                "LCM",
                "Error",
                "INVALID_REQUEST",
            )
            assert reply["data"]["msg"] == simulator.last_violation != ""
            assert (simulator.violations, simulator.record) == (1, [])
            assert is_good(await ask(websocket))
            assert (simulator.violations, simulator.max_in_flight) == (1, 1)

    run(main())


# Faults that are one message


def _has_error(reply: str, text: str) -> bool:
    document = json.loads(reply)
    payload = document["message"]
    return (
        document["subtopic"] == "SetCallOutComeOfflineResponse"
        and payload.keys() == {"errorType", "errorMessage", "msg"}
        and text in payload["errorMessage"]
    )


def _is_lcm_error(reply: str) -> bool:
    document = json.loads(reply)
    return (document["channel"], document["topic"], *document["data"]) == (
        "LCM",
        "Error",
        "errorType",
        "errorMessage",
        "msg",
    )


def _is_cut_off(reply: str) -> bool:
    return reply.startswith('{"channel":"LCM"') and not reply.endswith("}")


MESSAGES: dict[str, Callable[[str], bool]] = {
    "refuse": lambda reply: _has_error(reply, ACCOUNT),
    "refuse-plain": lambda reply: json.loads(reply)["message"]["success"] is False,
    "error": _is_lcm_error,
    "not-logged-in": lambda reply: _has_error(reply, "not logged in"),
    "empty": lambda reply: outcomes(reply) == [],
    "cut-off": _is_cut_off,
    "not-json": lambda reply: reply.startswith("<html>"),
    "nan": lambda reply: '"OutComeID":NaN' in reply,
    "deep": lambda reply: "[" * 10_000 in reply and reply.endswith("]" * 10_000 + "}}"),
    "huge": lambda reply: is_good(reply, ACCOUNT + "x" * 10_000_000),
    "boolean": lambda reply: json.loads(reply)["message"] == {"response": True},
    "strings": lambda reply: outcomes(reply) == ["Success", "Busy"],
    "no-response": lambda reply: json.loads(reply)["message"] == {},
    "no-id": lambda reply: outcomes(reply)[0]["OutComeID"] is None,
    "slow": is_good,
    "late": is_good,
    "sliced": is_good,
}


@pytest.mark.parametrize("fault", MESSAGES)
def test_a_fault_that_is_one_message_is_sent_as_such(fault: str) -> None:
    """The reply is as wrong as its name says, counts as a reply, and leaves the connection usable."""

    async def main() -> None:
        rules = [f"{ACCOUNT}={fault}"]
        async with talking(rules=rules, slow_by=0.001, late_by=0.001) as (simulator, websocket):
            assert MESSAGES[fault](await ask(websocket))
            assert is_good(await ask(websocket, "1"), "1")
            assert [exchange.fault for exchange in simulator.record] == [fault, None]
            assert all(exchange.replied for exchange in simulator.record)
            assert simulator.max_in_flight == 1

    run(main())


def test_a_huge_reply_is_as_large_as_asked() -> None:
    """The size can be set."""

    async def main() -> None:
        async with talking(faults=["huge"], huge_size=100_000) as (_, websocket):
            assert 100_000 <= len(await ask(websocket)) < 110_000

    run(main())


def test_a_sliced_reply_comes_in_fragments_of_one_byte() -> None:
    """A client that streams sees one byte at a time, and in all the good reply."""

    async def main() -> None:
        async with talking("sliced") as (_, websocket):
            await websocket.send(request())
            fragments = [fragment async for fragment in websocket.recv_streaming(decode=False)]
            assert max(map(len, fragments)) == 1
            assert is_good(b"".join(fragments).decode())

    run(main())


def test_a_binary_reply_is_the_good_one_in_a_binary_frame() -> None:
    """The client receives bytes."""

    async def main() -> None:
        async with talking(faults=["binary"]) as (simulator, websocket):
            await websocket.send(request())
            reply = await websocket.recv()
            assert isinstance(reply, bytes)
            assert is_good(reply.decode())
            assert simulator.record[0].replied

    run(main())


# Faults that are no reply, or more than one


def test_silence_is_no_reply_on_a_living_connection() -> None:
    """Nothing comes but the pong."""

    async def main() -> None:
        async with talking("silence") as (simulator, websocket):
            over = finished(simulator)
            await websocket.send(request())
            assert (await over.get()).replied is None
            assert await nothing_came(websocket)

    run(main())


def test_a_late_reply_is_not_sent_once_the_client_has_gone() -> None:
    """The exchange ends with the connection, unanswered."""

    async def main() -> None:
        async with talking(faults=["late"], late_by=HOUR) as (simulator, websocket):
            over = finished(simulator)
            await websocket.send(request())
            assert await nothing_came(websocket)
            await websocket.close()
            assert (await over.get()).replied is None

    run(main())


@pytest.mark.parametrize("fault", ["twice", "unprompted"])
def test_a_reply_may_come_once_more(fault: str) -> None:
    """The second is the first again, belongs to the same exchange, and is the last."""

    async def main() -> None:
        async with talking(faults=[fault], unprompted_after=0.001) as (simulator, websocket):
            over = finished(simulator)
            first = await ask(websocket)
            assert is_good(first)
            assert await websocket.recv() == first
            await over.get()
            assert await nothing_came(websocket)
            assert len(simulator.record) == 1

    run(main())


def test_an_unprompted_reply_may_come_in_the_next_exchange() -> None:
    """A client that takes what comes next gets another account's list: the very mix-up to guard against."""

    async def main() -> None:
        async with talking(rules=["1=unprompted", "2=silence"], unprompted_after=0.001) as (_, websocket):
            assert is_good(await ask(websocket, "1"), "1")
            assert is_good(await ask(websocket, "2"), "1")

    run(main())


def test_a_reply_to_another_request_is_followed_by_nothing() -> None:
    """It is a reply in all but its subtopic, and the request stays unanswered."""

    async def main() -> None:
        async with talking(faults=["wrong-subtopic"]) as (simulator, websocket):
            over = finished(simulator)
            reply = json.loads(await ask(websocket))
            assert reply["subtopic"] != "SetCallOutComeOfflineResponse"
            assert reply["message"]["response"]
            assert (await over.get()).replied is None
            assert await nothing_came(websocket)

    run(main())


def test_a_close_in_mid_exchange_is_clean() -> None:
    """The connection ends with a closing handshake and the code that was set, without a reply."""

    async def main() -> None:
        async with talking(faults=["close"], close_code=1012) as (simulator, websocket):
            with pytest.raises(ConnectionClosed) as closed:
                await ask(websocket)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == websocket.close_code == 1012
            assert simulator.record[0].replied is None

    run(main())


def test_a_reset_in_mid_exchange_is_a_tcp_reset() -> None:
    """The operating system reports a reset, and no closing frame came."""

    async def main() -> None:
        async with talking(faults=["reset"]) as (simulator, websocket):
            with pytest.raises(ConnectionClosed) as closed:
                await ask(websocket)
            assert isinstance(closed.value.__cause__, ConnectionResetError)
            assert closed.value.rcvd is None
            assert simulator.record[0].replied is None

    run(main())


def test_a_frozen_connection_answers_nothing_any_more_and_others_do() -> None:
    """Neither a request nor a ping gets an answer; the connection stays open until the client drops it."""

    async def main() -> None:
        async with talking(rules=["9=freeze"]) as (simulator, websocket), dial(simulator) as other:
            over = finished(simulator)
            await websocket.send(request("9"))
            assert (await over.get()).fault == "freeze"
            pong = asyncio.ensure_future(await websocket.ping())
            await websocket.send(request("1"))
            for _ in range(10):  # both ends share one event loop, so a pong would be here by then
                await ask(other)
            assert not pong.done()
            assert [exchange.account for exchange in simulator.record].count("1") == 0
            assert simulator.live == 2
            websocket.transport.abort()
            await websocket.wait_closed()
            while simulator.live != 1:
                await ask(other)
            pong.cancel()

    run(main())


def test_freezing_ends_what_else_runs_on_the_connection() -> None:
    """A reply that was due later on that connection never comes."""

    async def main() -> None:
        async with talking(rules=["1=late", "9=freeze"], late_by=HOUR) as (simulator, websocket):
            over = finished(simulator)
            await websocket.send(request("1"))
            await websocket.send(request("9"))
            assert {(await over.get()).account, (await over.get()).account} == {"1", "9"}
            assert [exchange.replied for exchange in simulator.record] == [None, None]
            websocket.transport.abort()

    run(main())


# Connections


async def _status(simulator: Simulator, query: str = "", **options: Any) -> int:
    with pytest.raises(InvalidStatus) as refused:
        await dial(simulator, query, **options)
    return refused.value.response.status_code


@pytest.mark.parametrize(("scenario", "status"), [("unauthorized", 401), ("unavailable", 503)])
def test_handshakes_can_be_refused(scenario: str, status: int) -> None:
    """The client sees the status, and so does the record."""

    async def main() -> None:
        async with Simulator(behaviour_from(scenario)) as simulator:
            assert await _status(simulator, "?name=n") == status
            assert [(each.name, each.status, each.accepted) for each in simulator.connections] == [
                ("n", status, False)
            ]
            assert simulator.live == 0

    run(main())


def test_accept_and_close_opens_and_closes() -> None:
    """The handshake succeeds; the next thing is the end of the connection."""

    async def main() -> None:
        async with talking("accept-and-close") as (simulator, websocket):
            with pytest.raises(ConnectionClosedOK):
                await websocket.recv()
            assert [each.accepted for each in simulator.connections] == [True]

    run(main())


def test_connections_can_fail_by_chance() -> None:
    """With a seed, the same handshakes are refused in every run."""

    async def statuses(seed: int) -> list[int]:
        async with Simulator(behaviour_from(None, faults=["unavailable=0.5"], seed=seed)) as simulator:
            for _ in range(20):
                try:
                    async with dial(simulator):
                        pass
                except InvalidStatus:
                    pass
            return [each.status for each in simulator.connections]

    async def main() -> None:
        first = await statuses(1)
        assert set(first) == {101, 503}
        assert first == await statuses(1) != await statuses(2)

    run(main())


def test_a_name_can_be_refused_while_it_is_taken() -> None:
    """A second live connection of one name gets 409; other names, none, and the name once free are fine."""

    async def main() -> None:
        async with Simulator(behaviour_from("unique-names")) as simulator:
            async with (
                dial(simulator, "?name=a"),
                dial(simulator, "?name=b"),
                dial(simulator),
                dial(simulator),
            ):
                assert await _status(simulator, "?name=a") == 409
            await simulator.close_sessions()
            async with dial(simulator, "?name=a") as websocket:
                assert is_good(await ask(websocket))

    run(main())


@pytest.mark.parametrize("when_full", ["http", "close", "error"])
def test_sessions_beyond_the_limit_are_refused(when_full: str) -> None:
    """One more than there is room for is turned away as asked, none other is, and a place that is left is free."""

    async def main() -> None:
        async with Simulator(Behaviour(max_sessions=2, when_full=when_full)) as simulator:
            async with dial(simulator) as one, dial(simulator) as two:
                if when_full == "http":
                    assert await _status(simulator) == 503
                else:
                    async with dial(simulator) as third:
                        if when_full == "close":
                            with pytest.raises(ConnectionClosed) as closed:
                                await third.recv()
                            assert closed.value.rcvd is not None
                            assert closed.value.rcvd.code == 4429
                        else:
                            replies = [await ask(third), await ask(third)]
                            assert all(_is_lcm_error(reply) for reply in replies)
                            assert "TOO_MANY_SESSIONS" in replies[0]
                assert is_good(await ask(one))
                assert is_good(await ask(two))
                assert (simulator.sessions, simulator.peak_sessions) == (2, 2)
                await two.close()
                async with dial(simulator) as again:
                    assert is_good(await ask(again))
            assert (simulator.peak_sessions, len(simulator.record)) == (2, 3)

    run(main())


def test_sessions_that_come_at_once_share_the_places() -> None:
    """Handshakes that overlap are counted as well: there are never more sessions than places."""

    async def main() -> None:
        async def status() -> int:
            try:
                async with dial(simulator) as websocket:
                    await done.wait()
                    await ask(websocket)
                    return 101
            except InvalidStatus as refused:
                return refused.response.status_code

        done = asyncio.Event()
        async with Simulator(Behaviour(max_sessions=3)) as simulator:
            asked = [asyncio.ensure_future(status()) for _ in range(8)]
            await until(lambda: len(simulator.connections) == len(asked))
            done.set()
            assert sorted(await asyncio.gather(*asked)) == [101] * 3 + [503] * 5
            assert simulator.peak_sessions == 3

    run(main())


@pytest.mark.parametrize(
    ("credentials", "authorization", "admitted"),
    [
        ("user:secret", "Basic dXNlcjpzZWNyZXQ=", True),
        ("*:secret", "basic dXNlcjpzZWNyZXQ=", True),
        ("user:secrets", "Basic dXNlcjpzZWNyZXQ=", False),
        ("other:secret", "Basic dXNlcjpzZWNyZXQ=", False),
        ("user:secret", "Bearer dXNlcjpzZWNyZXQ=", False),
        ("user:secret", "Basic ***", False),
        ("user:secret", "Basic dXNlcg==", False),
        ("user:secret", None, False),
        ("", None, True),
    ],
)
def test_credentials_are_checked_where_they_are_set(
    credentials: str, authorization: str | None, admitted: bool
) -> None:
    """Only the user and password that were set are let in; the rest gets 401."""

    async def main() -> None:
        headers = {"Authorization": authorization} if authorization else {}
        async with Simulator(Behaviour(credentials=credentials)) as simulator:
            if admitted:
                async with dial(simulator, additional_headers=headers) as websocket:
                    assert is_good(await ask(websocket))
            else:
                assert await _status(simulator, additional_headers=headers) == 401

    run(main())


def test_an_open_id_frame_comes_first_and_heartbeats_follow() -> None:
    """Both have the form of the vendor's metrics socket, with the name of the connection."""

    async def main() -> None:
        behaviour = behaviour_from("heartbeats", heartbeat=0.001)
        async with Simulator(behaviour) as simulator, dial(simulator, "?name=me") as websocket:
            first = json.loads(await websocket.recv())
            assert (first["Sender"], first["Receiver"], first["MessageType"]) == ("Server", "me", "OpenID")
            for _ in range(3):
                assert json.loads(await websocket.recv()) == {
                    "Sender": "me",
                    "Receiver": "me",
                    "MessageType": "Heartbeat",
                    "Data": "***heartbeat***",
                }

    run(main())


def test_a_login_can_be_required() -> None:
    """Until the connection has sent it, its requests are answered with not-logged-in."""

    async def main() -> None:
        async with talking(login="AgentLogin") as (simulator, websocket):
            assert MESSAGES["not-logged-in"](await ask(websocket))
            await websocket.send(
                '{"channel": "LCM", "topic": "WebService", "subtopic": "AgentLogin", "data": {}}'
            )
            reply = json.loads(await websocket.recv())
            assert (reply["subtopic"], reply["message"]) == ("AgentLoginResponse", {"success": True})
            assert is_good(await ask(websocket))
            assert simulator.violations == 0
            await websocket.send("not json")
            await websocket.recv()
            assert simulator.violations == 1

    run(main())


@pytest.mark.parametrize("reset", [False, True])
def test_all_sessions_can_be_cut_at_once(reset: bool) -> None:
    """Idle, busy and frozen ones end, cleanly or by a reset, and new ones can be opened at once."""

    async def main() -> None:
        rules = ["1=silence", "9=freeze"]
        async with (
            talking(rules=rules) as (simulator, idle),
            dial(simulator) as busy,
            dial(simulator) as frozen,
        ):
            over = finished(simulator)
            await busy.send(request("1"))
            await frozen.send(request("9"))
            await over.get()
            await over.get()
            await simulator.close_sessions(reset=reset)
            assert simulator.live == 0
            for websocket in idle, busy, frozen:
                await websocket.wait_closed()
            assert idle.close_code == busy.close_code == (1006 if reset else 1000)
            assert frozen.close_code == 1006
            async with dial(simulator) as again:
                assert is_good(await ask(again))

    run(main())


def test_idle_sessions_alone_can_be_cut() -> None:
    """As a load balancer does: what waits for a reply stays."""

    async def main() -> None:
        async with talking(rules=["1=silence"]) as (simulator, idle), dial(simulator) as busy:
            over = finished(simulator)
            await busy.send(request("1"))
            await over.get()
            await simulator.close_sessions(idle_only=True)
            await idle.wait_closed()
            assert simulator.live == 1
            await (await busy.ping())

    run(main())


# Switches of the whole


def test_unasked_messages_come_before_the_reply() -> None:
    """Each kind comes once, in order, then the reply; also where the reply is silence."""

    async def main() -> None:
        async with talking("unasked", rules=["9=silence"]) as (simulator, websocket):
            over = finished(simulator)
            for account in "1", "9":
                await websocket.send(request(account))
                assert [await websocket.recv(decode=False) for _ in UNASKED] == list(UNASKED.values())
                if account == "1":
                    assert is_good(await websocket.recv(decode=True), "1")
                await over.get()
            assert await nothing_came(websocket)

    run(main())


def test_single_kinds_of_unasked_messages_can_be_chosen() -> None:
    """Only the kinds named come."""

    async def main() -> None:
        async with talking(unasked=["state-sync"]) as (_, websocket):
            assert json.loads(await ask(websocket))["subtopic"] == "StateSync"
            assert is_good(await websocket.recv(decode=True))

    run(main())


def test_unknown_accounts_get_what_was_chosen_for_them() -> None:
    """Refusal by default, else an empty list, an Error message or silence; known ones are answered."""

    async def main() -> None:
        async with talking("unknown-accounts") as (simulator, websocket):
            over = finished(simulator)
            assert is_good(await ask(websocket))
            assert "errorType" in json.loads(await ask(websocket, "9"))["message"]
            simulator.behaviour = behaviour_from("unknown-accounts", unknown="empty")
            assert outcomes(await ask(websocket, "9")) == []
            simulator.behaviour = behaviour_from("unknown-accounts", unknown="error")
            assert _is_lcm_error(await ask(websocket, "9"))
            simulator.behaviour = behaviour_from("unknown-accounts", unknown="silence")
            await websocket.send(request("9"))
            assert [(await over.get()).fault for _ in range(5)] == [
                None,
                "refuse",
                "empty",
                "error",
                "silence",
            ]
            assert await nothing_came(websocket)

    run(main())


def test_a_rule_can_be_limited_to_the_first_exchanges_of_an_account() -> None:
    """Two refusals, then good; another account of the pattern has a count of its own."""

    async def main() -> None:
        async with talking(rules=["18|*=refuse:2"]) as (simulator, websocket):
            for account in ("18|1", "18|2", "18|1", "18|1", "18|2", "18|2", "1"):
                await ask(websocket, account)
            seen = [exchange.fault for exchange in simulator.record]
            assert seen == ["refuse", "refuse", "refuse", None, "refuse", None, None]

    run(main())


def test_replacing_the_behaviour_starts_the_tallies_anew() -> None:
    """The same rules count from the beginning, on connections that are already open."""

    async def main() -> None:
        async with talking(rules=["*=refuse:1"]) as (simulator, websocket):
            await ask(websocket)
            await ask(websocket)
            simulator.behaviour = behaviour_from(None, rules=["*=refuse:1"])
            await ask(websocket)
            assert [exchange.fault for exchange in simulator.record] == ["refuse", None, "refuse"]

    run(main())


def test_a_seed_makes_a_run_reproducible() -> None:
    """Faults, and the variants of replies, are the same in two runs of one seed, and others in a third."""

    async def replies(seed: int) -> list[str]:
        faults = {"refuse": 0.3, "empty": 0.3}
        async with talking("variants", faults=faults, seed=seed, jitter=0.001) as (simulator, websocket):
            said = [await ask(websocket) for _ in range(40)]
            assert {exchange.fault for exchange in simulator.record} == {"refuse", "empty", None}
            return said

    async def main() -> None:
        first = await replies(1)
        assert first == await replies(1)
        assert first != await replies(2)

    run(main())


def test_delayed_replies_do_not_hold_each_other_up() -> None:
    """While one reply is an hour away, another connection is served, and its delay is over."""

    async def main() -> None:
        async with talking(delay=HOUR) as (simulator, websocket), dial(simulator) as other:
            await websocket.send(request("1"))
            await (await websocket.ping())
            simulator.behaviour = behaviour_from(None, delay=0.001, jitter=0.001)
            assert is_good(await ask(other, "2"), "2")
            assert [(each.account, each.replied is None) for each in simulator.record] == [
                ("1", True),
                ("2", False),
            ]

    run(main())


# Variants


def _item(reply: str) -> Any:
    return outcomes(reply)[7]


FORMS: dict[str, Callable[[str], bool]] = {
    "topic-case": lambda reply: json.loads(reply)["topic"] == "Webservice",
    "subtopic-key": lambda reply: json.loads(reply)["subTopic"] == "SetCallOutComeOfflineResponse",
    "subtopic-case": lambda reply: json.loads(reply)["subtopic"] == "SetCallOutcomeOfflineResponse",
    "id-key": lambda reply: _item(reply) == {"OutcomeID": "8", "Description": "No Answer"},
    "id-key-camel": lambda reply: _item(reply) == {"OutcomeId": "8", "Description": "No Answer"},
    "under-data": lambda reply: len(json.loads(reply)["data"]["response"]) == 50,
    "error-under-message": is_good,
    "numeric-ids": lambda reply: {type(item["OutComeID"]) for item in outcomes(reply)} == {int},
    "single-object": lambda reply: (
        json.loads(reply)["message"]["response"] == {"OutComeID": "1000", "Description": f"Account {ACCOUNT}"}
    ),
    "null-descriptions": lambda reply: (
        _item(reply)["Description"] is None and outcomes(reply)[-1]["Description"] == f"Account {ACCOUNT}"
    ),
    "stray-blanks": lambda reply: (
        _item(reply)["OutComeID"] == " 8 " and _item(reply)["Description"].split(" ").count("") > 3
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_changes_the_reply_as_it_says(variant: str) -> None:
    """The good reply comes in the form that the variant names."""

    async def main() -> None:
        async with talking(variants=[variant]) as (_, websocket):
            assert FORMS[variant](await ask(websocket))

    run(main())


def test_an_error_message_can_have_its_payload_under_message() -> None:
    """Both places are played."""

    async def main() -> None:
        async with talking("errors", variants=["error-under-message"]) as (_, websocket):
            assert "errorType" in json.loads(await ask(websocket))["message"]

    run(main())


def test_variants_combine_and_apply_to_refusals_too() -> None:
    """All variants at once give one reply with all of them; a refusal is addressed like a good reply."""

    async def main() -> None:
        async with talking(variants=VARIANTS, rules=["9=refuse"]) as (_, websocket):
            assert json.loads(await ask(websocket)) == {
                "channel": "LCM",
                "topic": "Webservice",
                "subTopic": "SetCallOutcomeOfflineResponse",
                "data": {"response": {"OutcomeId": 1000, "Description": f" Account {ACCOUNT}  "}},
            }
            refusal = json.loads(await ask(websocket, "9"))
            assert refusal["subTopic"] == "SetCallOutcomeOfflineResponse"
            assert "errorType" in refusal["data"]

    run(main())


def test_mixed_variants_are_drawn_anew_for_every_reply() -> None:
    """Replies differ in form, and every one of them still names the account."""

    async def main() -> None:
        async with talking("variants", seed=1) as (_, websocket):
            replies = [await ask(websocket) for _ in range(40)]
            assert len(set(replies)) > 20
            assert all(f"Account {ACCOUNT}" in reply for reply in replies)

    run(main())


# Running it


def _established(scenario: str) -> dict[str, float]:
    faults = SCENARIOS[scenario].behaviour.faults
    return {name: chance for name, chance in faults.items() if name not in {"unauthorized", "unavailable"}}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_stopping_drops_every_connection_of_any_scenario(scenario: str) -> None:
    """Whatever the connections are doing, the simulator stops, and the clients notice."""

    async def main() -> None:
        simulator = Simulator(behaviour_from(scenario, faults=_established(scenario), seed=1))
        await simulator.start()
        clients = [await dial(simulator) for _ in range(3)]
        for client in clients:
            with suppress(ConnectionClosed):
                await client.send(request())
        await simulator.stop()
        await simulator.stop()
        for client in clients:
            await client.wait_closed()
        assert simulator.live == 0

    run(main())


def test_a_stopped_simulator_refuses_and_starts_again_where_it_was() -> None:
    """An outage and its end: the address stays the same, and the record goes on."""

    async def main() -> None:
        simulator = Simulator()
        urls = []
        for _ in range(2):
            async with simulator, dial(simulator) as websocket:
                urls.append(simulator.url)
                assert is_good(await ask(websocket))
            with pytest.raises(ConnectionRefusedError):
                await dial(simulator)
        assert urls[0] == urls[1]
        assert [exchange.connection for exchange in simulator.record] == [0, 1]

    run(main())


def test_it_can_listen_with_tls(tmp_path: Path) -> None:
    """With a context it is a wss server; faults work there as well."""
    authority = Authority(tmp_path)
    client = ssl.create_default_context(cafile=authority.file)

    async def main() -> None:
        behaviour = behaviour_from(None, rules=["7=reset", "8=close", "9=freeze"])
        async with Simulator(behaviour, ssl_context=authority.server_context()) as simulator:
            over = finished(simulator)
            assert simulator.url.startswith("wss://127.0.0.1:")
            async with dial(simulator, ssl=client) as websocket:
                assert is_good(await ask(websocket))
            for account in "7", "8":
                async with dial(simulator, ssl=client) as websocket:
                    with pytest.raises(ConnectionClosed):
                        await ask(websocket, account)
            frozen = await dial(simulator, ssl=client)
            await frozen.send(request("9"))
            assert [(await over.get()).fault for _ in range(4)] == [None, "reset", "close", "freeze"]
        await frozen.wait_closed()

    run(main())


def test_serve_runs_until_cancelled_and_appends_json_lines(tmp_path: Path) -> None:
    """It tells its URL when it is ready, and every exchange is a line of the file."""
    record = tmp_path / "record.jsonl"

    async def main() -> None:
        for account in "1", "2":
            url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            server = asyncio.create_task(
                serve(behaviour_from("empty"), "127.0.0.1", 0, record, url.set_result)
            )
            async with connect(await url, proxy=None) as websocket:
                assert outcomes(await ask(websocket, account)) == []
            server.cancel()
            with pytest.raises(asyncio.CancelledError):
                await server
            with pytest.raises(ConnectionRefusedError):
                await connect(await url, proxy=None)

    run(main())
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(line["connection"], line["account"], line["fault"]) for line in lines] == [
        (0, "1", "empty"),
        (0, "2", "empty"),
    ]
    assert all(line["at"] <= line["replied"] for line in lines)


def test_serve_needs_no_record() -> None:
    """Without a file it serves all the same."""

    async def main() -> None:
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        server = asyncio.create_task(serve(Behaviour(), "127.0.0.1", 0, None, url.set_result))
        async with connect(await url, proxy=None) as websocket:
            assert is_good(await ask(websocket))
        server.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server

    run(main())
