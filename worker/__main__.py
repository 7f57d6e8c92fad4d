"""`lcm-worker`, and `python -m worker`."""

import sys


def main() -> None:
    """Run the command line, see `worker.cli.main`; an interrupt ends it from its first import on."""
    try:
        from worker.cli import main as run  # noqa: PLC0415 - it takes the longest
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
