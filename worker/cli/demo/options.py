"""`lcm-worker demo`: a worker at work, with a broker, a simulated LCM and sample jobs."""

from __future__ import annotations

import typer

from worker.cli.common import ConfigOption, note, run_until_signalled, settings_of


def demo(context: typer.Context, config: ConfigOption = None) -> None:
    """Show it all at work, then clean up.

    RabbitMQ, a simulated LCM, a worker and sample jobs. Uses the broker of the settings where it answers, under
    names of its own; else a private node.

    Example: lcm-worker demo
    """
    from worker.cli.demo.run import Stage, demonstrate

    stage = Stage()
    complete = run_until_signalled(demonstrate(settings_of(context, config).broker, stage))
    if complete is None:
        raise typer.Exit(130)
    if not complete:
        note("not every sample job got its result in time")
        raise typer.Exit(1)
