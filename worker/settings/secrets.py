"""Every secret in force, in each form in which it may appear, and how they are masked in texts and in data."""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Iterator
from html import escape
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from worker.common.text import printable
from worker.settings.masking import MASK
from worker.settings.secret_file import SecretFile
from worker.settings.sections import Settings

_SHORTEST_SECRET = 4
_SHORTEST_IN_DATA = 8
_SECRET_NAME = re.compile("pass|pwd|token|secret|credential|jwt|api.?key|pin$", re.IGNORECASE)
_SHORTEST_AT_END = 12  # fewer characters of a secret's beginning may well be what a text ends with
_CUT = re.compile(r"(…|\.{3,})")  # the mark of a cut: ours, and RabbitMQ's
# What has such a name may hold a credential beside words such as "Bearer", or be a word.
_LOGIN_NAME = re.compile("auth|key|cookie|session|sid$|sign", re.IGNORECASE)
_PART = re.compile(
    r"""(?:([^\s;,&=:"'<>]+)["']?\s*[=:]\s*["']?)?([^\s;,&=:"'<>]+)"""
)  # with the name before it, if any
_LONG = 24  # characters of a text without blanks, such as a token has and a topic has not


class Scrubber:
    """Masks every secret in a text, also those that a file has held since, or held before the present one.

    `urls` hold secrets as well.
    """

    def __init__(self, settings: Settings, *urls: str) -> None:
        self._settings = settings
        self._urls = urls
        self._files = _files_of(settings)
        self._held: object = None
        self._hide = self._hide_in_data = hiding(())

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        self._look()
        return self._hide(text)

    def in_data(self, text: str) -> str:
        """Return data without secrets: without those that can't be mistaken for what the data say.

        A word in an outcome's description stays, although somebody made a password of it.
        """
        self._look()
        return self._hide_in_data(text)

    def _look(self) -> None:
        held = [file.held for file in self._files]
        if held != self._held:
            secrets, self._held = secrets_of(self._settings, *self._urls), held
            self._hide = hiding(secrets)
            self._hide_in_data = hiding(tuple(filter(_is_unmistakable, secrets)), _SHORTEST_AT_END)


def hiding(secrets: Collection[str], shortest: int = _SHORTEST_SECRET) -> Callable[[str], str]:
    """Return what masks these secrets. The longest come first, or one that contains another would be masked in part.

    Any blanks stand for those within a secret: what makes one blank of several, as a result does, would restore it.
    Where a text was cut within a secret, its beginning of at least `shortest` characters is masked.
    """
    known = tuple((secret, _pattern_of(secret)) for secret in secrets)
    hide_beginnings = _Beginnings(secrets, shortest)

    def hide(text: str) -> str:
        # One after the other: where a text holds none, as nearly all do, a pattern of them all takes ten times as long.
        for secret, pattern in known:
            text = text.replace(secret, MASK) if pattern is None else pattern.sub(MASK, text)
        return hide_beginnings(text)

    return hide


class _Beginnings:
    """Masks the beginning of a secret that a text was cut within: before the mark of a cut, or at the text's end."""

    def __init__(self, secrets: Iterable[str], shortest: int) -> None:
        self._shortest = shortest
        self._by_start: dict[str, list[str]] = {}
        self._ends: set[str] = set()
        self._longest = 0
        for secret in secrets:
            self._by_start.setdefault(secret[:_SHORTEST_SECRET], []).append(secret)
            self._ends.update(secret[at : at + _SHORTEST_SECRET] for at in range(len(secret)))
            self._longest = max(self._longest, len(secret))

    def __call__(self, text: str) -> str:
        if "…" in text or "..." in text:
            *before, last = _CUT.split(text)
            before[::2] = (self._hide(part, self._shortest) for part in before[::2])
            return "".join(before) + self._hide(last, _SHORTEST_AT_END)
        return self._hide(text, _SHORTEST_AT_END)

    def _hide(self, text: str, shortest: int) -> str:
        # A look at its last characters spares nearly every text the search.
        if text[-_SHORTEST_SECRET:] in self._ends:
            for at in range(max(0, len(text) - self._longest), len(text) - shortest + 1):
                if self._is_beginning(text[at:]):
                    return text[:at] + MASK
        return text

    def _is_beginning(self, text: str) -> bool:
        return any(secret.startswith(text) for secret in self._by_start.get(text[:_SHORTEST_SECRET], ()))


def _pattern_of(secret: str) -> re.Pattern[str] | None:
    parts = secret.split()
    return re.compile(r"\s+".join(map(re.escape, parts))) if len(parts) > 1 else None


def _is_unmistakable(secret: str) -> bool:
    return len(secret) >= _SHORTEST_IN_DATA and not secret.isalpha()


def secrets_of(settings: Settings, *urls: str) -> tuple[str, ...]:
    """Return every secret in force, and of these URLs, in each form in which it may come to light, the longest first.

    So are those that password files have held, as far as they are remembered: a library may still tell them.

    Secrets of less than 4 characters are left out, and so is the password "guest": as words of their own
    they would be scrubbed from everything else as well.
    """
    kept = {each for each in _secrets(settings, *urls) if len(each) >= _SHORTEST_SECRET and each != "guest"}
    forms = {form for secret in kept for form in spellings(secret)}
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))


def _files_of(settings: Settings) -> tuple[SecretFile, ...]:
    sections = (settings.broker, settings.lcm)
    return tuple(file for section in sections for file in (section.password_file, section.key_password_file))


def _secrets(settings: Settings, *urls: str) -> Iterator[str]:
    lcm = settings.lcm
    for url in (*settings.broker.urls, lcm.url, lcm.proxy, *urls):
        yield from secrets_in_url(url)
    for url in (lcm.url, lcm.proxy, *urls):
        yield from basic_of_url(url)
    for file in _files_of(settings):
        yield from (secret.get_secret_value() for secret in file.held)
    for secret in lcm.passwords:
        if password := secret.get_secret_value():
            yield password
            yield from basic_forms(lcm.username or lcm.session_name, password)
    for name, value in lcm.headers.items():
        yield value.get_secret_value()
        yield from secrets_in_header(name, value.get_secret_value())
    for greeting in lcm.greeting:
        yield greeting.send.get_secret_value()
        yield from secrets_in_greeting(greeting.send.get_secret_value())


def secrets_in_greeting(text: str) -> Iterator[str]:
    """Yield what is secret by itself in a message that logs in: a JSON document, or words such as `LOGIN me secret`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict | list):
        yield from _secrets_in_json(document)
    else:
        yield from _credentials_in(text)


def _secrets_in_json(document: object) -> Iterator[str]:
    """Yield each text that is secret by its name, such as `token`, or that is long and no words.

    The others are words such as a topic, which would be masked wherever they stand.
    """
    inner = [("", document)]
    while inner:
        name, value = inner.pop()
        if isinstance(value, dict):
            inner += value.items()
        elif isinstance(value, list):
            inner += [(name, each) for each in value]
        elif isinstance(value, str):
            if _SECRET_NAME.search(name) or (len(value) >= _LONG and " " not in value):
                yield value
            if _LOGIN_NAME.search(name) or _SECRET_NAME.search(name):
                yield from _secrets_in_value(value)


def secrets_in_header(name: str, value: str) -> Iterator[str]:
    """Yield what is secret by itself in the value of a header."""
    yield from _secrets_in_value(value)
    if name.lower().endswith("authorization"):
        # "Bearer" and the like are no secret, what follows is.
        yield value.partition(" ")[2].strip()
    elif name.lower() == "cookie":
        yield from (pair.partition("=")[2].strip() for pair in value.split(";"))


def _secrets_in_value(value: str) -> Iterator[str]:
    """Yield the credentials in a value, and what a Basic one holds."""
    yield from _credentials_in(value)
    scheme, _, token = value.partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = b64decode(token, validate=True).decode().partition(":")
        except ValueError:
            return
        yield password
        yield from basic_forms(user, password)


def _credentials_in(text: str) -> Iterator[str]:
    """Yield each part that is secret by its name, as in `password=hunt`, or that looks like a credential."""
    for name, value in _PART.findall(text):
        if _SECRET_NAME.search(name) or _looks_like_credential(value):
            yield value
            yield unquote(value)
        if _looks_like_credential(name):
            yield name


def _looks_like_credential(part: str) -> bool:
    return _is_unmistakable(part) or len(part) >= _LONG


def secrets_in_url(url: str) -> Iterator[str]:
    """Yield every secret of a URL, percent-encoded as it is written and decoded."""
    parts = urlsplit(url)
    if parts.password:
        yield parts.password
        yield unquote(parts.password)
    for item in parts.query.split("&"):
        # The `name` parameter names a session; it is no secret, and may be as common a word as "worker".
        if not item.startswith("name="):
            # A token may stand there without a name.
            value = item.partition("=")[2] if "=" in item else item
            yield value
            yield unquote(value)
    yield from (value for name, value in parse_qsl(parts.query) if name != "name")


def basic_of_url(url: str) -> Iterator[str]:
    """Yield what a URL's user information becomes in an `Authorization` header."""
    parts = urlsplit(url)
    if parts.password:
        yield from basic_forms(unquote(parts.username or ""), unquote(parts.password))


def basic_forms(user: str, password: str) -> Iterator[str]:
    """Yield the Basic credential, then the parts of it that reveal the password under any user name.

    Base64 writes three bytes as four letters, so the same password looks one of three ways, depending on the
    length of what stands before it; its first letters, which it shares with that, are left out.
    """
    yield b64encode(f"{user}:{password}".encode()).decode()
    ending = f":{password}".encode()
    for before in range(3):
        shared = (8 * before + 5) // 6
        yield b64encode(bytes(before) + ending).decode().rstrip("=")[shared:]


_MARKUP = frozenset("&<>'\"+`")  # what some write as \uXXXX in JSON, so that it can stand in HTML


def spellings(secret: str) -> Iterator[str]:
    """Yield the forms in which a secret may appear.

    As it is, quoted in a URL, in base64, escaped in JSON as different libraries do, in HTML, or by Python.
    """
    for form in (secret, printable(secret)):
        yield form
        yield repr(form)[1:-1]
        # A text that holds both kinds of quotes has the single ones escaped.
        yield repr(f'"{form}')[2:-1]
    yield quote(secret, safe="")
    yield b64encode(secret.encode(errors="surrogatepass")).decode().rstrip("=")
    for in_ascii in (True, False):
        text = json.dumps(secret, ensure_ascii=in_ascii)[1:-1]
        yield text
        yield text.replace("/", r"\/")
    for digits in ("04x", "04X"):
        yield "".join(rf"\u{ord(letter):{digits}}" if letter in _MARKUP else letter for letter in secret)
    html = escape(secret)
    for apostrophe in ("&#x27;", "&#39;"):
        form = html.replace("&#x27;", apostrophe)
        yield form
        yield form.replace("/", "&#x2F;")
