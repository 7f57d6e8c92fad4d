"""JSON schemas of the messages, from the types, limits and patterns that read and write them.

A field that the code has and that isn't described here is a KeyError: no field can be forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from worker.contract.errors import ERRORS, Expired
from worker.contract.job import (
    APP_ID_HEADER,
    ATTEMPTS_HEADER,
    CONTROL,
    ERROR_CODE_HEADER,
    ERROR_REASON_HEADER,
    JOB_ID_HEADER,
    MAX_ACCOUNT_NUMBER,
    MAX_BODY,
    MAX_JOB_ID,
    REPLAYS_HEADER,
    ROUTE,
    USER_ID_HEADER,
)
from worker.contract.job_copies import FAILED_AT_HEADER, WORKER_HEADER
from worker.contract.job_reader import Fields
from worker.contract.outcomes import Outcome
from worker.contract.result import MAX_ERROR_MESSAGE, Error, Failed, Succeeded
from worker.contract.trace_context import TRACE_HEADERS

Schema = dict[str, Any]

ROUTE_PATTERN = f"^{ROUTE.pattern}$"
_TIME: Schema = {"type": "string", "format": "date-time"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_METADATA: Schema = {"type": "object"}


def schemas() -> dict[str, Schema]:
    """Return the schemas of all bodies, to stand under `#/components/schemas`."""
    return {
        "Job": _job(),
        "Succeeded": _struct(
            Succeeded, "A succeeded result.", _RESULT | {"status": {"const": "succeeded", "type": "string"}}
        ),
        "Failed": _struct(
            Failed,
            "A failed result: there are no outcomes, nor what would tell of them.",
            _RESULT | {"status": {"const": "failed", "type": "string"}},
        ),
        "Outcome": _struct(Outcome, "One telephony outcome in its normalized form.", _OUTCOME),
        "Error": _struct(Error, "Why a job failed.", _error()),
    }


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def trace_headers() -> Schema:
    """Return the schema of the headers that go from a job to its result."""
    text = {
        "type": "string",
        "description": "W3C trace context: the job's own, or of the worker's span in the same trace.",
    }
    return {"type": "object", "properties": {name: dict(text) for name in TRACE_HEADERS}}


def dead_headers() -> Schema:
    """Return the schema of the headers of a dead letter."""
    kept = {code: kind for code, kind in ERRORS.items() if kind is not Expired}
    ours: dict[str, Schema] = {
        JOB_ID_HEADER: {"type": "string", "description": "The job's id, also where its body names none."},
        ERROR_CODE_HEADER: {
            "type": "string",
            "enum": [*kept],
            "description": "The `error.code` of its failed result.",
        },
        ERROR_REASON_HEADER: {
            "type": "string",
            "description": f"The `error.message` of its failed result: at most {MAX_ERROR_MESSAGE} bytes of UTF-8.",
        },
        ATTEMPTS_HEADER: _COUNT | {"description": "Exchanges with LCM that were made for it in all."},
        FAILED_AT_HEADER: _TIME | {"description": "When it failed, in UTC."},
        WORKER_HEADER: {"type": "string", "description": "The name of the worker that gave it up."},
    }
    known: dict[str, Schema] = {
        USER_ID_HEADER: {
            "type": "string",
            "description": "The broker's user who sent the job, where it told that.",
        },
        APP_ID_HEADER: {
            "type": "string",
            "description": "The application that sent the job, by its `app_id`.",
        },
    }
    replays = {
        "type": "integer",
        "minimum": 1,
        "description": "How often it was replayed; absent where never.",
    }
    return {
        "type": "object",
        "description": "The job's own headers, but for CC, BCC and those that begin with x-, and these.",
        "properties": ours | known | {REPLAYS_HEADER: replays} | trace_headers()["properties"],
        "required": [*ours],
    }


def _job() -> Schema:
    described: dict[str, Schema] = {
        "account_number": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_ACCOUNT_NUMBER,
            "not": {"pattern": CONTROL.pattern},
            "description": "The account to ask LCM about: opaque text without control characters.",
        },
        "job_id": {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": MAX_JOB_ID,
            "description": "Names one asking, unique across producers. Without it the AMQP message_id does, and "
            "without that an id derived from the body: then equal bodies are one job.",
        },
        "route": {
            "type": ["string", "null"],
            "pattern": ROUTE_PATTERN,
            "description": "Appended to the routing key of the result, so that each dialer can bind its own.",
        },
        "deadline": _TIME
        | {
            "type": ["string", "null"],
            "description": "An RFC 3339 time with its offset, past which the job fails as `expired`. Use it rather "
            "than AMQP expiration, whose messages end in the dead-letter queue without a result.",
        },
        "metadata": {
            "type": ["object", "null"],
            "description": "Anything: echoed unread in the result.",
        },
    }
    return {
        "type": "object",
        "description": f"JSON in UTF-8 of at most {MAX_BODY} bytes. Null is the same as absent, of a repeated key the "
        "last counts, and unknown fields are ignored.",
        "properties": {name: described[name] for name in Fields.__struct_fields__},
        "required": ["account_number"],
    }


def _struct(struct: type[msgspec.Struct], description: str, details: Mapping[str, Schema]) -> Schema:
    """Return the schema of the code's own type, with the limits and descriptions that a type lacks."""
    schema: Schema = msgspec.json.schema_components([struct])[1][struct.__name__]
    fields = {name: _without_refs(of_type) | details[name] for name, of_type in schema["properties"].items()}
    return {
        "type": "object",
        "description": description,
        "properties": fields,
        "required": schema["required"],
    }


def _without_refs(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "$ref"}


def _error() -> dict[str, Schema]:
    # The first line of an error's docstring is its meaning; the rest is for callers that catch it.
    meanings = [f"`{code}`: {(kind.__doc__ or '').splitlines()[0]}" for code, kind in ERRORS.items()]
    transient = ", ".join(f"`{code}`" for code, kind in ERRORS.items() if kind.transient)
    return {
        "code": {"enum": [*ERRORS], "description": " ".join(meanings)},
        "message": {"description": f"What is wrong, in words: at most {MAX_ERROR_MESSAGE} bytes of UTF-8."},
        "transient": {"description": f"Whether asking again later may help: true for {transient}."},
    }


_OUTCOME: dict[str, Schema] = {
    "id": {"minLength": 1, "description": "Unique within the list, which is ordered by it; branch on this."},
    "code": {"description": "The description as an identifier; it may be empty and need not be unique."},
    "description": {"description": "LCM's own text, with blanks folded; empty where there was none."},
}
_RESULT: dict[str, Schema] = {
    "job_id": {"description": "The job's id, as in the job where it named one."},
    "account_number": {"description": "As in the job; in a failed result null where it couldn't be read."},
    "outcomes": {
        "type": "array",
        "items": ref("Outcome"),
        "description": "The normalized list; an empty one is a success.",
    },
    "fingerprint": {
        "pattern": "^sha256:[0-9a-f]{64}$",
        "description": "A hash of the outcomes, equal exactly when they are equal.",
    },
    "error": ref("Error"),
    "warnings": {"description": "What normalization had to decide, in words."},
    "source": {
        "enum": ["lcm", "shared"],
        "description": "`lcm`, or `shared`: answered by another job's exchange for the same account.",
    },
    "attempts": _COUNT | {"description": "Exchanges made for this job over all its deliveries."},
    "replays": _COUNT
    | {
        "description": "How often the job was replayed from the dead-letter queue; left out where it was not."
    },
    "looked_up_at": _TIME | {"description": "When LCM answered, in UTC."},
    "completed_at": _TIME | {"description": "When the result was made, in UTC."},
    "duration_ms": {"minimum": 0, "description": "Milliseconds from the delivery's arrival to the result."},
    "worker": {"description": "The name of the worker."},
    "metadata": _METADATA | {"description": "As in the job; {} where it had none."},
}
