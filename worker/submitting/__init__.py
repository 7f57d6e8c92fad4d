"""Publishing jobs from files and collecting their results: what `lcm-worker submit` does."""
