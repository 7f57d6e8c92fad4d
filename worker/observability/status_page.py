"""The page for people on `health.listen`: how one worker stands, as HTML that needs no script and nothing from outside.

Whatever it shows is external text: secrets are masked as in the log, then it is made printable, cut and escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path

from worker.common.content_policy import by_hash
from worker.common.text import printable, shortened
from worker.observability.failures import Failure, Failures
from worker.observability.http import Page
from worker.observability.metrics import Now
from worker.observability.readiness import Reason, Verdict

REFRESH = 5
"""Seconds after which a browser asks for the page anew."""

_LONGEST_TEXT = 300  # characters, so that the page with all its texts is within what an answer may have
_STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
_ALLOWED_STYLE = by_hash(_STYLE)


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows: of the worker `name`, at the time `at`."""

    name: str
    version: str
    at: datetime
    live: Verdict
    ready: Verdict
    now: Now
    deliveries: Mapping[str, int]
    failures: Failures


def status_page(view: View, hide: Callable[[str], str]) -> Page:
    """Return the page; `hide` masks secrets."""

    def text(said: str) -> str:
        return escape(shortened(printable(hide(said)), _LONGEST_TEXT))

    reasons = (*view.live.reasons, *view.ready.reasons)
    body = "".join(
        (
            _header(view, text),
            *(_reason(reason, text) for reason in reasons),
            '<div class="pair">',
            _sessions(view.now),
            _work(view.now),
            _deliveries(view),
            _fleet(view.now),
            "</div>",
            _failures(view, text),
            _footer(view, text),
        )
    )
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH}"><title>{_state(view)}: {text(view.name)}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )
    return Page(page.encode(), "text/html; charset=utf-8", style=_ALLOWED_STYLE)


def _state(view: View) -> str:
    if not view.live.ok:
        return "restart it"
    return "ready" if view.ready.ok else "not ready"


def _header(view: View, text: Callable[[str], str]) -> str:
    good = "good" if view.live.ok and view.ready.ok else "bad"
    return (
        f'<header><h1>{text(view.name)}</h1><b class="{good}">{_state(view)}</b>'
        f'<span class="dim">{_moment(view.at)} UTC, anew every {REFRESH} s</span></header>'
    )


def _reason(reason: Reason, text: Callable[[str], str]) -> str:
    detail = f"<p>{text(reason.detail)}</p>" if reason.detail else ""
    remedy = f'<p class="dim">What to do: {text(reason.remedy)}.</p>' if reason.remedy else ""
    return (
        f'<section class="reason"><p><b>{text(reason.meaning)}</b> <code class="dim">{text(reason.code)}</code></p>'
        f"{detail}{remedy}</section>"
    )


def _sessions(now: Now) -> str:
    busy, idle = now.sessions.get("busy", 0), now.sessions.get("idle", 0)
    bar = ""
    if busy + idle:
        share = 100 * busy / (busy + idle)
        bar = (
            f'<svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{share:.0f} % are busy">'
            f'<rect width="{share:.1f}" height="8"/></svg>'
        )
    counts = {**now.sessions, "exchanges that wait for one": now.waiting}
    return _card("Sessions with LCM", _list(_numbers(counts)), bar)


def _work(now: Now) -> str:
    links = ((f"connection to {role}", _yes(up, "up", "down")) for role, up in now.links.items())
    alarm = [("the broker's alarm", _yes(False, "", "takes no messages"))] if now.blocked else []
    counts = {"deliveries in hand": now.in_flight, "results that no queue takes": now.undelivered}
    return _card("Broker", _list((*_numbers(counts), *links, *alarm)))


def _deliveries(view: View) -> str:
    names = {"retry_later": "retried later", "stale": "lost with their connection"}
    counts = {names.get(name, name): number for name, number in view.deliveries.items()}
    return _card(f"Deliveries since {_moment(view.failures.since)} UTC", _list(_numbers(counts)))


def _fleet(now: Now) -> str:
    if not now.fleet:
        return _card("Share of the fleet", '<p class="dim">No limit is shared with other workers.</p>')
    names = {
        "workers": "workers that share the limit",
        "sessions": "sessions of this one",
        "rate": "exchanges/s of this one",
    }
    rows = ((names[name], f"{value:,.4g}") for name, value in now.fleet.items())
    return _card("Share of the fleet", _list(rows))


def _failures(view: View, text: Callable[[str], str]) -> str:
    found = view.failures.by_code
    if not found:
        return _card("Last failures", f'<p class="dim">None since {_moment(view.failures.since)} UTC.</p>')
    rows = "".join(
        f'<tr><td><code>{text(code)}</code></td><td class="n" data-is="failed">{failure.failed:,}</td>'
        f'<td class="n" data-is="retried">{failure.retried:,}</td><td class="n" data-is="UTC">{_last(failure)}</td>'
        f"<td>{text(failure.message)}</td></tr>"
        for code, failure in sorted(found.items(), key=lambda item: (-item[1].failed, -item[1].retried))
    )
    head = (
        '<thead><tr><th>error</th><th class="n">failed</th><th class="n">retried</th><th class="n">last (UTC)</th>'
        "<th>last message</th></tr></thead>"
    )
    return _card("Last failures, by error code", f"<table>{head}<tbody>{rows}</tbody></table>")


def _footer(view: View, text: Callable[[str], str]) -> str:
    links = "".join(f'<a href="{path}">{path}</a>' for path in ("/readyz", "/livez", "/metrics"))
    return f'<footer>{links}<span class="dim">version {text(view.version)}</span></footer>'


def _card(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>"


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in rows)}</dl>"


def _numbers(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for name, number in counts.items():
        yield name, f"{number:,}"


def _yes(good: bool, yes: str, no: str) -> str:
    return f'<span class="{"good" if good else "bad"}">{yes if good else no}</span>'


def _last(failure: Failure) -> str:
    return _moment(failure.last) if failure.last else ""


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")
