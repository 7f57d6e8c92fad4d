"""URLs that hold secrets, and how they are shown without them."""

from urllib.parse import SplitResult, quote, urlsplit

from pydantic import SecretStr

MASK = str(SecretStr("any"))


class MaskedUrl(str):
    """One or more comma-separated URLs, a plain `str` for connecting; its `repr` masks the secrets."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(mask_urls(self))


def mask_urls(urls: str) -> str:
    """Mask the passwords and the values of query parameters; the whole text, where a part is no clear URL."""
    masked = [_mask_url(url.strip()) for url in urls.split(",")]
    return MASK if MASK in masked else ",".join(masked)


def clear_url(url: str) -> SplitResult | None:
    """Split a URL with a host; None where it has none, or can't be what its writer meant."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    # An unescaped "/" or "#" in a password makes a host of the user, and a path of the host.
    odd = parts.fragment or "@" in parts.path or not url.isprintable() or " " in url
    return None if odd or not parts.hostname or port == 0 else parts


def _mask_url(url: str) -> str:
    parts = clear_url(url)
    if parts is None or "@" in parts.query:
        return url and MASK
    user, has_user, host = parts.netloc.rpartition("@")
    name, has_password, _ = user.partition(":")
    if has_password or (has_user and not parts.scheme.startswith("amqp")):
        # Outside AMQP a name that stands alone is a token more often than not.
        user = f"{name if has_password else ''}:{MASK}"
    query = "&".join(_mask_parameter(item) for item in parts.query.split("&") if item)
    return parts._replace(netloc=f"{user}{has_user}{host}", query=query).geturl()


def _mask_parameter(item: str) -> str:
    name, equals, _ = item.partition("=")
    return f"{name}={MASK}" if equals else MASK


def lower_scheme(url: str) -> str:
    """Return the URL with its scheme in lower case, as libraries compare it."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme.lower()}{mark}{rest}" if scheme.strip().isalpha() else url


def with_password(url: str, password: str) -> str:
    """Return the URL with this password, quoted, in place of any other."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return parts._replace(netloc=f"{name}:{quote(password, safe='')}@{host}").geturl()
