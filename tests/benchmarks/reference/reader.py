"""The bare reader of a log: decodes each line and counts its events, as the reference for `top`.

python -m tests.benchmarks.reference.reader FILE
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import msgspec


def main() -> None:
    decode = msgspec.json.Decoder(dict[str, object]).decode
    events: Counter[object] = Counter()
    with Path(sys.argv[1]).open("rb") as lines:
        for line in lines:
            events[decode(line)["event"]] += 1
    sys.stdout.write(f"{dict(events)}\n")


if __name__ == "__main__":
    main()
