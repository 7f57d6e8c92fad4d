"""What the container files and the unit promise: they run as nobody, lose nothing at the end, name only what exists."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.support import service_unit
from tests.support.compose import document
from tests.support.dockerfile import instructions, let_through
from worker.common.durations import parse_duration
from worker.settings import Settings, WorkerSettings, load

TOP = Path(__file__).parents[2]
PREFIX = "LCM_WORKER_"


def last_stage() -> dict[str, str]:
    found = instructions()
    start = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return dict(found[start:])


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Give the compose file, with its variables at their defaults."""
    return document()


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    """Give its services."""
    return dict(compose["services"])


def test_the_image_is_built_in_stages_of_pinned_images() -> None:
    """What runs comes from a stage without the build's tools, and no image is whatever is newest today."""
    stages = [rest.split() for name, rest in instructions() if name == "FROM"]
    assert len(stages) == 2
    for image, *_ in stages:
        assert re.fullmatch(r"python:3\.\d+-slim", image)
    assert "pip" not in last_stage()["RUN"]
    assert "--from=build" in last_stage()["COPY"]


def test_the_image_is_built_on_a_known_digest() -> None:
    """`make image` looks up the digest of the one base image of all stages, builds on it, and writes it down."""
    (base,) = {rest.split()[0] for name, rest in instructions() if name == "FROM"}
    make = shutil.which("make")
    assert make
    done = subprocess.run(  # noqa: S603 - it prints what it would do
        [make, "--dry-run", "image"], cwd=TOP, capture_output=True, text=True, check=True
    )
    words = done.stdout.split()
    assert words[words.index("inspect") + 1] == base
    assert f"{base}=docker-image://{base}@$digest" in words
    assert {f"org.opencontainers.image.base.name={base}", "org.opencontainers.image.base.digest=$digest"} <= {
        *words
    }


def test_the_image_runs_as_nobody() -> None:
    """The user is given by number, and is not root."""
    uid, gid = map(int, last_stage()["USER"].split(":"))
    assert uid >= 1000
    assert gid >= 1000
    assert f"--uid {uid}" in last_stage()["RUN"]


def test_signals_reach_the_worker() -> None:
    """Without a shell between, so that SIGTERM drains the worker; by default it runs."""
    assert json.loads(last_stage()["ENTRYPOINT"]) == ["lcm-worker"]
    assert json.loads(last_stage()["CMD"]) == ["run"]
    assert last_stage()["STOPSIGNAL"] == "SIGTERM"


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    """Every file that the build copies from the checkout is there, and .dockerignore lets it through."""
    copies = [rest.split() for name, rest in instructions() if name == "COPY"]
    sources = {source for words in copies if not words[0].startswith("--from=") for source in words[:-1]}
    assert sources == let_through()
    assert [source for source in sorted(sources) if not (TOP / source).exists()] == []


def test_hashes_are_checked_when_the_image_is_built() -> None:
    """All that pip fetches for the image is checked against the lock."""
    installs = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    assert installs
    for install in installs:
        assert "--require-hashes" in install or "--no-deps --no-build-isolation" in install


def test_the_compose_file_is_valid(compose: dict[str, Any]) -> None:
    """It is as the Compose Specification says, and a misspelt field is noticed."""
    rules = Draft7Validator(json.loads((TOP / "tests/data/compose-spec.json").read_text()))
    assert [error.message for error in rules.iter_errors(compose)] == []
    assert not rules.is_valid({**compose, "services": {"worker": {"healthchek": {}}}})


def test_no_service_runs_whatever_is_newest(services: dict[str, Any]) -> None:
    """Every image has a tag, and none is `latest`."""
    assert set(services) == {"rabbitmq", "lcm", "worker", "prometheus", "grafana"}
    for service in services.values():
        _, _, tag = service["image"].partition(":")
        assert tag not in {"", "latest"}


def test_workers_wait_for_the_others_to_be_healthy(services: dict[str, Any]) -> None:
    """The worker depends on broker and LCM, and both say when they are ready."""
    waits = services["worker"]["depends_on"]
    assert {name: wait["condition"] for name, wait in waits.items()} == {
        "rabbitmq": "service_healthy",
        "lcm": "service_healthy",
    }
    for name in waits:
        assert services[name]["healthcheck"]["test"]
    assert "check_local_alarms" in services["rabbitmq"]["healthcheck"]["test"][1]


def test_a_worker_has_time_to_drain(services: dict[str, Any]) -> None:
    """Docker kills a worker only after its own grace has passed."""
    grace = WorkerSettings().shutdown_grace
    assert parse_duration(services["worker"]["stop_grace_period"]) > grace


def test_a_container_knows_how_its_worker_is(services: dict[str, Any]) -> None:
    """The worker is asked for its health on the address that its own settings name."""
    assert services["worker"]["healthcheck"]["test"] == ["CMD", "lcm-worker", "health"]
    assert services["worker"]["environment"][f"{PREFIX}HEALTH__LISTEN"].endswith(":8080")


def test_workers_can_be_scaled(services: dict[str, Any]) -> None:
    """Nothing of a worker can exist only once: no container name, no port of the host."""
    assert not {"container_name", "ports", "hostname"} & set(services["worker"])
    assert services["worker"]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["worker", "lcm"])
def test_our_containers_have_no_more_rights_than_they_need(services: dict[str, Any], name: str) -> None:
    """The root file system is read-only, all capabilities are gone, and none can be won."""
    service = services[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == "/tmp"  # noqa: S108 - the path inside the container
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_broker_keeps_its_data(compose: dict[str, Any], services: dict[str, Any]) -> None:
    """Its folder is a named volume, found again since the node's name stays the same."""
    assert services["rabbitmq"]["hostname"]
    (volume,) = services["rabbitmq"]["volumes"]
    name, _, folder = volume.partition(":")
    assert name in compose["volumes"]
    assert folder == "/var/lib/rabbitmq"


def test_ports_are_open_to_this_host_alone(services: dict[str, Any]) -> None:
    """Whatever is published is published on the loopback address, under the port that it has inside."""
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published.keys() == services.keys() - {"worker"}
    for ports in published.values():
        assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)] == []


def test_broker_and_lcm_are_where_commands_look(services: dict[str, Any]) -> None:
    """With `docker compose up rabbitmq lcm`, commands on this host need no settings."""
    defaults = Settings()
    environment = services["rabbitmq"]["environment"]
    user = f"{environment['RABBITMQ_DEFAULT_USER']}:{environment['RABBITMQ_DEFAULT_PASS']}"
    amqp, _ = (port.rpartition(":")[0] for port in services["rabbitmq"]["ports"])
    (websocket,) = (port.rpartition(":")[0] for port in services["lcm"]["ports"])
    assert defaults.broker.url == f"amqp://{user}@{amqp}/"
    assert defaults.lcm.url == f"ws://{websocket}/"
    assert "docker compose up rabbitmq lcm" in (TOP / "README.md").read_text()


def test_monitoring_comes_only_where_it_is_asked_for(services: dict[str, Any]) -> None:
    """Without the profile nothing but broker, LCM and workers is started."""
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert profiles == {"prometheus": ["monitoring"], "grafana": ["monitoring"]}


def test_prometheus_asks_services_that_are_there(services: dict[str, Any]) -> None:
    """Each target is a service on a port that it has: the worker's of its settings, the one of RabbitMQ's plugin."""
    assert "./config/prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]
    config = yaml.safe_load((TOP / "config/prometheus/prometheus.yml").read_text())
    worker, broker = config["scrape_configs"]
    [found] = worker["dns_sd_configs"]
    listen = services["worker"]["environment"][f"{PREFIX}HEALTH__LISTEN"]
    assert (found["names"], found["type"], listen) == (["worker"], "A", f"0.0.0.0:{found['port']}")
    assert broker["static_configs"] == [{"targets": ["rabbitmq:15692"]}]


def test_prometheus_takes_its_configuration() -> None:
    """Prometheus's own checker finds nothing wrong in it; the rules are checked where they are tested."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.fail("promtool is missing: run `sudo apt-get install prometheus`, then try again")
    file = TOP / "config/prometheus/prometheus.yml"
    command = [promtool, "check", "config", "--syntax-only", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - its paths are known
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_asks_the_prometheus_that_is_there(compose: dict[str, Any], services: dict[str, Any]) -> None:
    """It is given that one, on its port, as the source of metrics."""
    [given] = services["grafana"]["configs"]
    [source] = yaml.safe_load(compose["configs"][given["source"]]["content"])["datasources"]
    assert given["target"].startswith("/etc/grafana/provisioning/datasources/")
    port = services["prometheus"]["ports"][0].rpartition(":")[2]
    assert source["url"] == f"http://prometheus:{port}"


def test_environment_names_real_settings(services: dict[str, Any]) -> None:
    """Each LCM_WORKER_ variable is a setting, and the worker accepts them all as they stand."""
    environment = services["worker"]["environment"]
    for variable in environment:
        section, _, name = variable.removeprefix(PREFIX).lower().partition("__")
        assert variable.startswith(PREFIX)
        assert section in Settings.model_fields
        assert name in type(getattr(Settings(), section)).model_fields
    settings = load(None, environment)
    user = services["rabbitmq"]["environment"]
    assert settings.broker.url == (
        f"amqp://{user['RABBITMQ_DEFAULT_USER']}:{user['RABBITMQ_DEFAULT_PASS']}@rabbitmq:5672/"
    )
    assert settings.lcm.url == f"ws://lcm:{services['lcm']['command'][-1]}/"


SPECIFIERS = {"d": "/run/credentials", "H": "host-1", "i": "1"}


def test_the_unit_reads_nothing_but_its_credentials() -> None:
    """Its user can read no file of root's: each path that the worker is given is a credential, and each is used."""
    arguments = service_unit.command(SPECIFIERS)
    variables = service_unit.environment(SPECIFIERS)
    named = [arguments[arguments.index("--config") + 1]]
    named += [value for name, value in variables.items() if name.endswith("_FILE")]
    assert sorted(named) == sorted(f"/run/credentials/{name}" for name in service_unit.credentials())
    assert list(service_unit.values_of("DynamicUser")) == ["yes"]


def test_the_units_environment_names_real_settings() -> None:
    """Each variable, also of the lines that wait to be used, is a setting."""
    lines = re.findall(r"^#?Environment=(\w+)=", service_unit.UNIT.read_text(), flags=re.MULTILINE)
    assert len(lines) == len(set(lines))
    for variable in lines:
        section, _, name = variable.removeprefix(PREFIX).lower().partition("__")
        assert name in type(getattr(Settings(), section)).model_fields


def test_credentials_are_installed_for_root_alone() -> None:
    """The commands of the documentation make each file that the unit loads, with a mode that only root can read."""
    text = (TOP / "docs/deployment.md").read_text()
    for file in service_unit.credentials().values():
        [mode] = re.findall(rf"^install (?:-D )?-m (\d+) \S+ {re.escape(file)}", text, flags=re.MULTILINE)
        assert mode == "600"


def test_the_unit_gives_a_worker_time_to_drain() -> None:
    """Systemd kills only after the worker's own grace has passed, and starts none that has wrong settings again."""
    [seconds] = service_unit.values_of("TimeoutStopSec")
    assert parse_duration(seconds) > WorkerSettings().shutdown_grace
    assert list(service_unit.values_of("RestartPreventExitStatus")) == ["2"]
