"""Three RabbitMQ nodes on loopback that form one cluster."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
from pathlib import Path
from subprocess import Popen
from typing import Self
from urllib.parse import quote, urlsplit

from tests.support.patience import PATIENCE
from worker.common.private_file import private_folder
from worker.sandbox.folder import free_port
from worker.sandbox.node import Node, NodeFailed
from worker.sandbox.process import end, spawn
from worker.sandbox.server import ServerMissing, find_erlang_tool

_FORMING_DEADLINE = 120.0 * PATIENCE
_ELECTION_DEADLINE = 60.0 * PATIENCE
_POLL = 0.2


class Cluster:
    """Nodes with one cookie and one epmd of the cluster's own, so that any of them can be killed alone.

    Quorum queues that are declared while all run are replicated on all. `async with` starts and ends it.
    """

    def __init__(self, size: int = 3, *, base: Path | str = ".sandbox") -> None:
        label = f"cluster-{secrets.token_hex(3)}"
        names = [f"{label}-{number}@localhost" for number in range(1, size + 1)]
        listed = ", ".join(f"'{name}'" for name in names)
        self._epmd_port = free_port()
        self._folder = Path(base).absolute() / label
        self._epmd: Popen[bytes] | None = None
        self.nodes = [
            Node(
                base=base,
                name=name,
                cookie=label,
                epmd_port=self._epmd_port,
                config={"cluster_nodes": f"{{[{listed}], disc}}"},
            )
            for name in names
        ]

    def __repr__(self) -> str:
        return f"<Cluster {self.nodes!r}>"

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
        """Start all nodes at once and wait until each knows of all others. Raises NodeFailed, ServerMissing."""
        epmd = find_erlang_tool("epmd")
        if epmd is None:
            raise ServerMissing(
                "Erlang's epmd is not on the PATH: add the folder where Erlang's programs are"
            )
        private_folder(self._folder.parent)
        private_folder(self._folder)
        command = (epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1")
        self._epmd = spawn(command, folder=self._folder, env={}, log=self._folder / "epmd.log")
        async with asyncio.TaskGroup() as starting:
            for node in self.nodes:
                starting.create_task(node.start())
        await self.whole()

    async def stop(self) -> None:
        """End everything and remove its folders; twice is harmless."""
        await asyncio.gather(*(node.stop() for node in self.nodes))
        if self._epmd is not None:
            await end(self._epmd)
            self._epmd = None
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def whole(self) -> None:
        """Wait until every node sees all of them running. Raises NodeFailed at the deadline."""
        seen: list[object] = []
        try:
            async with asyncio.timeout(_FORMING_DEADLINE):
                while True:
                    answers = (node.eval("length(rabbit_nodes:all_running())") for node in self.nodes)
                    seen = list(await asyncio.gather(*answers, return_exceptions=True))
                    if seen == [str(len(self.nodes))] * len(self.nodes):
                        return
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise NodeFailed(f"no cluster of {len(self.nodes)}: the nodes see {seen}") from None

    async def add_vhost(self, name: str) -> list[str]:
        """Add a vhost and return its AMQP URL on each node, in the order of `nodes`."""
        await self.nodes[0].add_vhost(name)
        return [node.url + quote(name, safe="") for node in self.nodes]

    async def eval(self, expression: str) -> str:
        """Evaluate Erlang on the first node that answers. Raises NodeFailed where none does."""
        failed = []
        for node in self.nodes:
            try:
                async with asyncio.timeout(10):
                    return await node.eval(expression)
            except (NodeFailed, TimeoutError) as error:
                failed.append(f"{node.name}: {error}")
        raise NodeFailed("no node answers: " + "; ".join(failed))

    async def leader_of(self, queue: str, vhost: str = "/") -> Node:
        """Return the node that leads a quorum queue now, waiting out an election.

        `vhost` is a name or an AMQP URL. Raises NodeFailed where there is no such queue, or no leader in time.
        """
        return (await self._members(queue, vhost))[0]

    async def replicas_of(self, queue: str, vhost: str = "/") -> list[Node]:
        """Return the nodes that hold a quorum queue, its leader first. Raises as `leader_of`."""
        return await self._members(queue, vhost)

    async def _members(self, queue: str, vhost: str) -> list[Node]:
        name = urlsplit(vhost).path[1:] if "://" in vhost else vhost
        # The first asked for may be the one that was killed a moment ago, so each running node is asked.
        asked = (
            f'begin {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{name}">>, queue, <<"{queue}">>)), '
            "{Id, _} = amqqueue:get_pid(Q), "
            "{ok, Members, {_, Leader}} = ra:members([{Id, N} || N <- rabbit_nodes:all_running()], 5000), "
            "[Leader | [M || {_, M} <- Members, M =/= Leader]] end"
        )
        said = ""
        try:
            async with asyncio.timeout(_ELECTION_DEADLINE):
                while True:
                    try:
                        said = await self.eval(asked)
                    except NodeFailed as error:
                        said = str(error)
                    else:
                        return [self._named(found) for found in re.findall(r"[\w-]+@localhost", said)]
                    if "not_found" in said:
                        raise NodeFailed(f"no queue {queue!r} in vhost {name!r}")
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise NodeFailed(f"queue {queue!r} has no leader: {said}") from None

    def _named(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)
