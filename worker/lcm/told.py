"""What LCM says, as it may be told: without the secrets that it was sent, and may tell back."""

from __future__ import annotations

from typing import Protocol

from worker.common.text import cut
from worker.contract.result import MAX_ERROR_MESSAGE


class Secrets(Protocol):
    """Masks secrets."""

    def __call__(self, text: str, /) -> str:
        """Return words without secrets."""

    def in_data(self, text: str, /) -> str:
        """Return data without secrets, but for those that might be words of the data."""


class _NoSecrets:
    def __call__(self, text: str) -> str:
        return text

    in_data = __call__


NO_SECRETS: Secrets = _NoSecrets()


def told(text: str, secrets: Secrets) -> str:
    """Return LCM's own words without secrets, cut to what a result keeps of them."""
    return cut(secrets(text), MAX_ERROR_MESSAGE)
