"""The `lcm` section: LCM's address, credentials, sessions, timeouts and limits."""

from collections.abc import Iterator, Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from worker.settings.lcm_checks import (
    check_headers,
    check_lcm_url,
    check_proxy,
    check_session_name,
    check_subprotocols,
    check_user,
)
from worker.settings.masking import MaskedUrl
from worker.settings.secret_file import SecretFile
from worker.settings.section import Conflict, Section, certificate_conflicts
from worker.settings.types import (
    Duration,
    FromJson,
    Number,
    Readable,
    Secret,
    SecretPath,
    Sensitive,
    Size,
    Text,
    Texts,
    Url,
    UserName,
    Whole,
)


def _has_text(secret: SecretStr) -> SecretStr:
    if not secret:
        raise ValueError("must not be empty")
    return secret


class Greeting(Section):
    """One message to send after connecting; `await_subtopic` is empty where no reply is awaited."""

    send: Annotated[Secret, AfterValidator(_has_text)]
    await_subtopic: Text = Field(default="", alias="await")


class LcmSettings(Section):
    """LCM's address, credentials, sessions, timeouts and limits. Times are seconds, sizes bytes."""

    url: Annotated[Url, AfterValidator(check_lcm_url)] = Field(
        default=MaskedUrl("ws://127.0.0.1:8765/"),
        description="Where LCM is: ws:// or, encrypted, wss://.",
    )
    sessions: Whole = Field(
        default=32,
        ge=1,
        le=10_000,
        description="How many connections to LCM this worker keeps at most. One exchange at a time runs on "
        "each, so this is also how many jobs are looked up at once.",
    )
    connect_timeout: Duration = Field(
        default=10.0,
        gt=0,
        le=600,
        description="How long opening a session may take, greetings included. A duration.",
    )
    reply_timeout: Duration = Field(
        default=10.0,
        gt=0,
        le=600,
        description="How long LCM may take to reply. A duration; a session that is late is closed, since "
        "its reply could be taken for the next one's.",
    )
    ping_interval: Duration = Field(
        default=20.0,
        ge=0,
        le=3600,
        description="How often an open session is checked by a websocket ping. A duration; 0 = never, and "
        "then a peer that has gone is noticed only by the next exchange, and a reply that LCM sends twice can be taken "
        "for the next account's: set max_exchanges = 1 with it.",
    )
    ping_timeout: Duration = Field(
        default=20.0,
        ge=0,
        le=3600,
        description="How long the answer to a ping may take before the session is closed. A duration; 0 = "
        "no limit.",
    )
    max_exchanges: Whole = Field(
        default=0,
        ge=0,
        le=1_000_000_000,
        description="After how many exchanges a session is replaced. 0 = never; 1 = a fresh session for "
        "every exchange, for an LCM that sends replies late or twice.",
    )
    max_reply: Size = Field(
        default=2**20,
        ge=256,
        le=64 * 2**20,
        description='The largest message accepted from LCM: "512KiB", "1MiB", or bytes. A larger one fails '
        "its job as reply_too_large.",
    )
    max_rate: Number = Field(
        default=0.0,
        ge=0,
        le=1_000_000,
        description="The most exchanges per second that this worker starts. 0 = no limit.",
    )
    fleet_sessions: Whole = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="How many sessions all workers of this broker, virtual host and prefix keep at most together, "
        "however many workers there are. 0 = no limit but lcm.sessions for each of them.",
    )
    fleet_rate: Number = Field(
        default=0.0,
        ge=0,
        le=1_000_000,
        description="The most exchanges per second that all workers of this broker, virtual host and prefix start "
        "together. 0 = no limit but lcm.max_rate for each of them.",
    )
    subprotocols: Annotated[Texts, AfterValidator(check_subprotocols)] = Field(
        default=(),
        description="Names of websocket subprotocols to offer to LCM, the preferred one first; LCM must choose one "
        "of them. They are shown: a token belongs in headers. An empty list: none is offered.",
    )
    share: bool = Field(
        default=True,
        description="true: jobs for one account that are in work at the same time share one exchange.",
    )
    username: Annotated[UserName, AfterValidator(check_user)] = Field(
        default="",
        description="User name of the Basic credentials that are sent on connecting. Empty: session_name, "
        "where that is set; else no credentials are sent.",
    )
    # Before `password`, whose validator needs it.
    password_file: SecretPath = Field(
        default=SecretFile(),
        description="A file that holds lcm.password, instead of it. Read anew for each session, so that a "
        "token which expires can be replaced.",
    )
    password: Secret = Field(
        default=SecretStr(""),
        validate_default=True,
        description="Password, or token, of the Basic credentials. Rather use password_file, or the "
        "environment.",
    )
    headers: Annotated[Mapping[str, Secret], AfterValidator(check_headers), FromJson, Sensitive()] = Field(
        default_factory=dict,
        examples=['{ "X-Api-Key" = "…" }'],
        description="HTTP headers to send on connecting: a table of names and values. The values are kept "
        "secret.",
    )
    session_name: Annotated[UserName, AfterValidator(check_session_name)] = Field(
        default="",
        description="The name that a session gives in the query parameter name and, where username is "
        "empty, as the Basic user name. May hold {worker} (worker.name), {n} (the session's "
        "number within this worker) and {unixtime} (when it was opened, in seconds). LCM "
        "refuses a name twice, so without {n} it needs sessions = 1. Empty: no name is sent.",
    )
    greeting: Annotated[tuple[Greeting, ...], FromJson, Sensitive()] = Field(
        default_factory=tuple,
        examples=['[{ send = "{\\"topic\\":\\"Login\\"}", await = "LoginResponse" }]'],
        description="Messages to send after connecting, in this order: a list of tables with the text to "
        "send and, optionally, the subtopic of the reply to await before going on. The texts "
        "are kept secret.",
    )
    session_errors: Texts = Field(
        default=("NOT_LOGGED_IN", "WEBSOCKET_ERROR"),
        description="Values of errorType or msg in LCM's replies that speak of LCM or of this session "
        "rather than of the account; letter case, blanks and _ don't count. They close the "
        "session and the job is tried again; all others fail it as lcm_rejected.",
    )
    full_errors: Texts = Field(
        default=("TOO_MANY_SESSIONS",),
        description="Values of errorType or msg by which LCM answers the first message of a session for "
        "which it has no room, read as those of session_errors. While other sessions are open, work goes on "
        "there and the job is not charged.",
    )
    ca_file: Readable = Field(
        default="",
        description="PEM file of the authorities that may have signed LCM's certificate (wss://). Empty: "
        "those that the system trusts.",
    )
    cert_file: Readable = Field(
        default="",
        description="PEM file of the certificate that the worker shows to LCM (wss://). Empty: none.",
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
    proxy: Annotated[Url, AfterValidator(check_proxy)] = Field(
        default=MaskedUrl(),
        description="HTTP proxy on the way to LCM: http://USER:PASSWORD@HOST:PORT. Empty: none, whatever "
        "the environment of the process says.",
    )

    @field_validator("password")
    @classmethod
    def _password_of_file(cls, password: SecretStr, info: ValidationInfo) -> SecretStr:
        if not (file := info.data.get("password_file")):
            return password
        if password:
            raise ValueError("is given beside lcm.password_file; remove one of them")
        secret: SecretStr = file.secret
        return secret

    @property
    def has_fleet_limit(self) -> bool:
        """Whether the workers share a limit."""
        return bool(self.fleet_sessions or self.fleet_rate)

    @property
    def passwords(self) -> tuple[SecretStr, ...]:
        """The password, the one in force first; of a file also those that it held before."""
        return self.password_file.held or (self.password,)

    def conflicts(self) -> Iterator[Conflict]:
        """Yield what is wrong between the settings of this section."""
        yield from certificate_conflicts(self.cert_file, self.key_file, self.key_password_file)
        if self.session_name and "{n}" not in self.session_name and self.sessions > 1:
            wrong = f"needs {{n}}, since lcm.sessions is {self.sessions} and LCM refuses the same name twice"
            yield Conflict("session_name", wrong, ("sessions",))
        user = "username" if self.username else "session_name"
        if self.password and not (self.username or self.session_name):
            yield Conflict(
                "password", "needs lcm.username, or lcm.session_name, to go with it", ("password_file", user)
            )
        if not self.username and ":" in self.session_name:
            wrong = (
                "must not hold a colon where it is the Basic user name; set lcm.username or remove the colon"
            )
            yield Conflict("session_name", wrong, ("username",))
        yield from self._credentials_given_twice()

    def _credentials_given_twice(self) -> Iterator[Conflict]:
        # All of them become the one `Authorization` header.
        given = {
            "url": urlsplit(self.url).password is not None and "holds a user name and a password",
            "headers": any(name.lower() == "authorization" for name in self.headers) and "hold Authorization",
        }
        named = tuple(name for name in ("username", "session_name") if getattr(self, name))
        found = [(name, what) for name, what in given.items() if what]
        for name, what in found if named or len(found) > 1 else ():
            others = (*named, *(other for other, _ in found if other != name))
            beside = " and ".join(f"lcm.{other}" for other in others)
            yield Conflict(name, f"{what}, beside {beside}: only one can be sent as Authorization", others)
