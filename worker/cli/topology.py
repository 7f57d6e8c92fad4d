"""`lcm-worker topology show`, `apply` and `export`: the exchanges, queues and bindings of these settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.common import ConfigOption, note, on_terminal, run_async, settings_of, topology_in_force

if TYPE_CHECKING:
    from worker.broker.topology import Topology

app = typer.Typer(no_args_is_help=True, help="Show, declare or export the exchanges and queues.")

_NAMES_DIFFER = "worker, producer and consumer need three different names, or they would share their rights"


@app.command()
def show(
    context: typer.Context,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, as in a pipe, also on a terminal.")] = False,
) -> None:
    """Show every exchange, queue and binding.

    Tables on a terminal, JSON in a pipe. No broker is asked: this is what the settings ask for.

    Example: lcm-worker topology show --config config/worker.toml
    """
    topology = topology_in_force(settings_of(context, config))
    if as_json or not on_terminal():
        _print_json(_plain(topology))
    else:
        _print_tables(topology)


@app.command()
def apply(context: typer.Context, config: ConfigOption = None) -> None:
    """Declare every exchange, queue and binding.

    Also where broker.declare is "passive". One line for each says whether it was created or stood there already.
    Exit status 2, naming entity and argument, where one stands there otherwise: nothing is ever changed or deleted.

    Example: lcm-worker topology apply --config config/worker.toml
    """
    from worker.broker.admin.apply import apply as apply_topology

    settings = settings_of(context, config)
    topology = topology_in_force(settings)
    run_async(apply_topology(settings.broker, topology, _print_done, name=f"{settings.worker.name} topology"))


@app.command()
def export(
    context: typer.Context,
    config: ConfigOption = None,
    worker_user: Annotated[
        str, typer.Option(metavar="NAME", help="The user of the workers.")
    ] = "lcm-outcome-worker",
    producer_user: Annotated[
        str, typer.Option(metavar="NAME", help="The user of those who publish jobs.")
    ] = "lcm-outcome-producer",
    consumer_user: Annotated[
        str, typer.Option(metavar="NAME", help="The user of those who take results.")
    ] = "lcm-outcome-consumer",
    accounts: Annotated[
        bool,
        typer.Option(
            "--users/--no-users", help="Create the users; without, they exist, and get permissions only."
        ),
    ] = True,
) -> None:
    """Print a RabbitMQ definitions file, with three users.

    For `rabbitmqctl import_definitions`, and for load_definitions in rabbitmq.conf. The users have the least
    permissions that work, and no password: nobody can log in as one until `rabbitmqctl change_password`.

    Importing the file again takes the passwords away again, as does each start of a broker that loads it: use
    --no-users for that, once the users exist; where they don't, such an import ends there. An import leaves queues
    that exist as they are, whatever their arguments, without a word: `lcm-worker topology apply` compares them.

    The worker's user can't declare anything: set broker.declare to "passive".

    Example: lcm-worker topology export | rabbitmqctl import_definitions
    """
    from worker.broker.admin.definitions import Users, definitions_of, vhost_of

    settings = settings_of(context, config)
    broker = settings.broker
    users = Users(worker_user, producer_user, consumer_user)
    if len({name for name in users.all if name.strip()}) < len(users.all):
        raise typer.BadParameter(_NAMES_DIFFER)
    document = definitions_of(
        topology_in_force(settings),
        vhost=vhost_of(broker.urls[0]),
        users=users,
        replies=bool(broker.reply_to_prefixes),
        accounts=accounts,
    )
    _print_json(document)
    if accounts:
        note(f"nobody can log in until `rabbitmqctl change_password`: {', '.join(users.all)}")
        note("importing this again takes their passwords away: use --no-users for all but the first import")
    note(f"set broker.declare to 'passive' for workers that log in as {users.worker}")


def _print_done(done: str, what: str) -> None:
    print(f"{done:<8}{what}", flush=True)


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2))


def _plain(topology: Topology) -> dict[str, list[dict[str, Any]]]:
    return {
        "exchanges": [{"name": each.name, "type": each.kind} for each in topology.exchanges],
        "queues": [{"name": each.name, "arguments": each.all_arguments} for each in topology.queues],
        "bindings": [
            {"exchange": each.exchange, "queue": each.queue, "routing_key": each.key}
            for each in topology.bindings
        ],
    }


def _print_tables(topology: Topology) -> None:
    from worker.cli.tables import add_row, table
    from worker.cli.terminal import Terminal

    exchanges = table("exchange", "type", title="Exchanges")
    for exchange in topology.exchanges:
        add_row(exchanges, exchange.name, exchange.kind)
    queues = table("queue", "argument", "value", title="Queues")
    for queue in topology.queues:
        for number, (name, value) in enumerate(queue.all_arguments.items()):
            add_row(queues, "" if number else queue.name, name, str(value))
        queues.add_section()
    bindings = table("exchange", "routing key", "queue", title="Bindings")
    for binding in topology.bindings:
        add_row(bindings, binding.exchange, binding.key, binding.queue)
    console = Terminal()
    for each in (exchanges, queues, bindings):
        console.print(each)
