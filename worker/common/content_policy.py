"""How a page of ours names, in its Content-Security-Policy, the one style or script that a browser may use."""

from __future__ import annotations

import base64
import hashlib


def by_hash(text: str) -> str:
    """Return the policy's source that allows exactly this text, written into the page itself."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
