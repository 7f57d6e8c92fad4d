"""`lcm-worker config show` and `lcm-worker config template`."""

from __future__ import annotations

import typer

from worker.cli.common import ConfigOption, on_terminal, settings_of

app = typer.Typer(no_args_is_help=True, help="Show the settings, or a file to start from.")


@app.command()
def show(context: typer.Context, config: ConfigOption = None) -> None:
    """Show the settings in force and where they come from.

    Secrets are masked. In a pipe: name, value and source, separated by tabs.

    Example: lcm-worker config show --config config/worker.toml
    """
    from worker.cli.config.rendering import describe

    rows = describe(settings_of(context, config))
    if not on_terminal():
        for row in rows:
            typer.echo("\t".join(row))
        return
    from worker.cli.tables import add_row, table
    from worker.cli.terminal import Terminal

    settings = table("setting", "value", "source")
    for name, value, source in rows:
        add_row(settings, name, value, source, style="" if source == "default" else "bold")
    Terminal().print(settings)


@app.command()
def template() -> None:
    """Print a commented TOML file with every setting.

    Each stands at its default, so that the file as it is changes nothing.

    Example: lcm-worker config template > worker.toml
    """
    from worker.cli.config import rendering

    typer.echo(rendering.template(), nl=False)
