"""`lcm-worker top`: a live view or a summary of the logs of one worker or several."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.common import note, on_terminal, print_line

if TYPE_CHECKING:
    from worker.cli.top.sources import Feed

_PIPE_WIDTH = 240


def top(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Log files, of one worker or several. Default: standard input.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on reading files that grow or are rotated, until stopped."),
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Print a summary at the end of the log, without a live view.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as a JSON document; implies --once.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="At the end write a page with plots to a new FILE, which opens without a network. Default: none.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show what a worker's JSON log comes to, live.

    The view ends with its input, by q, or by Ctrl-C, and leaves a summary; w switches its time line between the
    newest seconds and the whole log. Without a terminal, or of files that are not followed, there is the summary
    alone. Times are UTC, latencies in milliseconds and within 5 %. Other lines are skipped and counted.

    Example: lcm-worker run 2>&1 | lcm-worker top

    Example: lcm-worker top --once --json worker-1.log worker-2.log

    Example: lcm-worker top --once --html report.html worker-*.log
    """
    if follow and once:
        raise typer.BadParameter("--once ends with the log, --follow never does: give one of them")
    if follow and not files:
        raise typer.BadParameter("--follow needs files; standard input is followed as it is")
    if not files and sys.stdin.isatty():
        raise typer.BadParameter("name log files, or pipe a log in: lcm-worker run 2>&1 | lcm-worker top")
    if html is not None and html.exists():
        raise typer.BadParameter(f"--html: {html} exists; name a new file")
    live = on_terminal() and not (once or as_json)
    feed = _read(files or [], follow=follow, live=live, detailed=html is not None)
    if html is not None:
        _write_report(feed, html)
    _print_json(feed) if as_json else _print_text(feed)
    if feed.lines and feed.lines == feed.skipped:
        note("no line is of a worker's JSON log; see log.format there")
        raise typer.Exit(1)


def _read(files: list[Path], *, follow: bool, live: bool, detailed: bool) -> Feed:
    """Read all files, with a live view where more may come."""
    from worker.cli.terminal import Terminal
    from worker.cli.top.live import read_all, watch
    from worker.cli.top.sources import Feed, File, Source, Stream
    from worker.cli.top.tally import Tally

    grows = follow if files else not stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
    try:
        sources: list[Source] = [*(File(path, follow=follow) for path in files)] or [
            Stream(sys.stdin.fileno())
        ]
        feed = Feed(sources, Tally(detailed=detailed))
        if live and grows:
            watch(feed, Terminal())
        else:
            read_all(feed)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        note(f"can't read the log: {where}{error.strerror or error}")
        raise typer.Exit(1) from error
    return feed


def _write_report(feed: Feed, path: Path) -> None:
    from worker.cli.top.report import report
    from worker.common.private_file import private

    page = report(feed.tally, lines=feed.lines, skipped=feed.skipped)
    try:
        # What logs hold, account numbers too, may be in it; and it never goes over an existing file, such as a log.
        with open(path, "xb", opener=private) as file:
            file.write(page)
    except OSError as error:
        note(f"can't write {path}: {error.strerror or error}")
        raise typer.Exit(1) from error


def _print_text(feed: Feed) -> None:
    from worker.cli.terminal import Terminal
    from worker.cli.top.screen import Screen

    # A pipe has no width; wide enough to show most reasons in full.
    Terminal(width=None if on_terminal() else _PIPE_WIDTH).print(Screen(feed.tally, feed.lines, feed.skipped))


def _print_json(feed: Feed) -> None:
    import msgspec

    from worker.cli.top.summary import document

    found = document(feed.tally, lines=feed.lines, skipped=feed.skipped)
    print_line(msgspec.json.encode(found))
