"""`python -m worker` is `lcm-worker`."""

from worker.cli import main

main()
