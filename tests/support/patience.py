"""How much longer than on an idle machine things may take before a test gives them up."""

from __future__ import annotations

PATIENCE = 4
"""A busy machine takes several times as long; what hangs, hangs for ever, and is found out all the same."""
