"""What `status` does: looks at the broker once, or again and again, as a screen or as JSON."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import msgspec
from rich.live import Live
from rich.text import Text

from worker.broker.admin.observer import observing
from worker.cli.common import print_line
from worker.cli.keyboard import keyboard, pressed
from worker.cli.levels import exit_status
from worker.cli.status.document import document_of
from worker.cli.status.findings import findings_of
from worker.cli.status.gathering import Gatherer, Status
from worker.cli.status.view import View
from worker.cli.terminal import Terminal
from worker.contract.errors import BrokerAway


@dataclass(frozen=True, slots=True)
class Output:
    """How a status is told: on the terminal for people, else as a line of JSON. `hide` masks secrets."""

    gatherer: Gatherer
    hide: Callable[[str], str]
    terminal: Terminal | None

    def tell(self, status: Status) -> int:
        """Print a status; return the exit status for it."""
        view = self.view(status)
        if self.terminal is None:
            document = document_of(status, view.findings, self.hide)
            print_line(msgspec.json.encode(document))
        else:
            self.terminal.print(view)
        return exit_status(view.findings)

    def view(self, status: Status, hint: str = "") -> View:
        """Return a status as it is shown."""
        declares = self.gatherer.settings.broker.declare == "active"
        return View(status, findings_of(status, declares=declares), self.hide, hint)


async def look_once(gatherer: Gatherer, *, reasons: bool) -> Status:
    """Look once; a broker that is away is a status, too."""
    try:
        async with observing(gatherer.settings.broker, name=gatherer.name) as observer:
            return await gatherer.gather(observer, reasons=reasons)
    except BrokerAway as error:
        return gatherer.away(str(error))


async def print_each(output: Output, every: float) -> None:
    """Print a status every so many seconds, without end."""
    async with aclosing(_looks(output.gatherer, every)) as looks:
        async for status in looks:
            output.tell(status)


class Watch:
    """A live screen on a terminal; `last` is the status that it showed last."""

    def __init__(self, output: Output, terminal: Terminal) -> None:
        self.last: Status | None = None
        self._output = output
        self._terminal = terminal

    async def run(self, every: float) -> None:
        """Look every so many seconds, until `q` is pressed or the caller cancels it."""
        loop = asyncio.get_running_loop()
        quits = asyncio.Event()
        with keyboard() as keys, Live(console=self._terminal, screen=True, auto_refresh=False) as live:
            live.update(Text("asking the broker …"), refresh=True)
            loop.add_signal_handler(signal.SIGWINCH, live.refresh)
            if keys is not None:
                loop.add_reader(keys, lambda: quits.set() if "q" in pressed(keys) else None)
            showing = asyncio.ensure_future(
                self._show(live, every, "q quit" if keys is not None else "Ctrl-C quits")
            )
            quitting = asyncio.ensure_future(quits.wait())
            try:
                await asyncio.wait({showing, quitting}, return_when=asyncio.FIRST_COMPLETED)
                if showing.done():
                    showing.result()
            finally:
                if keys is not None:
                    loop.remove_reader(keys)
                loop.remove_signal_handler(signal.SIGWINCH)
                showing.cancel()
                quitting.cancel()
                await asyncio.gather(showing, quitting, return_exceptions=True)

    async def _show(self, live: Live, every: float, hint: str) -> None:
        async with aclosing(_looks(self._output.gatherer, every)) as looks:
            async for status in looks:
                self.last = status
                live.update(self._output.view(status, hint), refresh=True)


async def _looks(gatherer: Gatherer, every: float) -> AsyncGenerator[Status]:
    """Yield a status at once and every so many seconds, over one connection for as long as it lasts."""
    while True:
        try:
            async with observing(gatherer.settings.broker, name=gatherer.name) as observer:
                while True:
                    yield await gatherer.gather(observer)
                    await asyncio.sleep(every)
        except BrokerAway as error:
            yield gatherer.away(str(error))
            await asyncio.sleep(every)
