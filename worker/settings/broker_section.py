"""The `broker` section: where RabbitMQ is, and how the topology there is named."""

from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field

from worker.common.durations import format_duration
from worker.settings.masking import MaskedUrl, clear_url, lower_scheme, with_password
from worker.settings.secret_file import SecretFile
from worker.settings.section import Conflict, Section, certificate_conflicts
from worker.settings.types import (
    Duration,
    Durations,
    Lowered,
    Readable,
    SecretPath,
    Texts,
    Url,
    Whole,
)

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
DEFAULT_PREFETCH = 64
_MAX_TTL_MS = 2**32 - 1
_MAX_NAME = 255
# The library passes them on to an event loop that does not know them.
_UNSUPPORTED = ("happy_eyeballs_delay", "interleave")


def _split(urls: str) -> tuple[str, ...]:
    return tuple(url.strip() for url in urls.split(",") if url.strip())


def _amqp_urls(urls: str) -> str:
    if not _split(urls):
        raise ValueError("must not be empty; write amqp://USER:PASSWORD@HOST:5672/")
    urls = MaskedUrl(",".join(map(lower_scheme, urls.split(","))))
    for url in _split(urls):
        parts = clear_url(url)
        if not url.startswith(("amqp://", "amqps://")):
            raise ValueError("must start with amqp:// or amqps:// (in a password, write a comma as %2C)")
        if parts is None or "@" in parts.query:
            raise ValueError(
                "must be amqp://USER:PASSWORD@HOST:PORT/VHOST "
                "(in a password, write / as %2F, @ as %40, # as %23, ? as %3F, : as %3A)"
            )
        if parse_qs(parts.query, keep_blank_values=True).keys() & {*_UNSUPPORTED}:
            raise ValueError(f"must not have the parameters {' and '.join(_UNSUPPORTED)}")
    return urls


def _retry_delays(delays: tuple[float, ...]) -> tuple[float, ...]:
    if not delays:
        raise ValueError("must not be empty: jobs that can't be finished now wait in the first retry queue")
    for delay in delays:
        milliseconds = round(delay * 1000, 6)
        if not 0 < milliseconds <= _MAX_TTL_MS or milliseconds % 1:
            raise ValueError(
                f"must be whole milliseconds, above 0 and up to {_MAX_TTL_MS} (49 days), as RabbitMQ counts; "
                f"{format_duration(delay)} is not"
            )
    names = [format_duration(delay) for delay in delays]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"must differ from each other, since each names a queue; {twice[0]} is there twice")
    return delays


def _prefix(prefix: str) -> str:
    if not prefix.isascii() or not prefix.replace(".", "a").replace("-", "a").replace("_", "a").isalnum():
        raise ValueError("must consist of letters, digits, dots, hyphens and underscores")
    if prefix.startswith((".", "-")) or prefix.endswith("."):
        raise ValueError("must start with a letter, a digit or an underscore, and not end with a dot")
    if prefix.lower().startswith("amq."):
        raise ValueError("must not start with amq., which RabbitMQ keeps for itself")
    return prefix


class BrokerSettings(Section):
    """Where RabbitMQ is, and how the topology there is named. Times are seconds."""

    url: Annotated[Url, AfterValidator(_amqp_urls)] = Field(
        default=MaskedUrl(DEFAULT_URL),
        description="Where RabbitMQ is: amqp:// or amqps://, with the user name, the password and the "
        "virtual host. Several URLs, separated by commas, are the nodes of one cluster: they "
        "are tried in turn.",
    )
    password_file: SecretPath = Field(
        default=SecretFile(),
        description="A file that holds the password of broker.url, so that the URL itself need not. The "
        "URL then names the user alone: amqp://USER@HOST:5672/. Read anew for each connection.",
    )
    ca_file: Readable = Field(
        default="",
        description="PEM file of the authorities that may have signed the broker's certificate (amqps://). "
        "Empty: those that the system trusts.",
    )
    cert_file: Readable = Field(
        default="",
        description="PEM file of the certificate that the worker shows to the broker (amqps://). Empty: "
        "none.",
    )
    key_file: Readable = Field(
        default="",
        description="PEM file of the private key of cert_file. Empty: cert_file holds it as well.",
    )
    key_password_file: SecretPath = Field(
        default=SecretFile(),
        description="File that holds the password of an encrypted private key. Empty: the key is not "
        "encrypted.",
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="lcm.outcome",
        description="The first part of the names of all exchanges and queues. Workers with the same prefix "
        "share the work; another prefix is a separate installation.",
    )
    results_queue: bool = Field(
        default=True,
        description="true keeps every result in the queue <prefix>.results until somebody fetches it. "
        "false where consumers bind queues of their own to the exchange <prefix>.results.",
    )
    delivery_limit: Whole = Field(
        default=20,
        ge=2,
        le=1_000_000,
        description="How many times a job may return to its queue unacknowledged, as it does when a worker "
        "crashes. One delivery short of it, the job fails as poison. It is an argument of the "
        "queue: every worker with the same prefix must have the same.",
    )
    retry_delays: Annotated[Durations, AfterValidator(_retry_delays)] = Field(
        default=(5.0, 30.0, 120.0, 600.0),
        description="How long a job waits before it is tried again, once per entry, in this order; after "
        "the last one it fails. Durations, each with a retry queue of its own. Jobs deferred "
        "in an outage wait in the first.",
    )
    prefetch: Whole = Field(
        default_factory=lambda: DEFAULT_PREFETCH,
        ge=1,
        le=65_535,
        examples=[str(DEFAULT_PREFETCH)],
        description="How many jobs this worker holds at a time. If left out, twice lcm.sessions: one job "
        "in each session and one that waits for it.",
    )
    declare: Annotated[Literal["active", "passive"], Lowered] = Field(
        default="active",
        description="active creates the exchanges and queues that are missing. passive only checks that "
        "they exist, where operations own the topology.",
    )
    publish_timeout: Duration = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="How long the broker may take to confirm a message. A duration; a quorum queue that "
        "has lost its leader takes several seconds.",
    )
    undelivered_limit: Whole = Field(
        default=100_000,
        ge=1,
        le=1_000_000_000,
        description="How many results wait at most in the queue <prefix>.undelivered, where results go that no "
        "queue takes. It is an argument of the queue: every worker with the same prefix must have the same.",
    )
    reply_to_prefixes: Texts = Field(
        default=(),
        description="A job may name a queue in reply_to that gets its result as well, provided that the "
        "queue's name starts with one of these texts. An empty list: reply_to is ignored.",
    )

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs to try in turn, with the password of `password_file` put in, quoted."""
        urls = _split(self.url)
        if self.password_file:
            password = self.password_file.secret.get_secret_value()
            urls = tuple(with_password(url, password) for url in urls)
        return tuple(MaskedUrl(url) for url in urls)

    def conflicts(self) -> Iterator[Conflict]:
        """Yield what is wrong between the settings of this section."""
        yield from certificate_conflicts(self.cert_file, self.key_file, self.key_password_file)
        if self.password_file and self.url != DEFAULT_URL:
            parts = [urlsplit(url) for url in _split(self.url)]
            if any(part.password is not None for part in parts):
                wrong = "can't be given beside a password in broker.url; remove one of them"
                yield Conflict("password_file", wrong, ("url",))
            elif not all(part.username for part in parts):
                wrong = "needs the user's name in every URL of broker.url: amqp://USER@HOST:5672/"
                yield Conflict("password_file", wrong, ("url",))
        longest = max((f"retry.{format_duration(delay)}" for delay in self.retry_delays), key=len)
        longest = max(longest, "results", key=len)
        if (length := len(f"{self.prefix}.{longest}")) > _MAX_NAME:
            wrong = f"is too long: AMQP allows {_MAX_NAME} bytes, and <prefix>.{longest} has {length}"
            yield Conflict("prefix", wrong, ("retry_delays",))
