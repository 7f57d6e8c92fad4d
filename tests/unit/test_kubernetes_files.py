"""The Kubernetes objects: valid by published schemas, true to the worker's settings, and consistent in themselves."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.support.kubernetes import FOLDER, Object, built, files_of, find
from tests.support.monitoring import ALERTS, PROMETHEUS
from worker.broker.topology import topology_of
from worker.contract.job import MAX_BODY
from worker.observability.failures import Failures
from worker.observability.metrics import Metrics
from worker.settings import Settings, exposures_of, load
from worker.status import Status, pages_of

TOP = Path(__file__).parents[2]
OVERLAYS = ("base", "production")
GUIDE = TOP / "docs" / "deployment.md"
MIB = 2**20
PAGES = pages_of(cast(Status, None), Metrics(version="1"), Failures()).keys()


@pytest.fixture(scope="module")
def schemas() -> Object:
    """Give the published schemas of the kinds of objects in use."""
    loaded: Object = json.loads((TOP / "tests/data/kubernetes-1.37.json").read_text())
    return loaded


@pytest.fixture
def production() -> list[Object]:
    """Give all objects of the overlay, those of the base among them."""
    return built(FOLDER / "production")


@pytest.fixture
def pod(production: list[Object]) -> Object:
    """Give what a worker's pod is made from."""
    return cast(Object, find(production, "Deployment")["spec"]["template"]["spec"])


@pytest.fixture
def settings(production: list[Object], pod: Object, tmp_path: Path) -> Settings:
    """Give the settings of the ConfigMap, loaded with a file for each that they name, as the pod would have it."""
    text = find(production, "ConfigMap")["data"]["worker.toml"]
    for volume, path in mounts(pod).items():
        secret = volumes(pod)[volume].get("secret")
        if secret is None:
            continue
        text = text.replace(f'"{path}/', f'"{tmp_path / volume}/')
        for file in re.findall(rf'"({re.escape(str(tmp_path / volume))}/[^"]+)"', text):
            Path(file).parent.mkdir(exist_ok=True)
            Path(file).write_text("s3cret\n")
            Path(file).chmod(secret["defaultMode"])
    (tmp_path / "worker.toml").write_text(text)
    return load(tmp_path / "worker.toml", {})


def container_of(pod: Object) -> Object:
    [container] = pod["containers"]
    return cast(Object, container)


def volumes(pod: Object) -> dict[str, Object]:
    """Return the pod's volumes by name."""
    return {volume["name"]: volume for volume in pod["volumes"]}


def mounts(pod: Object) -> dict[str, str]:
    """Return where each volume is mounted."""
    return {mount["name"]: mount["mountPath"] for mount in container_of(pod)["volumeMounts"]}


def mistakes(obj: Object, schemas: Object) -> list[str]:
    """Return what is wrong with an object by the schema of its kind."""
    kind = schemas["kinds"][f"{obj['apiVersion']} {obj['kind']}"]
    found = Draft202012Validator({**schemas, **kind}).iter_errors(obj)
    return [f"{obj['kind']} {error.json_path}: {error.message}" for error in found]


def documented(language: str, part: str) -> str:
    """Return the one block of the guide that is in a language and has a part."""
    blocks = re.findall(rf"^```{language}\n(.+?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    [block] = [block for block in blocks if part in block]
    return cast(str, block)


def mebibytes(quantity: str) -> int:
    return int(quantity.removesuffix("Mi"))


def test_every_file_is_part_of_the_overlay() -> None:
    """No file is left out of the kustomizations, and none that they name is missing."""
    there = {path for path in FOLDER.rglob("*") if path.is_file()}
    assert files_of(FOLDER / "production") == there


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay: str, schemas: Object) -> None:
    """Each object is what Kubernetes, KEDA and the Prometheus Operator take, and no two have a name in common."""
    objects = built(FOLDER / overlay)
    assert [wrong for obj in objects for wrong in mistakes(obj, schemas)] == []
    names = [(obj["kind"], obj["metadata"]["name"]) for obj in objects]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", "template/spec/containers/0/livenesProbe", {}),
        ("Deployment", "template/spec/terminationGracePeriodSeconds", "35s"),
        ("NetworkPolicy", "policyTypes", "Egress"),
        ("PodDisruptionBudget", "maxUnavailabel", 1),
        ("ScaledObject", "maxReplicaCount", "4"),
        ("ScaledObject", "coolDownPeriod", 600),
        ("PodMonitor", "podMetricsEndpoints/0/targetport", 8080),
    ],
)
def test_a_mistake_in_an_object_is_noticed(
    production: list[Object], schemas: Object, kind: str, path: str, value: object
) -> None:
    """A field that is misspelt or of another type fails the schema, so the schemas can fail."""
    obj = deepcopy(find(production, kind))
    *way, last = path.split("/")
    place: Any = obj["spec"]
    for part in way:
        place = place[int(part) if part.isdigit() else part]
    place[last] = value
    assert mistakes(obj, schemas)


def test_the_base_needs_no_operator() -> None:
    """A cluster without KEDA and the Prometheus Operator knows all kinds of objects of the base."""
    groups = {obj["apiVersion"] for obj in built(FOLDER / "base")}
    assert groups == {"v1", "apps/v1", "policy/v1", "networking.k8s.io/v1"}


def test_no_image_is_whatever_is_newest(pod: Object) -> None:
    """The overlay's image has a registry and a digest: a version would be one more to raise at each release."""
    image = container_of(pod)["image"]
    assert re.fullmatch(r"[\w.-]+\.\w+/lcm-outcome-worker@sha256:[0-9a-f]{64}", image)


def test_the_settings_are_real_and_nothing_is_exposed(settings: Settings) -> None:
    """The worker takes the ConfigMap's settings as they stand, with nothing to tell of secrets that others can read."""
    assert exposures_of(settings) == []
    assert settings.broker.declare == "passive"
    assert settings.log.format == "json"


def test_the_worker_finds_its_settings(production: list[Object], pod: Object) -> None:
    """The variable names the file of the ConfigMap, in the folder where that is mounted."""
    [variable] = container_of(pod)["env"]
    volume = volumes(pod)["settings"]["configMap"]["name"]
    assert volume == find(production, "ConfigMap")["metadata"]["name"]
    assert variable == {"name": "LCM_WORKER_CONFIG", "value": f"{mounts(pod)['settings']}/worker.toml"}


def test_secrets_are_files_that_change_and_others_cannot_read(
    production: list[Object], pod: Object, settings: Settings
) -> None:
    """Each is mounted as a whole folder, for the worker's group alone, and is made by a documented command."""
    assert not [mount for mount in container_of(pod)["volumeMounts"] if "subPath" in mount]
    text = GUIDE.read_text()
    made = dict(re.findall(r"create secret generic (\S+) ((?:\\\n|.)+)$", text, re.MULTILINE))
    files = [settings.broker.password_file, settings.broker.ca_file, settings.lcm.password_file]
    for volume in ("broker", "lcm"):
        secret = volumes(pod)[volume]["secret"]
        assert stat.S_IMODE(secret["defaultMode"]) == stat.S_IRUSR | stat.S_IRGRP
        names = {Path(file).name for file in files if Path(file).parent.name == volume}
        assert names == set(re.findall(r"--from-file=([\w.]+)=", made[secret["secretName"]]))
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    for target in find(production, "TriggerAuthentication")["spec"]["secretTargetRef"]:
        assert re.search(rf"--from-(file|literal)={target['key']}=", made[target["name"]])


def test_probes_ask_what_the_health_server_answers(pod: Object, settings: Settings) -> None:
    """Restarts go by /livez alone, readiness by /readyz, on the port that the settings open to other hosts."""
    container = container_of(pod)
    [port] = container["ports"]
    assert settings.health.address == ("0.0.0.0", port["containerPort"])  # noqa: S104 - in the pod's own network
    paths = {}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[name]["httpGet"]
        assert asked["port"] == port["name"]
        paths[name] = asked["path"]
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert set(paths.values()) <= PAGES


def test_a_pod_has_time_to_drain(pod: Object, settings: Settings) -> None:
    """The kubelet kills a worker only after its own grace has passed."""
    assert pod["terminationGracePeriodSeconds"] > settings.worker.shutdown_grace


def test_a_pod_has_no_more_rights_than_it_needs(pod: Object) -> None:
    """It keeps to the Pod Security Standard `restricted`, with a read-only root file system and no token."""
    ours = pod["securityContext"]
    [user] = re.findall(r"^USER (\d+):(\d+)$", (TOP / "Dockerfile").read_text(), re.MULTILINE)
    assert (str(ours["runAsUser"]), str(ours["runAsGroup"])) == user
    assert ours["runAsNonRoot"] is True
    assert ours["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container_of(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_pod_has_the_memory_that_was_measured(pod: Object, settings: Settings) -> None:
    """It asks for what the benchmark found, and has room for what may be in hand, twice, and 90 MB for the guard."""
    report = (TOP / "docs/performance.md").read_text()
    resident = max(float(found) for found in re.findall(r"^\| 200,000 \| ([\d.]+) MiB", report, re.MULTILINE))
    jobs = max(8 * MIB, settings.broker.prefetch * MAX_BODY)
    in_hand = (jobs + settings.lcm.sessions * settings.lcm.max_reply) / MIB + 4
    resources = container_of(pod)["resources"]
    assert mebibytes(resources["requests"]["memory"]) >= resident
    assert mebibytes(resources["limits"]["memory"]) >= resident + 2 * in_hand + 90e6 / MIB


def test_all_that_selects_workers_selects_these(production: list[Object]) -> None:
    """Deployment, disruption budget, network policy, pod monitor and autoscaler are all about the same pods."""
    deployment = find(production, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for kind, field in (
        ("Deployment", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("PodMonitor", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        assert find(production, kind)["spec"][field] == {"matchLabels": labels}
    target = find(production, "ScaledObject")["spec"]["scaleTargetRef"]["name"]
    assert target == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]


def test_metrics_are_read_where_they_are(production: list[Object], pod: Object) -> None:
    """The monitor asks the health port for a page that is there."""
    [endpoint] = find(production, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == container_of(pod)["ports"][0]["name"]
    assert endpoint["path"] in PAGES


def test_the_documented_command_makes_an_object_of_the_alerts(tmp_path: Path) -> None:
    """A PrometheusRule holds all that `alerts.yml` does, in the overlay's folder."""
    for path in (ALERTS.parent, FOLDER):
        shutil.copytree(path, tmp_path / path.relative_to(TOP))
    shell = shutil.which("sh")
    assert shell
    subprocess.run([shell, "-euc", documented("sh", "PrometheusRule")], cwd=tmp_path, check=True)  # noqa: S603 - our own words
    made = tmp_path / FOLDER.relative_to(TOP) / "production" / "prometheus-rule.yaml"
    assert yaml.safe_load(made.read_text()) == {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "lcm-outcome-worker"},
        "spec": yaml.safe_load(ALERTS.read_text()),
    }


def test_the_documented_monitor_of_queues_asks_what_prometheus_asks(schemas: Object) -> None:
    """It is a part of a PodMonitor, and asks the page of RabbitMQ's plugin that `prometheus.yml` asks."""
    part = yaml.safe_load(documented("yaml", "podMetricsEndpoints"))
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "spec": {"selector": {}} | part,
    }
    assert mistakes(monitor, schemas) == []
    [endpoint] = part["podMetricsEndpoints"]
    [asked] = [
        job
        for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]
        if job["job_name"] == "rabbitmq"
    ]
    assert (endpoint["path"], endpoint["params"]) == (asked["metrics_path"], asked["params"])


def test_the_topology_is_exported_where_the_secrets_of_the_pod_are_not() -> None:
    """The documented variables leave out each file that the overlay's settings name, so that these load anywhere."""
    command = documented("sh", "topology export --config config/kubernetes/base/worker.toml")
    without = dict.fromkeys(re.findall(r"(LCM_WORKER_\w+)= ", command), "")
    settings = load(FOLDER / "base" / "worker.toml", without)
    assert settings.lcm.fleet_sessions


def test_the_network_is_open_for_what_a_worker_needs(production: list[Object], settings: Settings) -> None:
    """In comes monitoring, to the health port; out goes what the settings name, and DNS."""
    policy = find(production, "NetworkPolicy")["spec"]
    [scrape] = policy["ingress"]
    assert scrape["ports"] == [{"port": "health"}]
    assert scrape["from"]
    broker, lcm, dns = policy["egress"]
    url = urlsplit(settings.broker.url)
    namespace = str(url.hostname).split(".")[1]
    assert broker["to"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": namespace}
    assert broker["ports"] == [{"port": url.port}]
    assert lcm["ports"] == [{"port": urlsplit(settings.lcm.url).port or 443}]
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} == {(53, "UDP"), (53, "TCP")}


def test_the_autoscaler_keeps_to_the_fleets_limit(production: list[Object], settings: Settings) -> None:
    """No more workers run than LCM's sessions can be shared among, and all of these can be used."""
    scaler = find(production, "ScaledObject")["spec"]
    assert 1 <= scaler["minReplicaCount"] < scaler["maxReplicaCount"] <= settings.lcm.fleet_sessions
    assert scaler["maxReplicaCount"] * settings.lcm.sessions >= settings.lcm.fleet_sessions


def test_the_autoscaler_counts_what_workers_have_in_hand(
    production: list[Object], settings: Settings
) -> None:
    """It reads the jobs queue of these settings from the broker of these settings, unacknowledged jobs included."""
    [trigger] = find(production, "ScaledObject")["spec"]["triggers"]
    metadata = trigger["metadata"]
    assert metadata["queueName"] == topology_of(settings.broker).jobs
    assert (metadata["protocol"], metadata["excludeUnacknowledged"]) == ("http", "false")
    assert int(metadata["value"]) == settings.broker.prefetch
    host, url = urlsplit(metadata["host"]), urlsplit(settings.broker.url)
    assert (host.scheme, host.hostname, host.port) == ("https", url.hostname, 15671)
    assert metadata["vhostName"] == url.path
    authentication = find(production, "TriggerAuthentication")["metadata"]["name"]
    assert trigger["authenticationRef"]["name"] == authentication


def test_the_autoscaler_waits_for_jobs_in_retry_queues(production: list[Object], settings: Settings) -> None:
    """Workers are taken away only after the longest delay of a job that is tried again."""
    behaviour = find(production, "ScaledObject")["spec"]["advanced"]["horizontalPodAutoscalerConfig"][
        "behavior"
    ]
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] >= max(settings.broker.retry_delays)
