"""The arguments that all programs beside the worker take, and how they say that they are ready."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

READY = "ready"
JOBS, RESULTS, KEY = "lcm.outcome.jobs", "lcm.outcome.results", "result.succeeded"


@dataclass(frozen=True)
class Given:
    broker: str
    lcm: str
    sessions: int
    prefetch: int


def given() -> Given:
    parser = argparse.ArgumentParser()
    parser.add_argument("broker")
    parser.add_argument("lcm")
    parser.add_argument("sessions", type=int)
    parser.add_argument("prefetch", type=int)
    return Given(**vars(parser.parse_args()))


def say_ready() -> None:
    sys.stderr.write(f"{READY}\n")
    sys.stderr.flush()
