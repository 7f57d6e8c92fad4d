"""lcm-outcome-worker: outcome-lookup jobs in, normalized telephony outcome lists out."""

from importlib.metadata import version

__version__ = version("lcm-outcome-worker")
