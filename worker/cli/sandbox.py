"""`lcm-worker sandbox`: a private RabbitMQ and a simulated LCM to try commands against."""

from __future__ import annotations

from worker.cli.common import note, run_until_signalled


def sandbox() -> None:
    """Run a private RabbitMQ and a simulated LCM until Ctrl-C.

    Prints two lines for a shell, by which all commands use them, once both are there. Nothing of them is left when
    it ends.

    Example: lcm-worker sandbox
    """
    run_until_signalled(_serve())


async def _serve() -> None:
    from worker.sandbox.node import Node, ensure_server
    from worker.simulator.behaviour import Behaviour
    from worker.simulator.server import serve

    ensure_server(install=True, say=note)
    note("starting a private RabbitMQ and a simulated LCM ...")
    async with Node() as node:

        def announce(lcm_url: str) -> None:
            print(f"export LCM_WORKER_BROKER__URL={node.url}")
            print(f"export LCM_WORKER_LCM__URL={lcm_url}", flush=True)
            note("copy these two lines to another shell; Ctrl-C ends it all")

        await serve(Behaviour(), "127.0.0.1", 0, None, announce)
