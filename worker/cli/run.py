"""`lcm-worker run`: the worker itself."""

from __future__ import annotations

from dataclasses import asdict

import typer

from worker.cli.common import ConfigOption, run_async, settings_of, status_of
from worker.contract.errors import WorkerError
from worker.settings import Scrubber, exposures_of, unfenced_of


def run(context: typer.Context, config: ConfigOption = None) -> None:
    """Consume jobs until SIGTERM or SIGINT.

    Then it finishes what is in hand, for worker.shutdown_grace at most; a second signal stops it at once. What
    isn't finished goes back to the broker, so nothing is lost. Its log goes to standard error.

    Example: lcm-worker run --config config/worker.toml
    """
    from worker.app import serve
    from worker.observability.log import build_log, route_library_logs

    settings = settings_of(context, config)
    log = build_log(settings.log, worker=settings.worker.name, hide=Scrubber(settings))
    route_library_logs(log)
    for exposure in exposures_of(settings):
        log.warning("settings.exposed", **asdict(exposure))
    for unfenced in unfenced_of(settings):
        log.warning("settings.unfenced", **asdict(unfenced))
    try:
        run_async(serve(settings, log))
    except WorkerError as error:
        # Logged, not printed as other commands do: a plain line would break the format of the log.
        log.error("worker.failed", error=str(error))  # noqa: TRY400 - the text says all
        raise typer.Exit(status_of(error)) from error
    except Exception as error:
        # Logged, since Python's own traceback could show secrets and would break the format of the log.
        log.exception("worker.crashed")
        raise typer.Exit(1) from error
