"""Whose message this is: the job id of anything that travels over the broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from worker.contract.errors import InvalidJob
from worker.contract.job_reader import read_job
from worker.contract.message import Properties
from worker.contract.result import MESSAGE_TYPE


class _HasJobId(msgspec.Struct):
    job_id: str = ""


_DECODER = msgspec.json.Decoder(_HasJobId)


def job_id_of(
    body: bytes, *, message_type: str | None, message_id: str | None, headers: Mapping[str, Any] | None
) -> str:
    """Return the id of the job that a job, a copy of one, or a result is about; "" where a result names none."""
    if message_type == MESSAGE_TYPE:
        try:
            return _DECODER.decode(body).job_id
        except msgspec.DecodeError:
            return ""
    properties = Properties(message_id=message_id, headers=headers or {})
    try:
        return read_job(body, properties).job_id
    except InvalidJob as invalid:
        return invalid.job.job_id
