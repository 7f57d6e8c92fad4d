"""The shape of the code, kept by reading its imports: the folder of a module says what it may import."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import worker

ROOT = Path(worker.__file__).parent
MOST_TOP_MODULES = 6

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"common"}),
    frozenset({"contract", "fleet"}),
    frozenset({"settings", "simulator"}),
    frozenset({"observability", "sandbox"}),
    frozenset({"lcm", "broker", "guard"}),
    frozenset({"broker.admin", "pipeline", "status"}),
    frozenset({"app", "asyncapi"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
"""The folders, and the modules beside them, from the bottom: each imports itself and what stands below it."""

CORE = frozenset(
    {
        "app",
        "broker",
        "common",
        "contract",
        "fleet",
        "guard",
        "lcm",
        "observability",
        "pipeline",
        "settings",
        "status",
    }
)
TOOLS = ("worker.simulator", "worker.sandbox", "worker.asyncapi", "worker.broker.admin")

PURE_FOLDERS = ("worker.common", "worker.contract", "worker.fleet", "worker.asyncapi")
PURE_MODULES = frozenset(
    {
        "worker.broker.admin.dead_letter",
        "worker.broker.admin.definitions",
        "worker.broker.admin.policies",
        "worker.broker.remedies",
        "worker.cli.accounts",
        "worker.cli.dead.selection",
        "worker.cli.lookup.reading",
        "worker.cli.status.workers",
        "worker.broker.topology",
        "worker.cli.top.histogram",
        "worker.cli.top.layout",
        "worker.cli.top.reading",
        "worker.cli.top.series",
        "worker.cli.top.summary",
        "worker.cli.top.tally",
        "worker.cli.top.timeline",
        "worker.cli.top.worker_tally",
        "worker.lcm.breaker",
        "worker.lcm.envelope",
        "worker.lcm.frames",
        "worker.lcm.http_answer",
        "worker.lcm.outcome_list",
        "worker.lcm.told",
        "worker.lcm.pacing",
        "worker.observability.readiness",
    }
)
# What tests replace, and what concerns processes, tasks and sockets, without any knowledge of jobs.
EDGES = frozenset(
    {
        "worker.common.asking",
        "worker.common.clock",
        "worker.common.dial",
        "worker.common.signals",
        "worker.common.tasks",
        "worker.common.threads",
    }
)
# The names and arguments of the queues follow from a dozen settings: like every component it is given its section.
TAKES_SETTINGS = frozenset({"worker.asyncapi.document", "worker.broker.topology"})
IMPURE = frozenset(
    {
        "asyncio",
        "logging",
        "random",
        "secrets",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "threading",
        "time",
    }
)
LIBRARIES = {
    "websockets": ("worker.lcm", "worker.simulator"),
    "aio_pika": ("worker.broker",),
    "aiormq": ("worker.broker",),
    "pamqp": ("worker.broker",),
    "tenacity": ("worker.lcm.retry",),
    "prometheus_client": ("worker.observability.metrics",),
    "opentelemetry": ("worker.observability.spans",),
}
# These start processes of their own, which need a PATH: nothing of this worker's configuration.
READ_ENVIRONMENT = ("worker.settings", "worker.cli.common", "worker.sandbox")

Rule = Callable[[str, ast.Module], Iterator[str]]


def within(module: str, *packages: str) -> bool:
    """Whether a module is one of these, or inside of one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def place(module: str) -> str:
    """Return the folder of a module, or its own name where it stands beside the folders."""
    parts = module.split(".")[1:]
    return "broker.admin" if parts[:2] == ["broker", "admin"] else parts[0] if parts else ""


def level(module: str) -> int:
    """Return how high a module's place stands in LAYERS."""
    return next(height for height, layer in enumerate(LAYERS) if place(module) in layer)


def is_pure(module: str) -> bool:
    """Whether a module is to have no I/O, clocks, random numbers or logging."""
    return within(module, *PURE_FOLDERS) or module in PURE_MODULES


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield what is imported, wherever in the module: of `from a import b`, both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, or the rules would not see them"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(tree: ast.Module) -> set[str]:
    """Return the modules of this package that are imported; a folder itself counts where it has code of its own."""
    found = {name for name in imports(tree) if name in SOURCES}
    return {name for name in found if SOURCES[name].body and name != "worker"}


def no_arrow_runs_upwards(module: str, tree: ast.Module) -> Iterator[str]:
    for name in sorted(own_imports(tree)):
        above = level(name) > level(module)
        beside = level(name) == level(module) and place(name) != place(module)
        if module != "worker" and (above or beside):
            yield f"{module} imports {name}, which does not stand below it"


def pure_modules_import_pure_ones(module: str, tree: ast.Module) -> Iterator[str]:
    if not is_pure(module) or module in EDGES:
        return
    for name in sorted(own_imports(tree)):
        allowed = is_pure(name) or (name == "worker.settings" and module in TAKES_SETTINGS)
        if not allowed:
            yield f"{module}, which is pure, imports {name}"
    for name in {name.partition(".")[0] for name in imports(tree)} - {"worker"}:
        if name != "msgspec" and (name not in sys.stdlib_module_names or name in IMPURE):
            yield f"{module}, which is pure, imports {name}"


def lcm_and_broker_are_strangers(module: str, tree: ast.Module) -> Iterator[str]:
    for mine, other in (("worker.lcm", "worker.broker"), ("worker.broker", "worker.lcm")):
        if within(module, mine):
            yield from (f"{module} imports {name}" for name in imports(tree) if within(name, other))


def libraries_have_one_home(module: str, tree: ast.Module) -> Iterator[str]:
    for name in imports(tree):
        homes = LIBRARIES.get(name.partition(".")[0])
        if homes is not None and not within(module, *homes):
            yield f"{module} imports {name}"


def the_pipeline_imports_pure_modules(module: str, tree: ast.Module) -> Iterator[str]:
    if module == "worker.pipeline":
        yield from (f"{module} imports {name}" for name in own_imports(tree) if not is_pure(name))
        foreign = {name.partition(".")[0] for name in imports(tree)} - {"worker"}
        yield from (f"{module} imports {name}" for name in foreign - (sys.stdlib_module_names - IMPURE))


def the_core_knows_no_tools(module: str, tree: ast.Module) -> Iterator[str]:
    if place(module) in CORE:
        yield from (f"{module} imports {name}" for name in imports(tree) if within(name, *TOOLS))


def the_simulator_stands_alone(module: str, tree: ast.Module) -> Iterator[str]:
    if within(module, "worker.simulator"):
        own = (name for name in own_imports(tree) if not within(name, "worker.simulator"))
        yield from (f"{module} imports {name}" for name in own)


def only_app_and_commands_load_settings(module: str, tree: ast.Module) -> Iterator[str]:
    if not within(module, "worker.settings", "worker.app", "worker.cli"):
        for name in imports(tree):
            if name == "worker.settings.load" or within(name, "worker.settings.loading"):
                yield f"{module} imports {name}"


def only_commands_import_the_app(module: str, tree: ast.Module) -> Iterator[str]:
    if not within(module, "worker.cli"):
        yield from (f"{module} imports {name}" for name in imports(tree) if within(name, "worker.app"))


def nothing_imports_the_commands(module: str, tree: ast.Module) -> Iterator[str]:
    if not within(module, "worker.cli", "worker.__main__"):
        yield from (f"{module} imports {name}" for name in imports(tree) if within(name, "worker.cli"))


def nothing_else_reads_the_environment(module: str, tree: ast.Module) -> Iterator[str]:
    if within(module, *READ_ENVIRONMENT):
        return
    reads = {"environ", "environb", "getenv"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in reads:
            yield f"{module} reads {ast.unparse(node)} in line {node.lineno}"
    yield from (
        f"{module} imports {name}" for name in imports(tree) if name in {f"os.{read}" for read in reads}
    )


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle; none where there is no circle."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def _sources() -> dict[str, ast.Module]:
    found = {}
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(file.read_bytes(), str(file))
    return found


SOURCES = _sources()
RULES: dict[Rule, list[tuple[str, str]]] = {
    no_arrow_runs_upwards: [
        ("worker.common.text", "from worker.contract.job import Job"),
        ("worker.contract.result", "from worker.settings import Settings"),
        ("worker.observability.log", "import worker.lcm.pool"),
        ("worker.lcm.outage", "from worker import guard"),
        ("worker.pipeline", "from worker.status import Status"),
        ("worker.broker.publisher", "from worker.broker.admin import inspect"),
        ("worker.broker.admin.replayer", "def late():\n    from worker.app import App"),
    ],
    pure_modules_import_pure_ones: [
        ("worker.contract.job", "import asyncio"),
        ("worker.contract.result", "from time import monotonic"),
        ("worker.contract.errors", "import structlog"),
        ("worker.contract.message", "import aio_pika"),
        ("worker.common.rate", "import random"),
        ("worker.lcm.outcome_list", "from worker.lcm import session"),
        ("worker.contract.job_copies", "def late():\n    from worker.observability.log import Log"),
        ("worker.lcm.envelope", "from worker.settings import Settings"),
    ],
    lcm_and_broker_are_strangers: [
        ("worker.lcm.pool", "from worker.broker.link import Link"),
        ("worker.broker.link", "from worker import lcm"),
        ("worker.broker.link", "import worker.lcm.pool as sessions"),
    ],
    libraries_have_one_home: [
        ("worker.cli.check", "import websockets"),
        ("worker.cli.demo.run", "from websockets.asyncio.client import connect"),
        ("worker.pipeline", "from aio_pika.abc import AbstractMessage"),
        ("worker.cli.check", "import aiormq"),
        ("worker.contract.message", "from pamqp import encode"),
        ("worker.lcm.lookup", "from tenacity import retry"),
        ("worker.status", "from prometheus_client import Counter"),
        ("worker.observability.tracing", "from opentelemetry import trace"),
    ],
    the_pipeline_imports_pure_modules: [
        ("worker.pipeline", "import asyncio"),
        ("worker.pipeline", "from worker.observability.log import Log"),
        ("worker.pipeline", "from worker.lcm import pool"),
        ("worker.pipeline", "import structlog"),
    ],
    the_core_knows_no_tools: [
        ("worker.app", "from worker.simulator.server import Simulator"),
        ("worker.lcm.pool", "import worker.sandbox.node"),
        ("worker.app", "from worker.broker.admin.inspect import inspect"),
        ("worker.status", "from worker import asyncapi"),
    ],
    the_simulator_stands_alone: [
        ("worker.simulator.server", "from worker.lcm.envelope import CHANNEL"),
        ("worker.simulator.faults", "from worker.common.text import cut"),
    ],
    only_app_and_commands_load_settings: [
        ("worker.lcm.pool", "from worker.settings import load"),
        ("worker.broker.link", "from worker.settings.loading import load"),
        ("worker.observability.log", "import worker.settings.loading"),
    ],
    only_commands_import_the_app: [
        ("worker.pipeline", "from worker.app import App"),
        ("worker.simulator.server", "import worker.app"),
    ],
    nothing_imports_the_commands: [
        ("worker.app", "from worker.cli.common import run_async"),
        ("worker.sandbox.node", "from worker import cli"),
    ],
    nothing_else_reads_the_environment: [
        ("worker.app", "import os\nname = os.environ['NAME']"),
        ("worker.observability.log", "import os\nlevel = os.getenv('LEVEL')"),
        ("worker.broker.link", "from os import environ"),
    ],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule: Rule) -> None:
    """No module of the package breaks this rule of the architecture."""
    assert [broken for module, tree in SOURCES.items() for broken in rule(module, tree)] == []


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [(rule, module, source) for rule, broken in RULES.items() for module, source in broken],
)
def test_a_broken_rule_is_noticed(rule: Rule, module: str, source: str) -> None:
    """A made-up source that breaks the rule is found out, so the rule can fail."""
    assert list(rule(module, ast.parse(source)))


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports form no circle, not even between the modules of one folder; a seeded one is noticed."""
    edges = {module: own_imports(tree) - {module} for module, tree in SOURCES.items()}
    assert circle(edges) == []
    assert circle(edges | {"worker.common.text": {"worker.contract.result"}})


def test_few_modules_stand_beside_the_folders() -> None:
    """`worker/` itself holds at most six modules, so that it can be taken in at a glance."""
    assert len(list(ROOT.glob("*.py"))) <= MOST_TOP_MODULES


def test_the_modules_that_rules_name_exist() -> None:
    """A rule about a module that was renamed would hold for ever: each place that is named is there."""
    places = {f"worker.{name}" for layer in LAYERS for name in layer} | {f"worker.{name}" for name in CORE}
    homes = {home for homes in LIBRARIES.values() for home in homes}
    named = PURE_MODULES | TAKES_SETTINGS | places | homes
    named |= {*PURE_FOLDERS, *TOOLS, *READ_ENVIRONMENT, *EDGES}
    assert named <= SOURCES.keys()
    assert {place(module) for module in SOURCES} - {""} == {name for layer in LAYERS for name in layer}
