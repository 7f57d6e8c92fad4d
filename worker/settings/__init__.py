"""The settings: read from a TOML file and the environment, checked, and frozen.

Other folders import from here alone. `section` is the base of all sections, `types` the kinds of values;
`broker_section`, `lcm_section` and `sections` hold every setting; `sources` and `loading` read them; `masking`
hides secrets where settings are shown, `secrets` masks them in the log; `secret_file` and `tls` read secrets and
certificates, `rereading` does so again while the worker runs; `exposure` tells where others can read what is secret,
and where replies can be mistaken, `expiry` when certificates expire; `tracing` tells whether traces are asked for, and
where credentials go with them.
"""

from worker.settings.broker_section import BrokerSettings
from worker.settings.expiry import expiries_of
from worker.settings.exposure import exposures_of, exposures_of_management, unfenced_of
from worker.settings.lcm_section import Greeting, LcmSettings
from worker.settings.loading import load
from worker.settings.secrets import Scrubber, secrets_of
from worker.settings.sections import (
    GuardSettings,
    HealthSettings,
    LogSettings,
    OutageSettings,
    RetrySettings,
    Settings,
    WorkerSettings,
)
from worker.settings.tls import log_no_keys
from worker.settings.tracing import asks_for_traces

__all__ = [
    "BrokerSettings",
    "Greeting",
    "GuardSettings",
    "HealthSettings",
    "LcmSettings",
    "LogSettings",
    "OutageSettings",
    "RetrySettings",
    "Scrubber",
    "Settings",
    "WorkerSettings",
    "asks_for_traces",
    "expiries_of",
    "exposures_of",
    "exposures_of_management",
    "load",
    "log_no_keys",
    "secrets_of",
    "unfenced_of",
]
