"""The spans of jobs on a real broker and a simulated LCM: what they tell, and what they never hold."""

from __future__ import annotations

import signal
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from tests.support.certificates import Authority
from tests.support.channel import open_channel, take
from tests.support.commands import Worker
from tests.support.in_process import DEAD, JOBS, RESULTS, publish, quick, working
from tests.support.waiting import until
from worker.observability.spans import SpanTracer
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
JOB = {"job_id": "job-1", "account_number": "18|1", "route": "emea"}
TRACED: dict[str, Any] = {
    "traceparent": f"00-{TRACE}-{SPAN}-01",
    "tracestate": "vendor=1",
    "baggage": "tenant=7",
}


class Traces:
    """The spans that have ended, and a tracer that makes them."""

    def __init__(self, lcm_url: str) -> None:
        self._ended = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._ended))
        self.tracer = SpanTracer(provider, queue=JOBS, lcm_url=lcm_url)

    @property
    def spans(self) -> list[ReadableSpan]:
        """All of them, in the order of their beginnings."""
        return sorted(self._ended.get_finished_spans(), key=lambda span: span.start_time or 0)

    async def of(self, *names: str) -> list[ReadableSpan]:
        """Wait until as many spans have ended, and return them; they are these."""
        await until(lambda: len(self.spans) >= len(names))
        assert [span.name for span in self.spans] == list(names)
        return self.spans

    async def jobs(self, count: int) -> list[ReadableSpan]:
        """Wait for the ends of so many deliveries, and return their spans."""

        def found() -> list[ReadableSpan]:
            return [span for span in self.spans if span.kind is SpanKind.CONSUMER]

        await until(lambda: len(found()) >= count)
        return found()


def trace_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return format_trace_id(span.context.trace_id)


def span_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return format_span_id(span.context.span_id)


def parent(span: ReadableSpan) -> str:
    return format_span_id(span.parent.span_id) if span.parent else ""


def traceparent(span: ReadableSpan) -> str:
    """Return what names a span in a message's headers."""
    return f"00-{trace_id(span)}-{span_id(span)}-01"


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def headers(message: DeliveredMessage) -> dict[str, Any]:
    """Return a message's headers, but for what the broker adds."""
    found = message.header.properties.headers or {}
    return {name: value for name, value in found.items() if name != "x-delivery-count"}


async def test_a_job_is_one_trace(vhost: str) -> None:
    """The delivery is a child of the job's own span, exchange and publish are its children, the result goes on."""
    async with Simulator() as lcm, open_channel(vhost) as channel:
        traces = Traces(lcm.url)
        async with working(quick(vhost, lcm.url), traces.tracer) as log:
            await publish(channel, JOB, headers=TRACED)
            result = await take(channel, RESULTS)
            process, exchange, published = await traces.of(
                f"process {JOBS}", "exchange", "publish lcm.outcome.results"
            )
    assert {trace_id(span) for span in (process, exchange, published)} == {TRACE}
    assert parent(process) == SPAN
    assert parent(exchange) == parent(published) == span_id(process)
    assert [span.kind for span in (process, exchange, published)] == [
        SpanKind.CONSUMER,
        SpanKind.CLIENT,
        SpanKind.PRODUCER,
    ]
    assert headers(result) == {"traceparent": traceparent(published), "tracestate": "vendor=1"}
    [line] = log.of("job.succeeded")
    assert line["trace_id"] == TRACE
    assert attributes(process) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "lcm.outcome.jobs",
        "messaging.rabbitmq.message.delivery_tag": 1,
        "lcm_worker.ending": "succeeded",
        "lcm_worker.attempts": 1,
    }
    assert attributes(published) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "lcm.outcome.results:result.succeeded.emea",
        "messaging.rabbitmq.destination.routing_key": "result.succeeded.emea",
    }
    port = int(lcm.url.rpartition(":")[2].rstrip("/"))
    assert attributes(exchange) == {
        "server.address": "127.0.0.1",
        "server.port": port,
        "lcm_worker.session": line["session"],
        "lcm_worker.exchange": line["exchange"],
        "lcm_worker.lcm_ms": line["lcm_ms"],
    }


def test_the_names_are_those_of_the_conventions() -> None:
    """Each attribute of messages is one that OpenTelemetry's conventions have, and the operations are their kinds."""
    from worker.observability import spans  # noqa: PLC0415 - its constants alone

    known = {value for name, value in vars(messaging_attributes).items() if name.startswith("MESSAGING_")}
    used = {*spans._PROCESS, *spans._PUBLISH, "messaging.destination.name"}
    used |= {"messaging.rabbitmq.message.delivery_tag", "messaging.rabbitmq.destination.routing_key"}
    assert used <= known
    kinds = {each.value for each in messaging_attributes.MessagingOperationTypeValues}
    assert {spans._PROCESS["messaging.operation.type"], spans._PUBLISH["messaging.operation.type"]} <= kinds
    assert spans._RABBITMQ["messaging.system"] == messaging_attributes.MessagingSystemValues.RABBITMQ.value


async def test_a_job_that_is_tried_again_stays_in_its_trace(vhost: str) -> None:
    """Each copy carries on the span that published it, so that the next delivery follows from it."""
    async with Simulator(Behaviour(rules=(Rule("*", "error"),))) as lcm, open_channel(vhost) as channel:
        traces = Traces(lcm.url)
        settings = quick(vhost, lcm.url, RETRY__ATTEMPTS="2", BROKER__RETRY_DELAYS="50ms")
        async with working(settings, traces.tracer):
            await publish(channel, JOB, headers=TRACED | {"tenant": 7})
            letter, result = await take(channel, DEAD), await take(channel, RESULTS)
            first, again = await traces.jobs(2)
    spans = traces.spans
    assert {trace_id(span) for span in spans} == {TRACE}
    retried, dead, told = (
        span
        for key in ("retry", "dead", "results")
        for span in spans
        if span.name == f"publish lcm.outcome.{key}"
    )
    assert (parent(first), parent(retried)) == (SPAN, span_id(first))
    assert (parent(again), parent(dead), parent(told)) == (span_id(retried), span_id(again), span_id(again))
    assert headers(letter)["traceparent"] == traceparent(dead)
    assert headers(letter)["tracestate"] == "vendor=1"
    assert (headers(letter)["baggage"], headers(letter)["tenant"]) == ("tenant=7", 7)
    assert headers(result)["traceparent"] == traceparent(told)
    exchanges = [span for span in spans if span.name == "exchange"]
    assert [parent(span) for span in exchanges] == [span_id(first)] * 2 + [span_id(again)] * 2
    for span in (first, again, *exchanges):
        assert attributes(span)["error.type"] == "lcm_error"
        assert span.status.status_code is StatusCode.ERROR
    assert [attributes(span)["lcm_worker.ending"] for span in (first, again)] == ["retry_later", "failed"]


async def test_an_invalid_trace_context_begins_a_trace(vhost: str) -> None:
    """Whatever a producer writes there is no error: the job has a trace of its own, which log and result tell."""
    odd: list[dict[str, Any]] = [
        {},
        {"traceparent": f"00-{TRACE}-{SPAN}"},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
        {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
        {"traceparent": f"00-{TRACE}-{SPAN}-01".upper()},
        {"traceparent": f"ff-{TRACE}-{SPAN}-01"},
        {"traceparent": f"00-{TRACE}-{SPAN}-01\n"},
        {"traceparent": '00-"}\n{"event":"forged"}', "tracestate": "a=b"},
        {"traceparent": bytearray(b"\xff\xfe")},
        {"traceparent": 7},
        {"traceparent": [TRACE]},
        {"traceparent": "0" * 60_000},
        {"tracestate": "vendor=1"},
    ]
    async with Simulator() as lcm, open_channel(vhost) as channel:
        traces = Traces(lcm.url)
        async with working(quick(vhost, lcm.url), traces.tracer) as log:
            for number, sent in enumerate(odd):
                await publish(channel, {"account_number": f"{number}|1"}, headers=sent)
                result = headers(await take(channel, RESULTS))
                process = (await traces.jobs(number + 1))[-1]
                assert process.parent is None, sent
                assert trace_id(process) != TRACE
                assert result.keys() == {"traceparent"}, sent
                assert result["traceparent"].startswith(f"00-{trace_id(process)}-")
    assert [line["trace_id"] for line in log.of("job.succeeded")] == [
        trace_id(span) for span in await traces.jobs(len(odd))
    ]


@pytest.mark.parametrize(
    "state", ["no list", "a=b" * 4000, "=,=," * 100, "k=\x00", "x=1,x=2"], ids=lambda s: s[:8]
)
async def test_an_invalid_tracestate_costs_no_trace(vhost: str, state: str) -> None:
    """The job stays in its trace, and what its `tracestate` got wrong is not carried on."""
    async with Simulator() as lcm, open_channel(vhost) as channel:
        traces = Traces(lcm.url)
        async with working(quick(vhost, lcm.url), traces.tracer):
            await publish(channel, JOB, headers=TRACED | {"tracestate": state})
            result = headers(await take(channel, RESULTS))
            [process] = await traces.jobs(1)
    assert (trace_id(process), parent(process)) == (TRACE, SPAN)
    assert result["traceparent"].startswith(f"00-{TRACE}-")
    assert result.get("tracestate", "") in {"", "x=1"}


async def test_a_job_that_its_producer_did_not_sample_makes_no_span(vhost: str) -> None:
    """Its result stays in the trace, unsampled."""
    async with Simulator() as lcm, open_channel(vhost) as channel:
        traces = Traces(lcm.url)
        async with working(quick(vhost, lcm.url), traces.tracer) as log:
            await publish(channel, JOB, headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
            result = headers(await take(channel, RESULTS))
            await until(lambda: "job.succeeded" in log.events)
    assert traces.spans == []
    assert result["traceparent"].startswith(f"00-{TRACE}-")
    assert result["traceparent"].endswith("-00")
    assert log.of("job.succeeded")[0]["trace_id"] == TRACE


async def test_no_span_holds_what_others_wrote(vhost: str) -> None:
    """Neither account numbers nor ids, bodies, baggage or LCM's words are in a span, whatever becomes of the job."""
    faults = ("refuse", "error", "not-json", "silence", "close", "huge")
    rules = tuple(Rule(f"77{fault}", fault) for fault in faults)
    async with Simulator(Behaviour(rules=rules)) as lcm, open_channel(vhost) as channel:
        traces = Traces(lcm.url)
        settings = quick(
            vhost, lcm.url, RETRY__ATTEMPTS="1", BROKER__RETRY_DELAYS="50ms", OUTAGE__FAILURES="100"
        )
        bad = {"account_number": 7755, "job_id": "77id", "deadline": "77deadline"}
        async with working(settings, traces.tracer) as log:
            for account in ("77good", *(f"77{fault}" for fault in faults)):
                job = {"account_number": account, "job_id": f"id-{account}", "metadata": {"m": account}}
                await publish(channel, job, headers={"baggage": f"account={account}"})
            await publish(channel, bad)
            await until(lambda: log.events.count("job.failed") == len(faults) + 1)
            await traces.jobs(len(faults) + 2)
    told = "".join(span.to_json() for span in traces.spans if span.name)
    assert {"lcm_rejected", "malformed_reply", "timeout", "invalid_job"} <= {
        attributes(span).get("error.type") for span in traces.spans
    }
    # The names of things in a span's JSON are its own; what producers wrote here begins with 77.
    ids = {trace_id(span) for span in traces.spans} | {span_id(span) for span in traces.spans}
    for each in ids:
        told = told.replace(each, "")
    assert not [
        word for word in ("77good", "77id", "77deadline", *(f"77{fault}" for fault in faults)) if word in told
    ]
    assert not any(span.events for span in traces.spans)


class Collector(ThreadingHTTPServer):
    """Takes spans by OTLP over HTTP, or HTTPS, and keeps them with the headers of their requests."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self._scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.requests: list[tuple[str, dict[str, str], ExportTraceServiceRequest]] = []

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}"

    @property
    def spans(self) -> set[str]:
        """The names of all spans."""
        return {
            span.name
            for _, _, request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest.FromString(body)
        self.server.requests.append((self.path, dict(self.headers.items()), request))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def collecting(tls: ssl.SSLContext | None = None) -> Iterator[Collector]:
    with Collector(tls) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


async def one_job(vhost: str, lcm_url: str, channel: AbstractChannel) -> Worker:
    """Run a worker for one job until it has ended by SIGTERM, and return it."""
    async with Worker(broker__url=vhost, lcm__url=lcm_url) as worker:
        await worker.logged("worker.ready")
        await publish(channel, JOB, headers=TRACED)
        await worker.logged("job.succeeded")
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    return worker


async def test_a_worker_sends_its_spans_where_the_environment_says(
    vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By OTLP, with the headers for the collector, all of them before it ends; its log tells none of those headers."""
    async with Simulator() as lcm, open_channel(vhost) as channel:
        with collecting() as collector:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=t0k3n,n0 p4ir")
            monkeypatch.setenv("OTEL_SERVICE_NAME", "outcomes")
            worker = await one_job(vhost, lcm.url, channel)
    assert collector.spans == {f"process {JOBS}", "exchange", "publish lcm.outcome.results"}
    path, sent, request = collector.requests[0]
    assert (path, sent["x-token"]) == ("/v1/traces", "t0k3n")
    resource = {each.key: each.value.string_value for each in request.resource_spans[0].resource.attributes}
    assert (resource["service.name"], resource["service.instance.id"]) == ("outcomes", "w-1")
    assert b"t0k3n" not in worker.err
    assert b"n0 p4ir" not in worker.err
    assert worker.others == []


async def test_the_keys_of_tls_with_a_collector_are_logged_nowhere(
    vhost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter obeys the variable by which libraries write keys to a file; whoever sets it could read the token."""
    authority, keys = Authority(tmp_path), tmp_path / "keys"
    for name in ("OTEL_EXPORTER_OTLP_CERTIFICATE", "REQUESTS_CA_BUNDLE"):  # the second wins where it is set
        monkeypatch.setenv(name, authority.file)
    async with Simulator() as lcm, open_channel(vhost) as channel:
        with collecting(authority.server_context()) as collector:
            monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
            await one_job(vhost, lcm.url, channel)
    assert "exchange" in collector.spans
    assert not keys.exists()


async def test_a_collector_that_is_away_holds_up_no_job(vhost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs end, and so does the worker; what could not be sent is one line of the log, not one for each try."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with Simulator() as lcm, open_channel(vhost) as channel:
        worker = await one_job(vhost, lcm.url, channel)
    assert worker.of("worker.stopped")
    assert worker.others == []
    assert {line["library"] for line in worker.of("library.log")} <= {
        "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    }
