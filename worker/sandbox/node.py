"""A private RabbitMQ node, from the installed server: its own folder, ports, cookie and epmd."""

import asyncio
import errno
import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import quote

from worker.contract.errors import WorkerError
from worker.sandbox.folder import absolute, environment, free_port, is_full, last_words, unfit, write_folder
from worker.sandbox.process import CommandFailed, answers, ask, end, spawn
from worker.sandbox.server import (
    SandboxError,
    ServerMissing,
    check_programs,
    ensure_server,
    find_erlang_tool,
    find_server,
)

__all__ = ["Node", "NodeFailed", "ServerMissing", "answers", "ensure_server", "find_server"]

_START_DEADLINE = 120.0
_POLL = 0.05
_WATERMARK = "0.4"
_T = TypeVar("_T")


class NodeFailed(SandboxError):
    """A private RabbitMQ node did not start, or refused a command; the text holds the end of its log."""


class Node:
    """One node. Nothing happens before `start`; the caller must `stop` a node that it started, or use `async with`.

    It belongs to no event loop: it may be started under one and stopped under another. Start it from a thread
    that lives as long as the node is to live, usually the main one: on Linux the node dies with that thread.

    Args:
        base: the folder that gets this node's own folder; nobody else may be able to write to it.
        config: settings of the `rabbit` application, such as `{"consumer_timeout": 1000}`; a string is written
            as it is, as an Erlang term.
        env: environment variables for the server and its tools, over those of the sandbox.
        name: the Erlang node name, `…@localhost`; one is made up by default.
        cookie: the Erlang cookie; the nodes of a cluster share one.
        epmd_port: the port of an epmd that runs already; by default the node runs one of its own.
        management: whether it serves the management API, see `management_url`, which makes its start longer.

    Raises:
        FolderUnfit: the present folder is gone.
    """

    def __init__(
        self,
        *,
        base: Path | str = ".sandbox",
        config: Mapping[str, int | bool | str] | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        cookie: str | None = None,
        epmd_port: int | None = None,
        management: bool = False,
    ) -> None:
        self.name = name or f"sandbox-{secrets.token_hex(4)}@localhost"
        self.cookie = cookie or secrets.token_hex(16)
        self.folder = absolute(base) / self.name.partition("@")[0]
        self._config = dict(config or {})
        self._extra_env = dict(env or {})
        self._owns_epmd = epmd_port is None
        self._epmd_port = epmd_port
        self._port: int | None = None
        self._management_port = free_port() if management else None
        self._scripts = Path()
        self._env: dict[str, str] = {}
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = f"pid {self._server.pid}" if self._server else "not running"
        return f"<Node {self.name}, port {self._port}, {state}>"

    @property
    def port(self) -> int:
        """The AMQP port, which stays the same over restarts. Raises NodeFailed before the first start."""
        return self._known(self._port)

    @property
    def epmd_port(self) -> int:
        """The port of this node's epmd. Raises NodeFailed before the first start."""
        return self._known(self._epmd_port)

    @property
    def pid(self) -> int:
        """The process id of the server. Raises NodeFailed while it does not run."""
        return self._known(self._server).pid

    @property
    def url(self) -> str:
        """The AMQP URL of the vhost `/`, with the user `guest`."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def management_url(self) -> str:
        """The URL of the management API. Raises NodeFailed where it has none."""
        return f"http://127.0.0.1:{self._known(self._management_port)}"

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and wait until it answers on its AMQP port.

        Raises ServerMissing, FolderUnfit, and NodeFailed with the end of the node's log.
        """
        if self._server:
            raise NodeFailed(f"{self!r} runs already")
        if not self._env:
            self._prepare()
        if self._owns_epmd and not self._epmd:
            # Before the server would start one by itself: that one would outlive us, this one is our child.
            self._epmd = self._spawn(_epmd(), "-port", str(self.epmd_port), "-address", "127.0.0.1")
        self._server = self._spawn(self._scripts / "rabbitmq-server")
        try:
            async with asyncio.timeout(_START_DEADLINE):
                await self._until_it_answers(self._server)
        except TimeoutError:
            await self.kill()
            raise self._failure(f"does not answer after {_START_DEADLINE:.0f} s") from None
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """End the server, then its epmd, and remove its folder. Does nothing where there is nothing to do.

        Where it is cancelled, even more than once, it ends them at once, and all is done as well.
        """
        async with AsyncExitStack() as last:
            last.callback(self._remove_folder)
            last.push_async_callback(self._end_epmd)
            await self._end_server(signal.SIGTERM)

    async def kill(self) -> None:
        """End the server by SIGKILL. What it kept on disk stays for the next `start`; see `flush`."""
        await self._end_server(signal.SIGKILL)

    async def flush(self) -> None:
        """Write now what the broker would have written a moment later. Raises NodeFailed.

        RabbitMQ 3.10 confirms messages before it has the names of new quorum queues on disk: killed within that
        moment, it forgets what such a queue holds, and the queue never elects a leader again.
        """
        await self.eval("[ok = dets:sync(Table) || Table <- dets:all()]")

    async def restart(self) -> None:
        """Shut the server down in good order, if it runs, and start it with the same data and port."""
        await self._end_server(signal.SIGTERM)
        await self.start()

    async def pause(self) -> None:
        """Freeze the server: its connections stay open and nothing answers."""
        self._known(self._server).send_signal(signal.SIGSTOP)

    async def resume(self) -> None:
        """Let a frozen server go on."""
        self._known(self._server).send_signal(signal.SIGCONT)

    async def ctl(self, *args: str, told: str = "") -> str:
        """Run rabbitmqctl, which takes a second or two, and return its output. Raises NodeFailed with it.

        `told` is its standard input.
        """
        return await self._ask(self._scripts / "rabbitmqctl", "--quiet", *args, told=told)

    async def eval(self, expression: str) -> str:
        """Evaluate Erlang on the node and return the value as Erlang writes it. Raises NodeFailed."""
        call = find_erlang_tool("erl_call")
        if call is None:  # it boots no virtual machine, but not every distribution has it beside RabbitMQ
            return (await self.ctl("eval", f"{expression}.")).strip()
        # By default every caller has the same name, and a node takes only one of a name at a time.
        caller = f"eval-{secrets.token_hex(4)}"
        told = await self._ask(call, "-h", caller, "-n", self.name, "-e", told=f"{expression}.\n")
        if not told.startswith("{ok, "):
            raise NodeFailed(f"{self.name} can't evaluate {expression}: {told}")
        return told.removeprefix("{ok, ").removesuffix("}")

    async def add_vhost(self, name: str) -> str:
        """Add a vhost in which `guest` may do everything, and return its AMQP URL. Raises NodeFailed."""
        vhost = _binary(name)
        await self.eval(
            f'begin ok = rabbit_vhost:add({vhost}, <<"sandbox">>), All = <<".*">>, '
            "ok = rabbit_auth_backend_internal:set_permissions("
            f'<<"guest">>, {vhost}, All, All, All, <<"sandbox">>) end'
        )
        return self.url + quote(name, safe="")

    async def remove_vhost(self, name: str) -> None:
        """Remove a vhost with all that is in it. Raises NodeFailed.

        Hundreds of quorum queues, each with a clock of its own, make a node so slow that it refuses to declare more.
        """
        await self.eval(f'ok = rabbit_vhost:delete({_binary(name)}, <<"sandbox">>)')

    async def alarm(self, on: bool) -> None:
        """Raise the memory alarm, so that the broker blocks publishing connections, or clear it."""
        await self.ctl("set_vm_memory_high_watermark", "0" if on else _WATERMARK)

    async def queues(self, vhost: str = "/") -> dict[str, dict[str, int]]:
        """Return, for each queue of a vhost by name, its `messages`, `ready` and `unacked`."""
        columns = ("name", "messages", "messages_ready", "messages_unacknowledged")
        listed = json.loads(await self.ctl("list_queues", "-p", vhost, "--formatter", "json", *columns))
        return {
            queue["name"]: {
                "messages": queue["messages"],
                "ready": queue["messages_ready"],
                "unacked": queue["messages_unacknowledged"],
            }
            for queue in listed
        }

    def _prepare(self) -> None:
        self._scripts = ensure_server(install=False, say=lambda _: None).parent
        check_programs()
        self._port = self._port or free_port()
        self._epmd_port = self._epmd_port or free_port()
        write_folder(
            self.folder, cookie=self.cookie, config=self._config, management_port=self._management_port
        )
        ours = environment(self.folder, name=self.name, port=self._port, epmd_port=self._epmd_port)
        self._env = ours | self._extra_env

    def _spawn(self, *command: Path | str) -> subprocess.Popen[bytes]:
        log = self.folder / "startup.log"
        try:
            return spawn(command, folder=self.folder, env=self._env, log=log)
        except OSError as error:
            if error.filename == str(log) or is_full(self.folder):
                raise unfit(self.folder, error) from error
            program = error.filename or command[0]
            raise NodeFailed(
                f"{program}: {error.strerror}; see whether RabbitMQ and Erlang are whole, and may be run by this user"
            ) from error

    async def _until_it_answers(self, server: subprocess.Popen[bytes]) -> None:
        while not await answers(self.url):
            if server.poll() is not None:
                raise self._failure(f"ended with status {server.returncode} while it started")
            await asyncio.sleep(_POLL)

    async def _end_server(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        if server:
            await end(server, how)

    async def _end_epmd(self) -> None:
        epmd, self._epmd = self._epmd, None
        if epmd:
            await end(epmd)

    def _remove_folder(self) -> None:
        # In no thread: a thread that is cancelled before it runs would leave the folder. What was refused is not ours.
        if self._env:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._env = {}

    async def _ask(self, *command: Path | str, told: str = "") -> str:
        self._known(self._server)
        try:
            return await ask(command, folder=self.folder, env=self._env, told=told)
        except CommandFailed as failed:
            raise NodeFailed(f"{self.name}: {failed}") from failed

    def _known(self, value: _T | None) -> _T:
        if value is None:
            raise NodeFailed(f"{self!r}: start it first")
        return value

    def _failure(self, what: str) -> WorkerError:
        if is_full(self.folder):
            return unfit(self.folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return NodeFailed(f"{self.name} {what}; its log ends with:\n{last_words(self.folder)}")


def _binary(text: str) -> str:
    """Return a text as an Erlang binary, number by number, so that nothing in it needs escaping."""
    return f"<<{','.join(map(str, text.encode()))}>>"


def _epmd() -> Path:
    found = find_erlang_tool("epmd")
    if found is None:
        raise ServerMissing("Erlang's epmd is not on the PATH: add the folder where Erlang's programs are")
    return found
