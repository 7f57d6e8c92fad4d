"""The spans of a job, by OpenTelemetry: `process` of its delivery, and in it `exchange` and `publish`.

The span of a delivery is a child of the one that the job's trace context names. Its own context takes that one's
place in the delivery, so that whatever is made of it (result, copies, log line) belongs to the trace by itself; a
published message carries the context of the span that publishes it.

No span holds what a producer or LCM wrote, such as an account number, an id or the text of an error: a job is found by
its log line, which has the same `trace_id`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker.common.threads import in_thread
from worker.contract.disposition import Disposition, Sent
from worker.contract.errors import JobError, SettingsError
from worker.contract.lookup import Lookup, LookupRequest, LookupResult
from worker.contract.message import Delivery, Message, Properties
from worker.contract.outbox import IsWanted, Outbox
from worker.contract.trace_context import TRACE_HEADERS, trace_id_of, trace_of
from worker.observability.tracing import Handle, P

_SERVICE = "lcm-outcome-worker"
_LAST_SPANS = 3.0  # seconds for which the end of the worker waits for what was not sent yet
_W3C = TraceContextTextMapPropagator()  # and not the global one, which may carry baggage, too

Attributes = dict[str, str | int]

_RABBITMQ: Attributes = {"messaging.system": "rabbitmq"}
_PROCESS = _RABBITMQ | {"messaging.operation.name": "process", "messaging.operation.type": "process"}
_PUBLISH = _RABBITMQ | {"messaging.operation.name": "publish", "messaging.operation.type": "send"}


def exporting_provider(worker: str, version: str) -> TracerProvider:
    """Return a provider as OpenTelemetry's variables ask, which exports by OTLP over HTTP.

    Raises:
        SettingsError: a variable has a value that can't be used.
    """
    ours = {"service.name": _SERVICE, "service.version": version, "service.instance.id": worker}
    try:
        resource = Resource.create(ours).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except (ValueError, OSError) as error:
        raise SettingsError(f"OpenTelemetry's variables (OTEL_…): {error}") from error
    return provider


class SpanTracer:
    """Puts spans of this provider around the stations of a job.

    Names and attributes of messages are those of OpenTelemetry's conventions for RabbitMQ; the others begin with
    `lcm_worker`.
    """

    def __init__(self, provider: TracerProvider, *, queue: str, lcm_url: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(_SERVICE)
        self._queue = queue
        lcm = urlsplit(lcm_url)
        port = lcm.port or (443 if lcm.scheme == "wss" else 80)
        self._lcm: Attributes = {"server.address": lcm.hostname or "", "server.port": port}

    def handling(self, handle: Handle[P], /) -> Handle[P]:
        name = f"process {self._queue}"
        same = _PROCESS | {"messaging.destination.name": self._queue}

        async def traced(delivery: Delivery, /, *args: P.args, **kwargs: P.kwargs) -> Disposition:
            attributes = same | {"messaging.rabbitmq.message.delivery_tag": delivery.tag}
            parent = _context_of(delivery.properties.headers)
            with self._span(name, SpanKind.CONSUMER, attributes, parent) as span:
                inside = replace(delivery, properties=_in_current_context(delivery.properties))
                disposition = await handle(inside, *args, **kwargs)
                span.set_attribute("lcm_worker.ending", disposition.ending.label)
                span.set_attribute("lcm_worker.attempts", disposition.attempts)
                if disposition.error is not None:
                    _fail(span, disposition.error)
                return disposition

        return traced

    def exchanging(self, exchange: Lookup, /) -> Lookup:
        async def traced(request: LookupRequest) -> LookupResult:
            if not get_current_span().is_recording():
                # The sampler left this job out, or no job asks.
                return await exchange(request)
            before = request.last_exchange
            with self._span("exchange", SpanKind.CLIENT, self._lcm) as span:
                try:
                    return await exchange(request)
                finally:
                    timing = request.last_exchange
                    if timing is not None and timing is not before:
                        span.set_attribute("lcm_worker.session", timing.session)
                        span.set_attribute("lcm_worker.exchange", timing.exchange)
                        span.set_attribute("lcm_worker.lcm_ms", round(timing.seconds * 1000, 1))

        return traced

    def publishing(self, outbox: Outbox, /) -> Outbox:
        return _TracedOutbox(self, outbox)

    async def close(self) -> None:
        await asyncio.wait({in_thread(self._provider.shutdown, "last-spans")}, timeout=_LAST_SPANS)

    @contextmanager
    def published(self, message: Message) -> Iterator[Message]:
        """Trace a publish, of the message that is given: one with the context of its span."""
        if not get_current_span().is_recording():
            yield message
            return
        attributes = _PUBLISH | {
            "messaging.destination.name": f"{message.exchange}:{message.routing_key}",
            "messaging.rabbitmq.destination.routing_key": message.routing_key,
        }
        # By the AMQP exchange alone: routing keys hold routes, of which there may be any number.
        with self._span(f"publish {message.exchange}", SpanKind.PRODUCER, attributes):
            yield replace(message, properties=_in_current_context(message.properties))

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, attributes: Attributes, parent: Context | None = None
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as error:
                _fail(span, error)
                raise


class _TracedOutbox:
    def __init__(self, tracer: SpanTracer, outbox: Outbox) -> None:
        self._traced = tracer.published
        self._outbox = outbox

    async def result(
        self, message: Message, is_wanted: IsWanted, /, *, has_dead_letter: bool = False
    ) -> Sent:
        with self._traced(message) as traced:
            return await self._outbox.result(traced, is_wanted, has_dead_letter=has_dead_letter)

    async def dead(self, message: Message, is_wanted: IsWanted, /) -> None:
        with self._traced(message) as traced:
            await self._outbox.dead(traced, is_wanted)

    async def retry(self, message: Message, is_wanted: IsWanted, /) -> None:
        with self._traced(message) as traced:
            await self._outbox.retry(traced, is_wanted)


def _context_of(headers: Mapping[str, Any]) -> Context:
    """Return what the headers of a job say, or an empty context: never that of whoever runs at the moment."""
    trace = trace_of(headers)
    return _W3C.extract(trace, Context()) if trace_id_of(trace) else Context()


def _in_current_context(properties: Properties) -> Properties:
    context: dict[str, str] = {}
    _W3C.inject(context)
    others = {name: value for name, value in properties.headers.items() if name not in TRACE_HEADERS}
    return replace(properties, headers=others | context)


def _fail(span: Span, error: Exception) -> None:
    """Tell the kind of an error, and nothing of its text, which may hold an account number."""
    span.set_attribute("error.type", error.code if isinstance(error, JobError) else type(error).__name__)
    span.set_status(StatusCode.ERROR)
