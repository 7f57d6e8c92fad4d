"""All sections but the two large ones, and the settings as a whole."""

import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from worker.common.durations import format_duration
from worker.settings.broker_section import BrokerSettings
from worker.settings.lcm_section import LcmSettings
from worker.settings.masking import clear_url
from worker.settings.section import Conflict, Section
from worker.settings.types import Duration, Lowered, Number, Text, Whole

_WORKER_NAME = re.compile(r"[^\s:]{1,128}")


class RetrySettings(Section):
    """How often a failed exchange is tried again at once. Times are seconds."""

    attempts: Whole = Field(
        default=3,
        ge=1,
        le=100,
        description="How many exchanges one delivery of a job may take, the first included, while LCM "
        "gives errors that may pass. 1 = none is repeated at once.",
    )
    first_delay: Duration = Field(
        default=0.2,
        ge=0,
        le=600,
        description="The longest pause before the second exchange. A duration; each further pause may be "
        "twice as long, and each is drawn at random between 0 and that.",
    )
    max_delay: Duration = Field(
        default=5.0,
        ge=0,
        le=600,
        description="The longest pause between two exchanges. A duration.",
    )
    budget: Duration = Field(
        default=60.0,
        gt=0,
        le=1500,
        description="How long the exchanges and pauses of one delivery may take together. A duration; "
        "waiting for a free session is not counted. Then the job goes to a retry queue.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """Yield what is wrong between the settings of this section."""
        yield from _not_longer(self, "first_delay", "max_delay")


class OutageSettings(Section):
    """When an outage of LCM starts, and how its end is found. Times are seconds."""

    failures: Whole = Field(
        default=5,
        ge=1,
        le=10_000,
        description="How many exchanges in a row, each for another account, must fail to start an outage. The two "
        "accounts that LCM answered last must be among them: they are asked for then.",
    )
    probe_delay: Duration = Field(
        default=1.0,
        gt=0,
        le=3600,
        description="The pause before the first probe of an outage. A duration; it grows with every probe "
        "that fails.",
    )
    probe_max_delay: Duration = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="The longest pause between two probes. A duration; where LCM refuses the credentials "
        "or a certificate is wrong, probing starts with it, so that no account gets locked.",
    )
    hold: Duration = Field(
        default=600.0,
        gt=0,
        le=1500,
        description="A job held longer than this goes back through the first retry queue, uncharged. A "
        "duration; RabbitMQ closes the channel of a consumer that holds a message for 30 "
        "minutes.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """Yield what is wrong between the settings of this section."""
        yield from _not_longer(self, "probe_delay", "probe_max_delay")


class GuardSettings(Section):
    """When a producer's jobs are held back because nearly every one fails."""

    window: Whole = Field(
        default=200,
        ge=1,
        le=100_000,
        description="How many of the last jobs are looked at; one account counts for a twentieth of them at most.",
    )
    ratio: Number = Field(
        default=0.9,
        ge=0,
        le=1,
        description="The share of them that LCM must have refused or not answered, or that a defect must have failed, "
        "for a few to be taken at a time until one succeeds: so a bad deploy can't move a whole queue into the "
        "dead-letter queue, nor jobs without an answer keep others from LCM. 0 = off.",
    )


class LogSettings(Section):
    """What is logged, and how. Times are seconds."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Lowered] = Field(
        default="info",
        description="The least level that is logged: debug, info, warning or error.",
    )
    format: Annotated[Literal["auto", "console", "json"], Lowered] = Field(
        default="auto",
        description="console is for people, json is one object per line. auto: console on a terminal, else "
        "json.",
    )
    accounts: Annotated[Literal["plain", "hashed"], Lowered] = Field(
        default="plain",
        description="hashed keeps account numbers out of the log: a hash stands in their place, and LCM's "
        "own texts, which may hold them, are left out.",
    )
    stats_interval: Duration = Field(
        default=30.0,
        gt=0,
        le=86_400,
        description="How often worker.stats is logged. A duration.",
    )


def _listen(listen: str) -> str:
    if listen:
        parts = clear_url(f"tcp://{listen}")
        if parts is None or parts.port is None or parts.netloc != listen or "@" in listen:
            raise ValueError('must be HOST:PORT such as "127.0.0.1:8080" or "[::1]:8080", or empty')
    return listen


class HealthSettings(Section):
    """Where the worker tells how it is."""

    listen: Annotated[Text, AfterValidator(_listen)] = Field(
        default="",
        examples=['"127.0.0.1:8080"'],
        description="HOST:PORT where /livez, /readyz and /metrics are served over HTTP. Empty: nowhere.",
    )

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of `listen`; None where it is off."""
        parts = urlsplit(f"//{self.listen}")
        return None if parts.hostname is None or parts.port is None else (parts.hostname, parts.port)


def _worker_name(name: str) -> str:
    if not _WORKER_NAME.fullmatch(name):
        raise ValueError("must have 1 to 128 characters, without blanks and colons")
    return name


class WorkerSettings(Section):
    """This worker itself. Times are seconds."""

    name: Annotated[Text, AfterValidator(_worker_name)] = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}",
        examples=['"host-1-4711"'],
        description="The worker's name in results, in the log and, as {worker}, in "
        "lcm.session_name. If left out, the host's name and the process id. Must differ "
        "between workers.",
    )
    shutdown_grace: Duration = Field(
        default=25.0,
        ge=0,
        le=3600,
        description="How long jobs in work may take to finish on shutdown before they are handed back to "
        "the broker. A duration, shorter than what the service manager allows before it kills.",
    )


def _not_longer(section: Section, shorter: str, longer: str) -> Iterator[Conflict]:
    first, last = getattr(section, shorter), getattr(section, longer)
    if first > last:
        wrong = (
            f"must not be longer than {longer}; found {format_duration(first)} and {format_duration(last)}"
        )
        yield Conflict(shorter, wrong, (longer,))


class Settings(BaseModel):
    """All settings. Built by `load`; built by hand, nothing is taken from files or from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # Before `broker`, whose prefetch follows from it.
    lcm: LcmSettings = Field(default_factory=LcmSettings)
    broker: BrokerSettings = Field(default_factory=BrokerSettings, validate_default=True)
    retry: RetrySettings = Field(default_factory=RetrySettings)
    outage: OutageSettings = Field(default_factory=OutageSettings)
    guard: GuardSettings = Field(default_factory=GuardSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    health: HealthSettings = Field(default_factory=HealthSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    # Where each setting that is not the default came from, by its dotted name.
    sources: Mapping[str, str] = Field(default_factory=dict, exclude=True, repr=False)
    # The path of the configuration file, "" without one.
    file: str = Field(default="", exclude=True, repr=False)

    @field_validator("broker")
    @classmethod
    def _prefetch_of_sessions(cls, broker: BrokerSettings, info: ValidationInfo) -> BrokerSettings:
        if "prefetch" in broker.model_fields_set or "lcm" not in info.data:
            return broker
        return broker.model_copy(update={"prefetch": 2 * info.data["lcm"].sessions})


SECTIONS: Mapping[str, type[Section]] = {
    "broker": BrokerSettings,
    "lcm": LcmSettings,
    "retry": RetrySettings,
    "outage": OutageSettings,
    "guard": GuardSettings,
    "log": LogSettings,
    "health": HealthSettings,
    "worker": WorkerSettings,
}
