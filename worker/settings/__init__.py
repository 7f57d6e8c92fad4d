"""The settings: read from a TOML file and the environment, checked, and frozen.

Others import from here alone. `section` is what all sections are made of, `kinds` the kinds of values;
`broker_section`, `lcm_section` and `sections` name every setting; `given` and `loading` read them; `writing`
and `masking` show them without their secrets.
"""

from worker.settings.broker_section import BrokerSettings
from worker.settings.lcm_section import Greeting, LcmSettings
from worker.settings.loading import load
from worker.settings.sections import (
    GuardSettings,
    HealthSettings,
    LogSettings,
    OutageSettings,
    RetrySettings,
    Settings,
    WorkerSettings,
)
from worker.settings.writing import describe, secrets_of, template

__all__ = [
    "BrokerSettings",
    "Greeting",
    "GuardSettings",
    "HealthSettings",
    "LcmSettings",
    "LogSettings",
    "OutageSettings",
    "RetrySettings",
    "Settings",
    "WorkerSettings",
    "describe",
    "load",
    "secrets_of",
    "template",
]
