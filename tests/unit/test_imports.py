"""The shape of the code, kept by reading its imports: who may know of whom."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import worker

ROOT = Path(worker.__file__).parent
PURE = {
    "worker.asyncapi",
    "worker.asyncapi.document",
    "worker.asyncapi.examples",
    "worker.asyncapi.schemas",
    "worker.backoff",
    "worker.broker.definitions",
    "worker.broker.topology",
    "worker.copies",
    "worker.dead_letter",
    "worker.disposition",
    "worker.durations",
    "worker.errors",
    "worker.inquiry",
    "worker.job",
    "worker.guard",
    "worker.lcm.breaker",
    "worker.lcm.pacing",
    "worker.lcm.protocol",
    "worker.message",
    "worker.readiness",
    "worker.reply",
    "worker.result",
    "worker.text",
    "worker.top.histogram",
    "worker.top.layout",
    "worker.top.reading",
    "worker.top.summary",
    "worker.top.tally",
    "worker.top.timeline",
    "worker.top.worker_tally",
}
IMPURE = {
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
# The retry queues and their arguments follow from a dozen settings: it is given its section, as every component.
TAKES_SETTINGS = {"worker.asyncapi.document", "worker.broker.topology"}
COMMANDS_AND_DEMO = ("worker.cli", "worker.sandbox.demo")
# These start processes of their own, which need a PATH: nothing of this worker's configuration.
STARTS_PROCESSES = ("worker.sandbox.rabbitmq_folder", "worker.sandbox.rabbitmq_server")

Rule = Callable[[str, ast.Module], Iterator[str]]


def within(module: str, *packages: str) -> bool:
    """Whether a module is one of these, or inside of one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield what is imported, wherever in the module: of `from a import b`, both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, or the rules would not see them"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_imported(tree: ast.Module) -> set[str]:
    """Reduce the imports to modules: of this package those that exist, of others the first name."""
    ours = {name for name in imports(tree) if name in SOURCES}
    return ours | {name.partition(".")[0] for name in imports(tree)} - {"worker"}


def pure_modules_import_pure_ones(module: str, tree: ast.Module) -> Iterator[str]:
    if module not in PURE:
        return
    for name in modules_imported(tree):
        allowed = (
            name in PURE or name == "msgspec" or (name in sys.stdlib_module_names and name not in IMPURE)
        )
        if name == "worker.settings":
            allowed = module in TAKES_SETTINGS
        if name not in {"worker", "worker.lcm", "worker.broker"} and not allowed:
            yield f"{module}, which is pure, imports {name}"


def lcm_and_broker_are_strangers(module: str, tree: ast.Module) -> Iterator[str]:
    for mine, other in (("worker.lcm", "worker.broker"), ("worker.broker", "worker.lcm")):
        if within(module, mine):
            yield from (f"{module} imports {name}" for name in imports(tree) if within(name, other))


def libraries_have_one_home(module: str, tree: ast.Module) -> Iterator[str]:
    homes = {
        "websockets": module == "worker.lcm.session" or module.startswith("worker.sandbox.lcm"),
        "aio_pika": within(module, "worker.broker"),
        "aiormq": within(module, "worker.broker"),
        "tenacity": module == "worker.lcm.lookup",
        "prometheus_client": module == "worker.metrics",
    }
    for name in imports(tree):
        if not homes.get(name.partition(".")[0], True):
            yield f"{module} imports {name}"


def the_pipeline_imports_pure_modules(module: str, tree: ast.Module) -> Iterator[str]:
    if module == "worker.pipeline":
        for name in modules_imported(tree):
            if name not in PURE | sys.stdlib_module_names | {"worker"} or name in IMPURE - {"time"}:
                yield f"{module} imports {name}"


def few_load_settings(module: str, tree: ast.Module) -> Iterator[str]:
    if within(module, "worker.settings", "worker.app", *COMMANDS_AND_DEMO):
        return
    for name in imports(tree):
        if name == "worker.settings.load" or within(name, "worker.settings.loading"):
            yield f"{module} imports {name}"


def few_import_the_app(module: str, tree: ast.Module) -> Iterator[str]:
    if not within(module, *COMMANDS_AND_DEMO):
        yield from (f"{module} imports {name}" for name in imports(tree) if within(name, "worker.app"))


def nothing_imports_the_commands(module: str, tree: ast.Module) -> Iterator[str]:
    if not within(module, "worker.cli", "worker.__main__"):
        yield from (f"{module} imports {name}" for name in imports(tree) if within(name, "worker.cli"))


def nothing_else_reads_the_environment(module: str, tree: ast.Module) -> Iterator[str]:
    if within(module, "worker.settings", "worker.cli.common", *STARTS_PROCESSES):
        return
    reads = {"environ", "environb", "getenv"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in reads:
            yield f"{module} reads {ast.unparse(node)} in line {node.lineno}"
    yield from (
        f"{module} imports {name}" for name in imports(tree) if name in {f"os.{read}" for read in reads}
    )


def _sources() -> dict[str, ast.Module]:
    found = {}
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(file.read_bytes(), str(file))
    return found


SOURCES = _sources()
RULES: dict[Rule, list[tuple[str, str]]] = {
    pure_modules_import_pure_ones: [
        ("worker.job", "import asyncio"),
        ("worker.result", "from time import monotonic"),
        ("worker.errors", "import structlog"),
        ("worker.message", "import aio_pika"),
        ("worker.lcm.protocol", "from worker.lcm import session"),
        ("worker.copies", "def late():\n    from worker.telemetry import Log"),
        ("worker.result", "from worker.settings import Settings"),
    ],
    lcm_and_broker_are_strangers: [
        ("worker.lcm.pool", "from worker.broker.link import Link"),
        ("worker.broker.link", "from worker import lcm"),
        ("worker.broker.link", "import worker.lcm.pool as sessions"),
    ],
    libraries_have_one_home: [
        ("worker.lcm.pool", "import websockets"),
        ("worker.sandbox.demo", "from websockets.asyncio.client import connect"),
        ("worker.pipeline", "from aio_pika.abc import AbstractMessage"),
        ("worker.cli.check", "import aiormq"),
        ("worker.pipeline", "from tenacity import retry"),
        ("worker.status", "from prometheus_client import Counter"),
    ],
    the_pipeline_imports_pure_modules: [
        ("worker.pipeline", "import asyncio"),
        ("worker.pipeline", "from worker.telemetry import Log"),
        ("worker.pipeline", "from worker.lcm import pool"),
        ("worker.pipeline", "import structlog"),
    ],
    few_load_settings: [
        ("worker.lcm.pool", "from worker.settings import load"),
        ("worker.broker.link", "from worker.settings.loading import load"),
        ("worker.telemetry", "import worker.settings.loading"),
    ],
    few_import_the_app: [
        ("worker.pipeline", "from worker.app import App"),
        ("worker.sandbox.lcm", "import worker.app"),
    ],
    nothing_imports_the_commands: [
        ("worker.app", "from worker.cli.common import run_async"),
        ("worker.sandbox.demo", "from worker import cli"),
    ],
    nothing_else_reads_the_environment: [
        ("worker.app", "import os\nname = os.environ['NAME']"),
        ("worker.telemetry", "import os\nlevel = os.getenv('LEVEL')"),
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


def test_the_modules_that_rules_name_exist() -> None:
    """A rule about a module that was renamed would hold for ever: each that is named is there."""
    named = PURE | {*COMMANDS_AND_DEMO, *STARTS_PROCESSES}
    named |= {"worker.app", "worker.pipeline", "worker.lcm.session", "worker.lcm.lookup", "worker.cli.common"}
    assert named <= SOURCES.keys()
