"""Sections of the settings, with what a test wants otherwise."""

from __future__ import annotations

from typing import Any

from worker.settings import BrokerSettings, LcmSettings


def broker_settings(*urls: str, **settings: Any) -> BrokerSettings:
    """Return the broker section with these URLs."""
    return BrokerSettings.model_validate({"url": ",".join(urls)} | settings)


def lcm_settings(url: str, **settings: Any) -> LcmSettings:
    """Return the lcm section for a server at this URL."""
    return LcmSettings.model_validate({"url": url} | settings)
